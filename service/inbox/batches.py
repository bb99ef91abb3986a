"""Messages that become one request (`collect` of a flow). Each is a row of its own and waits in
its conversation's line; who holds the first one takes those behind it as its batch, and they end
with it. So none is asked about twice, and one that was never reached is first in line next time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, bindparam, func, select, update

from service.domain import Batch, Claimed, Message, State
from service.inbox import codec
from service.inbox.ordering import head_of
from service.inbox.rows import claimed_columns, to_claimed
from service.inbox.sql import Pair, Tx, among, among_pairs, numbers, pairs
from service.inbox.sql_tables import conversations, ordered_queue, queued, requests

_c = conversations.c
_r = requests.c
_in_line = (
    ordered_queue,
    _r.flow == bindparam("b_flow"),
    _r.conversation == bindparam("b_conversation"),
)
_in_order = (_r.order_at, _r.order_id, _r.seq)


def _of_line(what: Any) -> Any:
    """`what` of the first so many in the line of a conversation."""
    line = (
        select(func.length(_r.payload).label("size"))
        .where(ordered_queue, _r.flow == _c.flow, _r.conversation == _c.conversation)
        .order_by(*_in_order)
        .limit(bindparam("b_most"))
        .correlate(conversations)
        .subquery()
    )
    return select(what(line.c.size)).select_from(line).correlate(conversations).scalar_subquery()


@cache
def _lines(pg: bool) -> Any:
    """How much waits in each of these lines, and when its first one is due."""
    return select(
        _c.flow,
        _c.conversation,
        _of_line(func.count).label("count"),
        _of_line(func.sum).label("size"),
        head_of(_r.not_before, _c.flow, _c.conversation).label("due"),
    ).where(among_pairs(pg, _c.flow, _c.conversation))


@cache
def _hurry() -> Any:
    """Only for one that was never begun: what waits to be tried again has its own time."""
    due = bindparam("b_due", type_=BigInteger)
    head = head_of(_r.seq, bindparam("b_flow"), bindparam("b_conversation"))
    never = (_r.tries == 0, _r.trace.is_(None))
    return (
        update(requests).where(_r.seq == head, _r.not_before > due, *never).values(not_before=due)
    )


def press(tx: Tx, wanted: Iterable[tuple[Pair, Batch]]) -> None:
    """Whoever is first in these lines is due, if enough waits; and never later than `every` from
    now, whatever the clock was when it came. The caller holds the conversations."""
    by_batch: dict[Batch, list[Pair]] = {}
    for pair, batch in dict(wanted).items():
        by_batch.setdefault(batch, []).append(pair)
    hurried = []
    for batch, listed in by_batch.items():
        bound = pairs(tx.pg, sorted(listed)) | {"b_most": batch.messages}
        for row in tx.run(_lines(tx.pg), bound):
            full = row.count >= batch.messages or (row.size or 0) >= batch.size
            due = 0 if full else tx.now + batch.every
            if (row.due or 0) > due:
                hurried.append((row.flow, row.conversation, due))
    if hurried:
        names = ("b_flow", "b_conversation", "b_due")
        tx.run(_hurry(), [dict(zip(names, one, strict=True)) for one in sorted(hurried)])


@cache
def _members() -> Any:
    mine = _r.batch == bindparam("b_batch", type_=BigInteger)
    return select(*claimed_columns).where(mine).order_by(*_in_order)


@cache
def _next() -> Any:
    return (
        select(*claimed_columns)
        .where(*_in_line)
        .order_by(*_in_order)
        .limit(bindparam("b_most"))
        .with_for_update()
    )


@cache
def _take(pg: bool) -> Any:
    mine = bindparam("b_batch", type_=BigInteger)
    return update(requests).where(among(pg, _r.seq, "seqs")).values(batch=mine)


def members(tx: Tx, seq: int) -> list[Message]:
    """What a request took into its batch, beside its own message."""
    return [to_claimed(row).message for row in tx.run(_members(), {"b_batch": seq})]


def take(tx: Tx, claimed: Claimed, pair: Pair, batch: Batch) -> list[Message]:
    """The messages of a batch, its own first. What it took once stays its batch: what a model
    is asked again is what it was asked before."""
    rows = tx.run(_members(), {"b_batch": claimed.seq}).all()
    # One without order came before `collect` did: it holds no line, and takes nothing from it.
    if not rows and not claimed.steps and claimed.ordered:
        bound = {"b_flow": pair[0], "b_conversation": pair[1], "b_most": batch.messages - 1}
        rows = list(_fitting(claimed, tx.run(_next(), bound).all(), batch))
        if rows:
            seqs = numbers(tx.pg, (row.seq for row in rows))
            tx.run(_take(tx.pg), {"seqs": seqs, "b_batch": claimed.seq})
    return [claimed.message, *(to_claimed(row).message for row in rows)]


def _fitting(claimed: Claimed, rows: Sequence[Any], batch: Batch) -> Iterable[Any]:
    """Those of the line that were never begun, up to the first one that was or is too much."""
    left = batch.size - len(claimed.message.payload)
    for row in rows:
        left -= len(row.payload)
        if left < 0 or row.tries or row.trace is not None or row.steps is not None:
            return
        yield row


@cache
def _end() -> Any:
    return (
        update(requests)
        .where(queued, _r.batch == bindparam("b_batch", type_=BigInteger))
        .values(
            state=State.IGNORED.value,
            error_code="collected",
            error_message=bindparam("b_said"),
            ended_at=bindparam("b_now"),
        )
        .returning(_r.id, _r.flow, _r.conversation, _r.message)
    )


def end(tx: Tx, claimed: Claimed, pair: Pair, batch: Batch) -> None:
    """What it was is decided: those that it took end with it, and the next ones may be due."""
    said = f"asked about together with others, in request {claimed.id}"
    bound = {"b_batch": claimed.seq, "b_said": said, "b_now": tx.now}
    for row in tx.run(_end(), bound).all():
        names = codec.names_in(row.message, row.flow, row.conversation)
        tx.tell(row.id, *names, State.IGNORED)
        tx.opened -= 1
    press(tx, [(pair, batch)])
