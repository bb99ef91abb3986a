"""One batch, one transaction: the order in which its parts are done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from service.inbox import (
    acts,
    claims,
    counters,
    entries,
    held,
    leases,
    memory,
    notices,
    ordering,
    purge,
    readings,
    reap,
    rollup,
    ticks,
    unsettled_calls,
    waits,
)
from service.inbox.rows import Change
from service.inbox.sql import SqlConnection, Tx

Work = Callable[[Tx, Sequence[Any]], Sequence[Any]]
"""Does one kind of thing for many items; as many results, in the same order."""

# Writes of lease holders come before what they may set free, and claims see it all.
_ORDER: tuple[Work, ...] = (
    leases.heartbeat,
    leases.save_ending,
    leases.save_steps,
    leases.gather,
    leases.park,
    leases.reschedule,
    leases.finish,
    leases.release,
    memory.forget,
    memory.forget_oldest,
    memory.sum_up,
    counters.reserve,
    counters.settle,
    entries.add,
    entries.adopt,
    unsettled_calls.settle,
    entries.requeue,
    waits.hear,
    ticks.begin,
    ticks.fire,
    readings.put,
    held.note,
    held.take,
    ordering.pause,
    acts.change,
    acts.note,
    acts.put_job,
    purge.remove,
    rollup.roll,
    purge.purge,
    readings.expire,
    readings.drop_oldest,
    reap.reap,
    claims.claim,
)
_PLACE = {work: place for place, work in enumerate(_ORDER)}
_LEASE_WRITES = frozenset(_ORDER[:8])
_NEED_NOT_LAST = frozenset((leases.heartbeat, reap.reap, held.take, claims.claim))
"""Who is at work on what: a power cut ends all of SQLite's workers too, so it may be lost."""


@dataclass(slots=True, eq=False)
class Op:
    """One caller's part of a batch. `work` does one kind of thing for many items."""

    work: Work
    item: Any
    weight: int
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class Executed:
    """Results in the order of the ops, and what to tell after the commit."""

    results: Sequence[Any]
    changes: Sequence[Change]
    wake: bool
    opened: int


def _rounds(ops: Sequence[Op], places: Sequence[int]) -> list[list[int]]:
    """Two writes to one request must see each other: no request twice in a round."""
    rounds: list[list[int]] = []
    met: dict[int, int] = {}
    for at in places:
        seq = ops[at].item.claimed.seq
        turn = met[seq] = met.get(seq, -1) + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(at)
    return rounds


def must_last(ops: Sequence[Op]) -> bool:
    """Whether anything here is worth waiting for the disk."""
    return not all(op.work in _NEED_NOT_LAST for op in ops)


def execute(connection: SqlConnection, ops: Sequence[Op], now: int, origin: str) -> Executed:
    tx = Tx(connection, now)
    results: list[Any] = [None] * len(ops)
    kinds: dict[Work, list[int]] = {}
    for at, op in enumerate(ops):
        kinds.setdefault(op.work, []).append(at)
    if tx.pg:
        leases.lock_queues(tx, [op.item for op in ops if op.work in _LEASE_WRITES])
    for work in sorted(kinds, key=_PLACE.__getitem__):
        for places in _rounds(ops, kinds[work]) if work in _LEASE_WRITES else [kinds[work]]:
            done = work(tx, [ops[at].item for at in places])
            for at, result in zip(places, done, strict=True):
                results[at] = result
    if tx.pg:
        notices.send(tx, origin)
    elif claims.claim in kinds:
        tx.wake = False  # it saw all of this
    return Executed(results, tx.changes, tx.wake, tx.opened)
