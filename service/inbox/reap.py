"""Leases that ended without a word: the holder died, or stands still. Only requests that were being
answered are put back: those `answered` a claim takes itself, those `waiting` have no lease."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, bindparam, select, update

from service.domain import State
from service.inbox import codec, ordering
from service.inbox.sql import Tx, among, numbers
from service.inbox.sql_tables import requests, state_is

_r = requests.c
_until: Any = bindparam("b_until", type_=BigInteger)
_answering = state_is(State.ANSWERING)


@dataclass(frozen=True, slots=True)
class Reap:
    """`all_leases`: whatever they say; for the one process that has the database alone."""

    limit: int
    all_leases: bool = False


@dataclass(frozen=True, slots=True)
class Reaped:
    """How many; when the next lease runs out (ms); whether there may be more already."""

    count: int
    next_expiry: int | None
    more: bool


@cache
def _expired() -> Any:
    return (
        select(_r.seq, _r.flow, _r.conversation, _r.ordered)
        .where(_answering, _r.lease_until <= _until)
        .order_by(_r.lease_until)
        .limit(bindparam("b_limit"))
    )


@cache
def _lock(pg: bool) -> Any:
    return (
        select(_r.seq, _r.id, _r.flow, _r.conversation, _r.message)
        .where(among(pg, _r.seq, "seqs"), _answering, _r.lease_until <= _until)
        .order_by(_r.seq)
        .with_for_update(skip_locked=True)
    )


@cache
def _give_back(pg: bool) -> Any:
    """The fence grows here too, so that the late holder's word counts no more."""
    return (
        update(requests)
        .where(among(pg, _r.seq, "seqs"))
        .values(state=State.QUEUED.value, fence=_r.fence + 1, owner=None, lease_until=None)
    )


@cache
def _free_answered() -> Any:
    return (
        update(requests)
        .where(state_is(State.ANSWERED), _r.lease_until <= _until)
        .values(fence=_r.fence + 1, owner=None, lease_until=0)
    )


@cache
def _next_expiry() -> Any:
    where = (_answering, _r.lease_until.is_not(None))
    return select(_r.lease_until).where(*where).order_by(_r.lease_until).limit(1)


def reap(tx: Tx, orders: Sequence[Reap]) -> list[Reaped]:
    """Put a bounded number of them back in the queue. (Answered ones a claim takes itself.)"""
    return [_reap_one(tx, order) for order in orders]


def _reap_one(tx: Tx, order: Reap) -> Reaped:
    values = {"b_until": (1 << 62) if order.all_leases else tx.now}
    rows = tx.run(_expired(), values | {"b_limit": order.limit}).all()
    held = ordering.lock(tx, ((r.flow, r.conversation) for r in rows if r.ordered), skip=True)
    ours = {(row.flow, row.conversation) for row in held}
    seqs = [r.seq for r in rows if not r.ordered or (r.flow, r.conversation) in ours]
    dead = tx.run(_lock(tx.pg), values | {"seqs": numbers(tx.pg, seqs)}).all() if seqs else []
    if dead:
        tx.run(_give_back(tx.pg), {"seqs": numbers(tx.pg, (row.seq for row in dead))})
        ordering.leave(tx, [((row.flow, row.conversation), row.seq) for row in dead])
        tx.wake = True
    for row in dead:
        names = codec.names_in(row.message, row.flow, row.conversation)
        tx.tell(row.id, *names, State.QUEUED)
    if order.all_leases:
        tx.run(_free_answered(), values)
        tx.wake = True
    return Reaped(len(dead), tx.run(_next_expiry()).scalar(), more=len(rows) == order.limit)
