"""Old things go, a few at a time: ended requests, turns, idle conversations, counters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Table, Text, bindparam, delete, exists, or_, select, tuple_

from service.inbox import codec, ordering, waits
from service.inbox import values as last_values
from service.inbox.sql import Pair, Tx, among, among_pairs, numbers, pairs
from service.inbox.sql_tables import conversations, counters, ended, requests, turns

_r = requests.c
_t = turns.c
_c = conversations.c
_k = counters.c
COUNTER_LIFE = 2 * 24 * 3600 * 1000
"""Longer than any window; `starts_at` is in ms."""
_before: Any = bindparam("b_before", type_=BigInteger)
_limit: Any = bindparam("b_limit")


@dataclass(slots=True)
class Walk:
    """How far the walk over conversations has come; it starts again at the end."""

    after: Pair = ("", "")


@dataclass(frozen=True, slots=True)
class Purge:
    """What ended before `before` (ms), at most `limit` of each kind of thing."""

    before: int
    limit: int
    round: Walk


@cache
def _ended() -> Any:
    return (
        select(_r.seq)
        .where(ended, _r.ended_at < _before)
        .order_by(_r.ended_at)
        .limit(_limit)
        .with_for_update(skip_locked=True)
    )


@cache
def _oldest_turns() -> Any:
    """In the order they were written; the clock may have jumped, seq has not."""
    return select(_t.seq, _t.at).order_by(_t.seq).limit(_limit).with_for_update(skip_locked=True)


@cache
def _old_counters() -> Any:
    return (
        select(_k.key, _k.starts_at)
        .where(_k.starts_at < _before)
        .order_by(_k.starts_at)
        .limit(_limit)
        .with_for_update(skip_locked=True)
    )


@cache
def _drop_counter() -> Any:
    return delete(counters).where(
        _k.key == bindparam("b_key"), _k.starts_at == bindparam("b_window")
    )


@cache
def _walk() -> Any:
    after = tuple_(bindparam("b_flow", type_=Text), bindparam("b_conversation", type_=Text))
    return (
        select(_c.flow, _c.conversation, _c.next_at, _c.active_seq, _c.cooldown_until)
        .where(tuple_(_c.flow, _c.conversation) > after)
        .order_by(_c.flow, _c.conversation)
        .limit(_limit)
    )


@cache
def _drop_idle(pg: bool) -> Any:
    remembers = exists().where(_t.flow == _c.flow, _t.conversation == _c.conversation)
    return delete(conversations).where(
        among_pairs(pg, _c.flow, _c.conversation),
        _c.next_at.is_(None),
        _c.active_seq.is_(None),
        or_(_c.cooldown_until.is_(None), _c.cooldown_until < _before),
        ~remembers,
    )


def purge(tx: Tx, orders: Sequence[Purge]) -> list[int]:
    return [_purge_one(tx, order) for order in orders]


def _purge_one(tx: Tx, order: Purge) -> int:
    values = {"b_before": order.before, "b_limit": order.limit}
    seqs = tx.run(_ended(), values).scalars().all()
    if seqs:
        waits.drop(tx, seqs)
        tx.run(_drop(tx.pg, requests), {"seqs": numbers(tx.pg, seqs)})
    _purge_turns(tx, order)
    last_values.purge(tx, order.before, order.limit)
    old = tx.run(_old_counters(), values | {"b_before": tx.now - COUNTER_LIFE}).all()
    if old:
        tx.run(_drop_counter(), [{"b_key": r.key, "b_window": r.starts_at} for r in old])
    _purge_conversations(tx, order)
    return len(seqs)


@cache
def _drop(pg: bool, table: Table) -> Any:
    return delete(table).where(among(pg, table.c.seq, "seqs"))


def _purge_turns(tx: Tx, order: Purge) -> None:
    rows = tx.run(_oldest_turns(), {"b_limit": order.limit}).all()
    old = [row.seq for row in rows if row.at < order.before]
    if old:
        tx.run(_drop(tx.pg, turns), {"seqs": numbers(tx.pg, old)})


def _purge_conversations(tx: Tx, order: Purge) -> None:
    flow, conversation = order.round.after
    rows = tx.run(
        _walk(), {"b_flow": flow, "b_conversation": conversation, "b_limit": order.limit}
    ).all()
    full = len(rows) == order.limit
    order.round.after = (rows[-1].flow, rows[-1].conversation) if full else ("", "")
    idle = [(r.flow, r.conversation) for r in rows if r.next_at is None and r.active_seq is None]
    held = [(r.flow, r.conversation) for r in ordering.lock(tx, idle, skip=True)]
    if held:
        tx.run(_drop_idle(tx.pg), pairs(tx.pg, held) | {"b_before": order.before})


@cache
def _remove() -> Any:
    return delete(requests).where(ended, _r.id == bindparam("b_id", type_=Text)).returning(_r.seq)


def remove(tx: Tx, ids: Sequence[str]) -> list[bool]:
    """Delete ended requests by their ids; whether each was there."""
    return [_remove_one(tx, id) for id in ids]


def _remove_one(tx: Tx, id: str) -> bool:
    gone = list(tx.run(_remove(), {"b_id": codec.key(id)}).scalars())
    waits.drop(tx, gone)
    return bool(gone)
