"""The ordered queues: one row of `conversations` for each.

That row is also the lock: who changes what is queued or active in a conversation holds it
first, so two processes never see two different heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Text, bindparam, exists, func, literal_column, select, update

from service.inbox.sql import Pair, Tx, among_pairs, insert, pair_is, pairs
from service.inbox.sql_tables import conversations, counters, ordered_queue, requests

_c = conversations.c
_r = requests.c
ZERO = literal_column("0", BigInteger)


def head_of(column: Any, flow: Any, conversation: Any) -> Any:
    """`column` of the request that is next in this conversation."""
    return (
        select(column)
        .where(ordered_queue, _r.flow == flow, _r.conversation == conversation)
        .order_by(_r.order_at, _r.order_id, _r.seq)
        .limit(1)
        .scalar_subquery()
    )


@cache
def _lock(pg: bool, skip: bool) -> Any:
    return (
        select(_c.flow, _c.conversation, _c.active_seq, _c.next_at)
        .where(among_pairs(pg, _c.flow, _c.conversation))
        .order_by(_c.flow, _c.conversation)
        .with_for_update(skip_locked=skip)
    )


def lock(tx: Tx, wanted: Iterable[Pair], *, skip: bool = False) -> list[Any]:
    """Hold these rows, always in the same order; SQLite's writer holds everything anyway."""
    listed = sorted(set(wanted))
    if not listed:
        return []
    return list(tx.run(_lock(tx.pg, skip), pairs(tx.pg, listed)))


@cache
def _enqueue(pg: bool) -> Any:
    statement = insert(pg, conversations).values(
        flow=bindparam("b_flow"),
        conversation=bindparam("b_conversation"),
        next_at=0,
        since=bindparam("b_now"),
    )
    return statement.on_conflict_do_update(
        index_elements=[_c.flow, _c.conversation],
        set_={"next_at": 0, "since": statement.excluded.since},
        where=_c.active_seq.is_(None) & _c.next_at.is_distinct_from(ZERO),
    )


def enqueue(tx: Tx, wanted: Mapping[Pair, int]) -> None:
    """Something is about to be queued here, with its turn (ms). The claim finds out whether its
    head is due."""
    listed = sorted(wanted.items())
    if listed:
        tx.run(
            _enqueue(tx.pg),
            [{"b_flow": f, "b_conversation": c, "b_now": at} for (f, c), at in listed],
        )


@cache
def _leave() -> Any:
    head = head_of(_r.not_before, bindparam("b_flow"), bindparam("b_conversation"))
    return (
        update(conversations)
        .where(pair_is(conversations), _c.active_seq == bindparam("b_seq"))
        .values(active_seq=None, next_at=head, since=bindparam("b_now"))
    )


def leave(tx: Tx, left: Iterable[tuple[Pair, int]]) -> None:
    """These requests are active no more; the next of each conversation may be claimed."""
    values = [
        {"b_flow": flow, "b_conversation": conversation, "b_seq": seq, "b_now": tx.now}
        for (flow, conversation), seq in sorted(left)
    ]
    if values:
        tx.run(_leave(), values)
        tx.wake = True


@cache
def _heads(pg: bool) -> Any:
    head = head_of(_r.seq, _c.flow, _c.conversation).label("head")
    return select(_c.flow, _c.conversation, head).where(among_pairs(pg, _c.flow, _c.conversation))


def heads(tx: Tx, wanted: Sequence[Pair]) -> dict[Pair, int | None]:
    """Who is next in each; rows that `lock` or `take_due` holds."""
    if not wanted:
        return {}
    found = tx.run(_heads(tx.pg), pairs(tx.pg, wanted))
    return {(row.flow, row.conversation): row.head for row in found}


_SETTLE = "ordered queues settle"
settled_at: Any = (
    select(func.max(counters.c.starts_at)).where(counters.c.key == _SETTLE).scalar_subquery()
)
"""When the ordered queues may be claimed again (ms); NULL: they may."""


@cache
def _settle(pg: bool) -> Any:
    known: Any = select(
        literal_column(f"'{_SETTLE}'"), bindparam("b_until", type_=BigInteger), ZERO
    )
    statement = insert(pg, counters).from_select(
        ["key", "starts_at", "amount"], known.where(exists(select(_r.seq)))
    )
    return statement.on_conflict_do_nothing()


def pause(tx: Tx, until: Sequence[int]) -> list[None]:
    """No ordered queue is claimed until then (ms). Old counters are purged, and these with them."""
    tx.run(_settle(tx.pg), {"b_until": max(until)})
    tx.wake = True
    return [None] * len(until)


@cache
def _due(delayed: bool) -> Any:
    statement = select(_c.conversation).where(_c.flow == bindparam("b_flow", type_=Text))
    if delayed:
        statement = statement.where(
            _c.next_at > ZERO, _c.next_at <= bindparam("b_now", type_=BigInteger)
        ).order_by(_c.next_at)
    else:
        statement = statement.where(_c.next_at == ZERO).order_by(_c.since)
    return statement.limit(bindparam("b_limit")).with_for_update(skip_locked=True)


def take_due(tx: Tx, flow: str, limit: int, *, delayed: bool) -> list[Pair]:
    """Lock conversations of a flow whose head may be due, the longest waiting first."""
    values = {"b_flow": flow, "b_limit": limit}
    if delayed:
        values["b_now"] = tx.now
    return [(flow, row.conversation) for row in tx.run(_due(delayed), values)]


@cache
def _set_next() -> Any:
    return update(conversations).where(pair_is(conversations)).values(next_at=bindparam("b_next"))


def wait(tx: Tx, until: Iterable[tuple[Pair, int | None]]) -> None:
    """The head is not due before then (None: there is none)."""
    values = [
        {"b_flow": flow, "b_conversation": conversation, "b_next": at}
        for (flow, conversation), at in until
    ]
    if values:
        tx.run(_set_next(), values)


@cache
def _activate() -> Any:
    return (
        update(conversations)
        .where(pair_is(conversations))
        .values(active_seq=bindparam("b_seq"), next_at=None)
    )


def activate(tx: Tx, taken: Iterable[tuple[Pair, int]]) -> None:
    """This request is the one that is answered now."""
    values = [
        {"b_flow": flow, "b_conversation": conversation, "b_seq": seq}
        for (flow, conversation), seq in taken
    ]
    if values:
        tx.run(_activate(), values)
