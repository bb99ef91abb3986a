"""Counters for limits: reserved before the model is asked, settled afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import bindparam, case, select, update

from service.domain import Reservation
from service.inbox import codec
from service.inbox.sql import Tx, insert, listed_texts, texts
from service.inbox.sql_tables import counters

_k = counters.c


@dataclass(frozen=True, slots=True)
class Correction:
    """The reservation was off by `delta`."""

    key: str
    window: int
    delta: int


Slot = tuple[str, int]


def _slot(one: Reservation | Correction) -> Slot:
    return codec.key(one.key), codec.number(one.window)


def _bound(slot: Slot) -> dict[str, Any]:
    return {"b_key": slot[0], "b_window": slot[1]}


@cache
def _hold(pg: bool) -> Any:
    """Make the rows, or lock those that are there."""
    statement = insert(pg, counters).values(
        key=bindparam("b_key"), starts_at=bindparam("b_window"), amount=0
    )
    return statement.on_conflict_do_update(
        index_elements=[_k.key, _k.starts_at], set_={"amount": _k.amount}
    )


@cache
def _amounts(pg: bool) -> Any:
    listed = listed_texts(pg, "keys")
    return select(_k.key, _k.starts_at, _k.amount).where(_k.key.in_(select(listed.c.value)))


def amounts(tx: Tx, keys: Sequence[str], window: int) -> dict[str, int]:
    """What of these is used in a window; nothing of those that were not asked for in it."""
    names = {codec.key(key): key for key in keys}
    rows = tx.run(_amounts(tx.pg), {"keys": texts(tx.pg, sorted(names))})
    return {names[row.key]: row.amount for row in rows if row.starts_at == window}


@cache
def _set() -> Any:
    return (
        update(counters)
        .where(_k.key == bindparam("b_key"), _k.starts_at == bindparam("b_window"))
        .values(amount=bindparam("b_amount"))
    )


def reserve(tx: Tx, orders: Sequence[Sequence[Reservation]]) -> list[str | None]:
    """Each order all or none; None if it was granted, else the key that would run over."""
    slots = sorted({_slot(one) for order in orders for one in order})
    if not slots:
        return [None] * len(orders)
    tx.run(_hold(tx.pg), [_bound(slot) for slot in slots])
    keys = texts(tx.pg, sorted({key for key, _ in slots}))
    amounts = {(r.key, r.starts_at): r.amount for r in tx.run(_amounts(tx.pg), {"keys": keys})}
    results = [_grant(amounts, order) for order in orders]
    tx.run(_set(), [_bound(slot) | {"b_amount": amounts[slot]} for slot in slots])
    return results


def _grant(amounts: dict[Slot, int], order: Sequence[Reservation]) -> str | None:
    after = dict[Slot, int]()
    for one in order:
        slot = _slot(one)
        after[slot] = after.get(slot, amounts[slot]) + codec.number(one.amount)
        if after[slot] > one.limit:
            return one.key
    amounts.update((slot, codec.number(amount)) for slot, amount in after.items())
    return None


@cache
def _add() -> Any:
    total = _k.amount + bindparam("b_delta", type_=_k.amount.type)
    return (
        update(counters)
        .where(_k.key == bindparam("b_key"), _k.starts_at == bindparam("b_window"))
        .values(amount=case((total > 0, total), else_=0))
    )


def settle(tx: Tx, settled: Sequence[Correction]) -> list[None]:
    """What was really used, as a difference to what was reserved; never below nothing."""
    for one in sorted(settled, key=_slot):
        tx.run(_add(), _bound(_slot(one)) | {"b_delta": codec.number(one.delta)})
    return [None] * len(settled)
