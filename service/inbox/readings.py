"""Windows: what was published lately on some topic, kept for prompts and asked by nobody.

Rows are only added. Once a window has got half as much again as it may have, its oldest rows go;
what is read is cut to the bounds, however much is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Text, bindparam, delete, func, select

from service.domain import Reading
from service.inbox import codec, rollup
from service.inbox.sql import Tx, insert, once
from service.inbox.sql_tables import readings

_a = readings.c
LATE = 16
"""So many more are kept and looked at: what EMQX sends side by side may pass one another."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Readings of one window that came one after the other. Times in ms.

    `came` counts those that did not fit in, too. `trim`: the window may have got too large; it
    keeps `most` readings, and `most_bytes`.
    """

    flow: str
    window: str
    at: int
    expires_at: int
    count: int
    size: int
    body: bytes
    most: int
    most_bytes: int
    trim: bool
    came: int

    @classmethod
    def of(
        cls,
        flow: str,
        window: str,
        found: Sequence[Reading],
        *,
        size: int,
        lasts: int,
        most: int,
        most_bytes: int,
        trim: bool,
        came: int | None = None,
    ) -> Chunk:
        """Of `found`, which are not none; `lasts` in ms, `size` in bytes."""
        at = max(one.at for one in found)
        body = codec.readings_out(found)
        return cls(
            codec.key(flow),
            codec.key(window),
            codec.number(at),
            codec.number(at + lasts),
            len(found),
            size,
            body,
            most,
            most_bytes,
            trim,
            len(found) if came is None else came,
        )


@cache
def _insert(pg: bool) -> Any:
    return insert(pg, readings)


def put(tx: Tx, orders: Sequence[Sequence[Chunk]]) -> list[None]:
    """Add all of them, then cut the windows that ask for it."""
    # In one order in all processes: they take the same locks, one after the other.
    chunks = sorted((c for order in orders for c in order), key=lambda c: (c.flow, c.window))
    tx.run(
        _insert(tx.pg),
        [
            {
                "flow": one.flow,
                "window": one.window,
                "at": one.at,
                "expires_at": one.expires_at,
                "count": one.count,
                "size": one.size,
                "body": one.body,
            }
            for one in chunks
        ],
    )
    came: dict[str, int] = {}
    for one in chunks:
        came[one.flow] = came.get(one.flow, 0) + one.came
    rollup.keep(tx, came)
    for one in chunks:
        if one.trim:
            _trim(tx, one)
    return [None] * len(orders)


def _is_window() -> Any:
    flow = bindparam("b_flow", type_=Text)
    return (_a.flow == flow) & (_a.window == bindparam("b_window", type_=Text))


@cache
def _sizes() -> Any:
    return select(_a.seq, _a.count, _a.size).where(_is_window()).order_by(_a.seq.desc())


@cache
def _cut() -> Any:
    oldest = bindparam("b_seq", type_=BigInteger)
    return delete(readings).where(_is_window(), _a.seq < oldest)


def _trim(tx: Tx, one: Chunk) -> None:
    """Rows go that are not needed for what may be read."""
    bound = {"b_flow": one.flow, "b_window": one.window}
    count = size = 0
    rows = tx.run(_sizes(), bound).all()
    for row in rows:
        count, size = count + row.count, size + row.size
        if (count >= one.most + LATE or size >= one.most_bytes) and row is not rows[-1]:
            tx.run(_cut(), bound | {"b_seq": row.seq})
            return


@cache
def _bodies() -> Any:
    return (
        select(_a.body)
        .where(_is_window(), _a.at >= bindparam("b_since", type_=BigInteger))
        .order_by(_a.seq.desc())
        .limit(bindparam("b_limit"))
    )


def recall(tx: Tx, flow: str, window: str, *, since: int, limit: int, size: int) -> list[Reading]:
    """The newest of one window, oldest first. EMQX brings a message again whose 202 was lost:
    time and text tell that it is the same."""
    bound = {
        "b_flow": codec.key(flow),
        "b_window": codec.key(window),
        "b_since": since,
        "b_limit": limit + LATE,
    }
    found: set[Reading] = set()
    for row in tx.run(_bodies(), bound):
        found.update(one for one in codec.readings_in(row.body) if one.at >= since)
    kept: list[Reading] = []
    for one in sorted(found, key=lambda each: (each.at, each.topic, each.text), reverse=True):
        size -= len(one.text.encode("utf-8", "surrogatepass"))
        if len(kept) == limit or size < 0:
            break
        kept.append(one)
    return kept[::-1]


@cache
def _old() -> Any:
    old = select(_a.seq).where(_a.expires_at < bindparam("b_now", type_=BigInteger))
    return _some(old.order_by(_a.expires_at))


@cache
def _oldest() -> Any:
    return _some(select(_a.seq).order_by(_a.seq))


def _some(rows: Any) -> Any:
    chosen = rows.limit(bindparam("b_limit")).with_for_update(skip_locked=True)
    return delete(readings).where(_a.seq.in_(once(chosen)))


def expire(tx: Tx, limits: Sequence[int]) -> list[int]:
    """Delete what is too old, so many rows at most; how many there were."""
    return [int(tx.run(_old(), {"b_now": tx.now, "b_limit": one}).rowcount) for one in limits]


def drop_oldest(tx: Tx, limits: Sequence[int]) -> list[int]:
    """Delete so many rows, of whatever window; how many there were."""
    return [int(tx.run(_oldest(), {"b_limit": one}).rowcount) for one in limits]


@cache
def _measure() -> Any:
    return select(func.count(), func.coalesce(func.sum(_a.size), 0)).select_from(readings)


def measure(tx: Tx) -> tuple[int, int]:
    """How many rows there are, and the bytes of the payloads in them."""
    count, size = tx.run(_measure()).one()
    return int(count), int(size)
