"""Replies that found nobody: published again for a while, though their request has ended.

A taker moves `held_at` on by a lease, so that two processes do not publish one side by side;
who notes what came of it names the time that it moved it to, as a fence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, bindparam, func, select, update

from service.domain import Publish
from service.inbox import codec
from service.inbox.sql import Tx, among, numbers
from service.inbox.sql_tables import held, requests

_r = requests.c
_now: Any = bindparam("b_now", type_=BigInteger)


@dataclass(frozen=True, slots=True)
class Take:
    """Up to `limit` that are due, for `lease_ms`."""

    limit: int
    lease_ms: int


@dataclass(frozen=True, slots=True)
class HeldReply:
    """Times in ms. `since` is when it was first published, `until` when it is given up."""

    seq: int
    id: str
    flow: str | None
    outbox: tuple[Publish, ...]
    since: int
    until: int
    lease_until: int


@dataclass(frozen=True, slots=True)
class Taken:
    """What is due, and when the next one is (ms; None: there is none)."""

    replies: tuple[HeldReply, ...]
    next_at: int | None


@dataclass(frozen=True, slots=True)
class Note:
    """What came of publishing it; `again_at`: when to try next, None: no more."""

    reply: HeldReply
    delivered: bool | None
    again_at: int | None


@cache
def _due() -> Any:
    return (
        select(_r.seq)
        .where(held, _r.held_at <= _now)
        .order_by(_r.held_at)
        .limit(bindparam("b_limit"))
        .with_for_update(skip_locked=True)
    )


@cache
def _lease(pg: bool) -> Any:
    columns = (_r.seq, _r.id, _r.flow, _r.conversation, _r.message, _r.outbox)
    return (
        update(requests)
        .where(among(pg, _r.seq, "seqs"))
        .values(held_at=bindparam("b_until", type_=BigInteger))
        .returning(*columns, _r.ended_at, _r.held_until)
    )


@cache
def _next() -> Any:
    return select(func.min(_r.held_at)).where(held)


def take(tx: Tx, orders: Sequence[Take]) -> list[Taken]:
    return [_take_one(tx, order) for order in orders]


def _take_one(tx: Tx, order: Take) -> Taken:
    seqs = tx.run(_due(), {"b_now": tx.now, "b_limit": order.limit}).scalars().all()
    until = tx.now + order.lease_ms
    found = []
    if seqs:
        rows = tx.run(_lease(tx.pg), {"seqs": numbers(tx.pg, seqs), "b_until": until})
        for row in rows.all():
            flow, _ = codec.names_in(row.message, row.flow, row.conversation)
            outbox = codec.outbox_in(row.outbox)
            times = (row.ended_at, row.held_until, until)
            found.append(HeldReply(row.seq, row.id, flow, outbox, *times))
    return Taken(tuple(found), tx.run(_next()).scalar())


@cache
def _set() -> Any:
    return (
        update(requests)
        .where(_r.seq == bindparam("b_seq"), _r.held_at == bindparam("b_lease"))
        .values(
            delivered=bindparam("b_delivered", type_=_r.delivered.type),
            held_at=bindparam("b_at", type_=BigInteger),
        )
    )


def note(tx: Tx, notes: Sequence[Note]) -> list[None]:
    for one in notes:
        values = {
            "b_seq": one.reply.seq,
            "b_lease": one.reply.lease_until,
            "b_delivered": one.delivered,
            "b_at": one.again_at,
        }
        tx.run(_set(), values)
    return [None] * len(notes)
