"""What people and metrics look at. Nothing here locks or changes anything."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

from sqlalchemy import Text, bindparam, func, literal_column, not_, select

from service.domain import State
from service.inbox import codec
from service.inbox.rows import BacklogStats, Row, full_columns, listed_columns, to_row
from service.inbox.sql import Tx
from service.inbox.sql_tables import (
    ended,
    leased,
    open_,
    ordered_queue,
    requests,
    state_is,
    unordered_queue,
    waiting,
)

_r = requests.c
T = TypeVar("T")
_flow = _r.flow.op("||")(literal_column("''")).label("flow")
"""Not the column itself: grouped by that, SQLite walks the index of all requests by flow."""
_CHEAP = 0.3  # seconds
_SHARE = 30
_DEAD = (State.FAILED, State.EXPIRED, State.IGNORED)


@cache
def _get() -> Any:
    return select(*full_columns).where(_r.id == bindparam("b_id", type_=Text))


def get(tx: Tx, id: str) -> Row | None:
    row = tx.run(_get(), {"b_id": codec.key(id)}).one_or_none()
    return None if row is None else to_row(row)


@cache
def _like() -> Any:
    pattern = bindparam("b_like", type_=Text)
    return select(_r.id).where(_r.id.like(pattern)).limit(bindparam("b_limit"))


def ids(tx: Tx, part: str, limit: int) -> list[str]:
    """Those that end with this, or else begin with it. Ids are of letters, digits and -."""
    if not part.replace("-", "").isalnum():
        return []
    for pattern in (f"%{part}", f"{part}%"):
        values = {"b_like": pattern, "b_limit": limit}
        if found := [str(row.id) for row in tx.run(_like(), values)]:
            return found
    return []


@cache
def _waiting(where: Any) -> Any:
    """From the index alone: it has the flow, and `state` is known by what it holds."""
    return select(_flow, func.count().label("n")).where(where).group_by(_flow)


@cache
def _working() -> Any:
    return select(_flow, _r.state, func.count().label("n")).where(leased).group_by(_flow, _r.state)


def stats(tx: Tx) -> BacklogStats:
    """Counted from the small indexes: what ended well is not looked at."""
    counts: Counter[tuple[str | None, State]] = Counter()
    for where in (ordered_queue, unordered_queue):
        for row in tx.run(_waiting(where)):
            counts[row.flow or None, State.QUEUED] += row.n
    for row in tx.run(_waiting(waiting)):
        counts[row.flow or None, State.WAITING] += row.n
    for row in tx.run(_working()):
        counts[row.flow or None, State(row.state)] += row.n
    counted = tx.run(_dead_counts()).one()
    deads = {state: count for state, count in zip(_DEAD, counted, strict=True) if count}
    return BacklogStats(dict(counts), tx.run(_oldest()).scalar(), deads)


@cache
def _dead_counts() -> Any:
    """From the index alone: a count of its own for each, since a planner that is asked for several
    looks at every row."""
    return select(
        *(
            select(func.count())
            .select_from(requests)
            .where(ended, state_is(state))
            .scalar_subquery()
            .label(state.value)
            for state in _DEAD
        )
    )


@cache
def _oldest() -> Any:
    """Of those that wait for us: who waits for a person or a device is not late."""
    return select(_r.accepted_at).where(open_, not_(waiting)).order_by(_r.seq).limit(1)


@cache
def _open() -> Any:
    return select(func.count()).select_from(requests).where(open_)


def backlog(tx: Tx) -> int:
    """Requests that have not ended."""
    return int(tx.run(_open()).scalar())


LOOKED = 5_000  # requests that one page of conversations looks through


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation: its latest request, and how many of those that were looked through."""

    flow: str
    conversation: str
    last: Row
    count: int


@dataclass(frozen=True, slots=True)
class Conversations:
    talks: list[Talk]
    next: int | None


@cache
def _recent(flow: bool) -> Any:
    statement = select(_r.seq, _r.flow, _r.conversation).where(_r.seq < bindparam("b_before"))
    if flow:
        statement = statement.where(_r.flow == bindparam("b_flow", type_=Text))
    return statement.order_by(_r.seq.desc()).limit(bindparam("b_limit"))


@cache
def _later() -> Any:
    return (
        select(_r.seq)
        .where(
            _r.flow == bindparam("b_flow", type_=Text),
            _r.conversation == bindparam("b_conversation", type_=Text),
            _r.seq >= bindparam("b_before"),
        )
        .limit(1)
    )


@cache
def _by_seq() -> Any:
    return select(*listed_columns).where(_r.seq == bindparam("b_seq"))


def conversations(tx: Tx, limit: int, before: int | None, flow: str | None) -> Conversations:
    """Each once, where its latest request is. `before` is the `next` of the page before."""
    top = (1 << 62) if before is None else codec.number(before)
    values: dict[str, Any] = {"b_before": top, "b_limit": LOOKED}
    if flow is not None:
        values["b_flow"] = codec.key(flow)
    rows = tx.run(_recent(flow is not None), values).all()
    found: dict[tuple[str, str], list[int]] = {}
    shown_before: set[tuple[str, str]] = set()
    following = rows[-1].seq if len(rows) == LOOKED else None
    for row in rows:
        pair = (row.flow, row.conversation)
        if pair in shown_before:
            continue
        if pair not in found:
            bound = {"b_flow": pair[0], "b_conversation": pair[1], "b_before": top}
            if before is not None and tx.run(_later(), bound).scalar() is not None:
                shown_before.add(pair)
                continue
            if len(found) == limit:
                following = row.seq + 1
                break
            found[pair] = []
        found[pair].append(row.seq)
    talks = []
    for seqs in found.values():
        last = to_row(tx.run(_by_seq(), {"b_seq": seqs[0]}).one())
        talks.append(Talk(last.flow or "", last.conversation, last, len(seqs)))
    return Conversations(talks, following)


class Cached(Generic[T]):
    """A look shared by those who ask at once.

    Looks afresh, unless that took long: then at most one thirtieth of the time.
    """

    def __init__(
        self, look: Callable[[], Awaitable[T]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._look = look
        self._clock = clock
        self._lock = asyncio.Lock()
        self._value: T | None = None
        self._good_until = 0.0

    async def __call__(self) -> T:
        async with self._lock:
            begun = self._clock()
            if self._value is None or begun >= self._good_until:
                self._value = await self._look()
                took = self._clock() - begun
                self._good_until = begun + took * _SHARE if took > _CHEAP else 0.0
            return self._value
