"""Looking through the inbox: which requests a person wants to see, newest first.

However much there is, a look costs little: one condition is met through an index, the others by
looking at the rows that it finds, and at most WINDOW of them at a time. What a page did not come
to see is behind its cursor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, LargeBinary, Text, and_, bindparam, cast, func, or_, select

from service.domain import ENDS, State
from service.inbox import codec
from service.inbox.rows import Row, full_columns, listed_columns, to_row
from service.inbox.sql import Tx
from service.inbox.sql_tables import (
    ended,
    failed_with,
    leased,
    open_,
    requests,
    state_is,
    waiting,
)

WINDOW = 100_000  # rows that one look goes through
TEXT_WINDOW = 20_000  # likewise, where their text is looked at
TEXT = 4096  # bytes of each payload and reply in which a text is looked for
SLACK = 60_000  # ms that clocks of replicas may differ, and commits be late

_r = requests.c
_INDEX = dict.fromkeys(ENDS, ended) | {
    State.QUEUED: open_,
    State.ANSWERING: leased,
    State.ANSWERED: leased,
    State.WAITING: waiting,
}
"""What a state implies, said so that a planner sees which small index will do."""


@dataclass(frozen=True, slots=True)
class Filter:
    """All that is given must be met. `since` (inclusive) and `until` in ms of when it was
    accepted; `text` in the topic, or the beginnings of payload and reply, in any case of ASCII."""

    state: State | None = None
    flow: str | None = None
    conversation: str | None = None
    error: str | None = None
    text: str | None = None
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """`next`: the seq before which the next page begins; None: there is nothing more. A page may
    have fewer rows than wanted, or none, and a `next` all the same: it looked back to
    `looked_to` (ms) and stopped there for now."""

    rows: list[Row]
    next: int | None
    looked_to: int | None = None


def _beside(column: Any) -> Any:
    """The column so that no planner takes it for a reason to use its index."""
    return column.op("||")("")


def _text_in(pg: bool) -> Any:
    text: Any = bindparam("b_text", type_=LargeBinary if pg else Text)
    if pg:  # bytes that are no text can't be made to: compared as they are escaped
        held = [func.encode(func.substr(c, 1, TEXT), "escape") for c in (_r.payload, _r.reply)]
        topic = func.encode(func.convert_to(_r.topic, "UTF8"), "escape")
        wanted = func.lower(func.encode(text, "escape"))
        return or_(*(func.strpos(func.lower(c), wanted) > 0 for c in (topic, *held)))
    wanted = func.lower(text)
    kept: list[Any] = [_r.topic]
    kept += [cast(func.substr(c, 1, TEXT), Text) for c in (_r.payload, _r.reply)]
    return or_(*(func.instr(func.lower(c), wanted) > 0 for c in kept))


Shape = tuple[State | None, bool, bool, bool, bool, bool, bool]
"""Which conditions a statement has."""


def _shape(wanted: Filter) -> Shape:
    given = (
        wanted.flow,
        wanted.conversation,
        wanted.error,
        wanted.text,
        wanted.since,
        wanted.until,
    )
    return (wanted.state, *(one is not None for one in given))  # type: ignore[return-value]


@cache
def _conditions(pg: bool, shape: Shape) -> tuple[Any, Any]:
    """What is met through an index, and the rest."""
    state, flow, conversation, error, text, since, until = shape
    of_flow = bindparam("b_flow", type_=Text)
    of_conversation = bindparam("b_conversation", type_=Text)
    base: list[Any] = []
    rest: list[Any] = []

    def put(index: Any, beside: Any) -> None:
        (rest if base else base).append(beside if base else index)

    if flow and conversation:
        base.append(and_(_r.flow == of_flow, _r.conversation == of_conversation))
    if error:
        code = bindparam("b_error", type_=Text)
        put(and_(failed_with, _r.error_code == code), _beside(_r.error_code) == code)
    if state is not None and state is not State.DONE:
        put(and_(state_is(state), _INDEX[state]), _beside(_r.state) == state.value)
    if flow and not conversation:
        put(_r.flow == of_flow, _beside(_r.flow) == of_flow)
    if state is State.DONE:
        put(and_(state_is(state), _INDEX[state]), _beside(_r.state) == state.value)
    if conversation and not flow:
        rest.append(_r.conversation == of_conversation)
    if since:
        rest.append(_r.accepted_at >= bindparam("b_since", type_=BigInteger))
    if until:
        rest.append(_r.accepted_at < bindparam("b_until", type_=BigInteger))
    if text:
        rest.append(_text_in(pg))
    return base, rest


_span = (
    _r.seq < bindparam("b_before", type_=BigInteger),
    _r.seq >= bindparam("b_from", type_=BigInteger),
)


@cache
def _floor(pg: bool, shape: Shape) -> Any:
    """The last row of a window, by the index alone."""
    base, _ = _conditions(pg, shape)
    offset = bindparam("b_window", type_=BigInteger)
    return select(_r.seq).where(*base, *_span).order_by(_r.seq.desc()).offset(offset).limit(1)


@cache
def _rows(pg: bool, shape: Shape, whole: bool) -> Any:
    base, rest = _conditions(pg, shape)
    columns = full_columns if whole else listed_columns
    statement = select(*columns).where(*base, *rest, *_span)
    return statement.order_by(_r.seq.desc()).limit(bindparam("b_limit", type_=BigInteger))


def find(
    tx: Tx, wanted: Filter, *, limit: int, before: int | None = None, whole: bool = False
) -> Page:
    """A page of what is wanted. `whole`: rows with all that they hold."""
    shape = _shape(wanted)
    top = (1 << 62) if before is None else codec.number(before)
    bottom = 0
    if wanted.until is not None:
        top = min(top, _seq_at(tx, wanted.until + SLACK))
    if wanted.since is not None:
        bottom = _seq_at(tx, wanted.since - SLACK)
    values = _values(tx.pg, wanted) | {"b_before": top, "b_from": bottom}
    cut = None
    if _conditions(tx.pg, shape)[1]:
        window = TEXT_WINDOW if wanted.text is not None else WINDOW
        cut = tx.run(_floor(tx.pg, shape), values | {"b_window": window - 1}).scalar()
        if cut is not None:
            values["b_from"] = cut
    found = [to_row(row) for row in tx.run(_rows(tx.pg, shape, whole), values | {"b_limit": limit})]
    if len(found) == limit:
        return Page(found, found[-1].seq)
    if cut is None:
        return Page(found, None)
    return Page(found, cut, tx.run(_accepted_at(), {"b_seq": cut}).scalar())


def _values(pg: bool, wanted: Filter) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in ("flow", "conversation"):
        if (text := getattr(wanted, name)) is not None:
            values[f"b_{name}"] = codec.key(text)
    if wanted.error is not None:
        values["b_error"] = codec.clean(wanted.error)
    if wanted.text is not None:
        values["b_text"] = codec.text_out(wanted.text) if pg else codec.clean(wanted.text)
    for name in ("since", "until"):
        if (at := getattr(wanted, name)) is not None:
            values[f"b_{name}"] = codec.number(at)
    return values


@cache
def _accepted_at() -> Any:
    return select(_r.accepted_at).where(_r.seq == bindparam("b_seq", type_=BigInteger))


@cache
def _edge(last: bool) -> Any:
    order = _r.seq.desc() if last else _r.seq
    return select(_r.seq, _r.accepted_at).order_by(order).limit(1)


@cache
def _from() -> Any:
    least = _r.seq >= bindparam("b_seq", type_=BigInteger)
    return select(_r.seq, _r.accepted_at).where(least).order_by(_r.seq).limit(1)


def _seq_at(tx: Tx, at: int) -> int:
    """About the first seq accepted at or after `at`. Numbers grow with time, so halving finds it
    in a few look-ups, and no index has to be kept."""
    first, last = tx.run(_edge(False)).one_or_none(), tx.run(_edge(True)).one_or_none()
    if first is None or first.accepted_at >= at:
        return 0
    if last.accepted_at < at:
        return int(last.seq) + 1
    low, high = int(first.seq), int(last.seq)  # accepted before, and not before
    while high - low > 1:
        middle = tx.run(_from(), {"b_seq": (low + high) // 2}).one()
        if middle.accepted_at < at:
            low = max(middle.seq, (low + high) // 2)
        else:
            high = (low + high) // 2
    return high
