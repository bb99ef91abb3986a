"""One batch, one transaction: the order in which its parts are done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from service.inbox import claims, counters, inbox, leases, memory, notices, purge, reaper
from service.inbox.commit import Op
from service.inbox.sql import Link, Tx
from service.inbox.values import Change

# Writes of lease holders come before what they may set free, and claims see it all.
_ORDER: tuple[Callable[..., Any], ...] = (
    leases.heartbeat,
    leases.reply,
    leases.step,
    leases.again,
    leases.finish,
    leases.release,
    memory.forget,
    counters.reserve,
    counters.settle,
    inbox.add,
    inbox.adopt,
    inbox.retry,
    purge.purge,
    reaper.reap,
    claims.claim,
)
_PLACE = {step: place for place, step in enumerate(_ORDER)}
_LEASE_WRITES = frozenset(_ORDER[:6])
_NEED_NOT_LAST = frozenset((leases.heartbeat, reaper.reap, claims.claim))
"""Who is at work on what: a power cut ends all of SQLite's workers too, so it may be lost."""


@dataclass(frozen=True, slots=True)
class Applied:
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
    return not all(op.step in _NEED_NOT_LAST for op in ops)


def apply(link: Link, ops: Sequence[Op], now: int, origin: str) -> Applied:
    tx = Tx(link, now)
    results: list[Any] = [None] * len(ops)
    kinds: dict[Any, list[int]] = {}
    for at, op in enumerate(ops):
        kinds.setdefault(op.step, []).append(at)
    if tx.pg:
        leases.lock_lines(tx, [op.item for op in ops if op.step in _LEASE_WRITES])
    for step in sorted(kinds, key=_PLACE.__getitem__):
        for places in _rounds(ops, kinds[step]) if step in _LEASE_WRITES else [kinds[step]]:
            done = step(tx, [ops[at].item for at in places])
            for at, result in zip(places, done, strict=True):
                results[at] = result
    if tx.pg:
        notices.send(tx, origin)
    elif claims.claim in kinds:
        tx.wake = False  # it saw all of this
    return Applied(results, tx.changes, tx.wake, tx.opened)
