"""Which time each schedule has come to: one row a flow, whatever number of processes look at it.

A tick is seen to by whoever moves the row on, in the transaction that stores its request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Text, bindparam, select, update

from service.domain import Entry
from service.inbox import codec, entries
from service.inbox.sql import Tx, insert
from service.inbox.sql_tables import ticks

_k = ticks.c
AHEAD = 25 * 3_600_000
"""ms; what is further in the future was written by a clock that was wrong."""


@dataclass(frozen=True, slots=True)
class Begin:
    """A process has this schedule (`every`: expression and zone) for a flow."""

    flow: str
    every: str


@dataclass(frozen=True, slots=True)
class Fire:
    """A tick at `at` (ms); `entry` is its request, None where it is let pass."""

    flow: str
    every: str
    at: int
    entry: Entry | None


@cache
def _first(pg: bool) -> Any:
    new = insert(pg, ticks).values(
        flow=bindparam("b_flow"), every=bindparam("b_every"), at=bindparam("b_at")
    )
    return new.on_conflict_do_nothing(index_elements=[_k.flow])


@cache
def _of() -> Any:
    return select(_k.every, _k.at).where(_k.flow == bindparam("b_flow", type_=Text))


@cache
def _anew() -> Any:
    return (
        update(ticks)
        .where(_k.flow == bindparam("b_flow"))
        .values(every=bindparam("b_every"), at=bindparam("b_at"))
    )


def begin(tx: Tx, schedules: Sequence[Begin]) -> list[int]:
    """The tick that each has come to (ms). A schedule that is new begins now: what it would have
    been before nobody missed."""
    found = []
    for one in schedules:
        bound = {"b_flow": codec.key(one.flow), "b_every": one.every, "b_at": tx.now}
        tx.run(_first(tx.pg), bound)
        row = tx.run(_of(), {"b_flow": bound["b_flow"]}).one()
        at = int(row.at)
        if row.every != one.every or at > tx.now + AHEAD:
            tx.run(_anew(), bound)
            at = tx.now
        found.append(at)
    return found


@cache
def _on() -> Any:
    return (
        update(ticks)
        .where(
            _k.flow == bindparam("b_flow"),
            _k.at < bindparam("b_until", type_=BigInteger),
        )
        .values(every=bindparam("b_every"), at=bindparam("b_at"))
    )


def fire(tx: Tx, orders: Sequence[Fire]) -> list[bool]:
    """Whether this one saw to the tick, and nobody before. While processes have different files,
    the schedules of both count: none is lost to one that a restart brought back for a moment."""
    results = []
    for one in orders:
        bound = {
            "b_flow": codec.key(one.flow),
            "b_every": one.every,
            "b_at": one.at,
            "b_until": one.at,
        }
        mine = tx.run(_on(), bound).rowcount == 1
        if mine and one.entry is not None:
            entries.add(tx, [one.entry])
        results.append(mine)
    return results
