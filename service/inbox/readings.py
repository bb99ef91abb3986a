"""Windows: what was published lately on some topic, kept for prompts and asked by nobody.

A row has what one process took for one window, one after the other: what comes is added to the
row that it wrote last, until that is full, so that a reading is seldom a row. Rows of several
processes lie side by side, so a window keeps half as much again as it may have before its oldest
rows go; what is read is cut to the bounds, however much is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Integer,
    LargeBinary,
    Text,
    bindparam,
    case,
    cast,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.types import TypeEngine

from service.domain import Reading
from service.inbox import codec, rollup
from service.inbox.sql import Tx, among, insert, listed_rows, numbers, once, rows
from service.inbox.sql_tables import readings

_a = readings.c
LATE = 16
"""So many more are kept and looked at: what EMQX sends side by side may pass one another."""
AHEAD = 15 * 60_000
"""ms; what is further in the future was dated by a clock that was wrong, and is told nobody."""
EACH = 24
"""Bytes that a reading takes beside its text and topic: its time, and what stands around it."""


class Chunk(NamedTuple):
    """Readings of one window that came one after the other. Times in ms.

    `row`: where what came before it was written, if they are to stand there too. `came` counts
    those that did not fit in, too. `size`: bytes of texts and topics, and EACH for each. `trim`:
    the window may have got too large; it keeps `most` readings and `most_bytes` of texts and
    topics, and half as much again.
    """

    row: int | None
    flow: str
    window: str
    at: int
    expires_at: int
    number: int
    size: int
    body: bytes
    most: int
    most_bytes: int
    trim: bool
    came: int

    @classmethod
    def of(
        cls,
        keys: tuple[str, str],
        found: Sequence[Reading],
        *,
        size: int,
        lasts: int,
        most: int,
        most_bytes: int,
        trim: bool,
        came: int | None = None,
        row: int | None = None,
    ) -> Chunk:
        """Of `found`, which are not none; `keys` of `window_keys`, `lasts` in ms, `size` in
        bytes."""
        at = codec.number(found[-1].at if len(found) == 1 else max(one.at for one in found))
        body, number = codec.readings_out(found), len(found)
        came = number if came is None else came
        ends = at + lasts
        return cls(row, *keys, at, ends, number, size, body, most, most_bytes, trim, came)


def size_of(text: str, topic: str = "") -> int:
    """Bytes that are told of a reading."""
    return sum(
        len(one) if one.isascii() else len(one.encode("utf-8", "surrogatepass"))
        for one in (text, topic)
    )


def window_keys(flow: str, window: str) -> tuple[str, str]:
    """What a window is called here, made once for many chunks."""
    return codec.key(flow), codec.key(window)


_COLUMNS: dict[str, TypeEngine[Any]] = {
    "flow": Text(),
    "window": Text(),
    "at": BigInteger(),
    "expires_at": BigInteger(),
    "count": Integer(),
    "size": BigInteger(),
    "body": LargeBinary(),
}
_APPENDED: dict[str, TypeEngine[Any]] = {"row": BigInteger(), **_COLUMNS}
_NUMBERED: dict[str, TypeEngine[Any]] = {"seq": BigInteger(), **_COLUMNS}
_END = len(_APPENDED)  # what a chunk has before it is what a row has, in the same order
_place = itemgetter(1, 2)
_BOUNDS: dict[str, TypeEngine[Any]] = {
    "flow": Text(),
    "window": Text(),
    "most": BigInteger(),
    "most_bytes": BigInteger(),
}


@cache
def _append(pg: bool) -> Any:
    new = listed_rows(pg, _APPENDED).c
    return (
        update(readings)
        .where(_a.seq == new.row, _a.flow == new.flow, _a.window == new.window)
        .values(
            at=case((new.at > _a.at, new.at), else_=_a.at),
            expires_at=case((new.expires_at > _a.expires_at, new.expires_at), else_=_a.expires_at),
            count=_a.count + new.count,
            size=_a.size + new.size,
            body=cast(_a.body.op("||")(codec.NEXT).op("||")(new.body), LargeBinary),
        )
    )


@cache
def _there(pg: bool) -> Any:
    return select(_a.seq, _a.flow, _a.window).where(among(pg, _a.seq, "seqs"))


@cache
def _add(pg: bool) -> Any:
    columns = _COLUMNS if pg else _NUMBERED
    new = listed_rows(pg, columns).c
    added = insert(pg, readings).from_select(list(columns), select(*(new[n] for n in columns)))
    return added.returning(_a.seq, _a.flow, _a.window) if pg else added


@cache
def _next() -> Any:
    return select(func.coalesce(func.max(_a.seq), 0) + 1)


def put(tx: Tx, orders: Sequence[Sequence[Chunk]]) -> list[list[int]]:
    """Add all of them, then cut the windows that ask for it. For each the row where it is.

    Nobody waits for a row here: a process changes its own ones, and what deletes rows passes by
    those that are being changed.
    """
    chunks = [chunk for order in orders for chunk in order]
    placed = _appended(tx, chunks)
    placed |= _added(tx, [one for one in chunks if id(one) not in placed])
    came: dict[str, int] = {}
    for one in chunks:
        came[one.flow] = came.get(one.flow, 0) + one.came
    rollup.keep(tx, came)
    if grown := {(one.flow, one.window): one for one in chunks if one.trim}:
        bounds = [
            (one.flow, one.window, one.most, one.most_bytes + EACH * one.most)
            for one in grown.values()
        ]
        tx.run(_trim(tx.pg), rows(tx.pg, _BOUNDS, bounds) | {"b_ahead": tx.now + AHEAD})
    return [[placed[id(one)] for one in order] for order in orders]


def _appended(tx: Tx, chunks: Sequence[Chunk]) -> dict[int, int]:
    """Those whose row is still there: (its id → its row)."""
    of_row = {one.row: one for one in chunks if one.row is not None}  # a row is changed once
    if not of_row:
        return {}
    values = rows(tx.pg, _APPENDED, [one[:_END] for one in of_row.values()])
    there = of_row
    if tx.run(_append(tx.pg), values).rowcount != len(of_row):
        found = {row.seq: row for row in tx.run(_there(tx.pg), {"seqs": numbers(tx.pg, of_row)})}
        there = {
            row: one
            for row, one in of_row.items()
            if row in found and _place(one) == tuple(found[row][1:])
        }
    return {id(one): row for row, one in there.items()}


def _added(tx: Tx, chunks: Sequence[Chunk]) -> dict[int, int]:
    if not chunks:
        return {}
    if tx.pg:
        done = tx.run(_add(True), rows(True, _COLUMNS, [one[1:_END] for one in chunks]))
        of_window = {(row.flow, row.window): row.seq for row in done}
        return {id(one): of_window[_place(one)] for one in chunks}
    # SQLite has one writer, who may count by himself: each row given back takes Python's lock.
    first = tx.run(_next()).scalar()
    numbered = [(first + at, *one[1:_END]) for at, one in enumerate(chunks)]
    tx.run(_add(False), rows(False, _NUMBERED, numbered))
    return {id(one): first + at for at, one in enumerate(chunks)}


def _is_window() -> Any:
    flow = bindparam("b_flow", type_=Text)
    return (_a.flow == flow) & (_a.window == bindparam("b_window", type_=Text))


@cache
def _trim(pg: bool) -> Any:
    """Rows go that are not needed for what may be read."""
    bounds = listed_rows(pg, _BOUNDS).c
    ahead = _a.at > bindparam("b_ahead", type_=BigInteger)  # as the oldest
    newer: Any = {
        "partition_by": (_a.flow, _a.window),
        "order_by": (case((ahead, 0), else_=_a.at).desc(), _a.seq.desc()),
        "rows": (None, 0),  # with its own: a frame of one kind is gone through once
    }
    sums = (
        select(
            _a.seq,
            bounds.most,
            bounds.most_bytes,
            (func.sum(_a.count).over(**newer) - _a.count).label("count"),
            (func.sum(_a.size).over(**newer) - _a.size).label("size"),
        )
        .where(_a.flow == bounds.flow, _a.window == bounds.window)
        .subquery()
        .c
    )
    enough = or_(
        sums.count >= sums.most + sums.most // 2 + LATE,
        sums.size >= sums.most_bytes + sums.most_bytes // 2,
    )
    doomed = select(sums.seq).where(enough)
    if pg:  # what another process adds to just now is not the oldest
        found = select(_a.seq).where(_a.seq.in_(doomed)).with_for_update(skip_locked=True)
        doomed = once(found)
    return delete(readings).where(_a.seq.in_(doomed))


@cache
def _bodies() -> Any:
    return (
        select(_a.body)
        .where(
            _is_window(),
            _a.at >= bindparam("b_since", type_=BigInteger),
            _a.at <= bindparam("b_ahead", type_=BigInteger),
        )
        .order_by(_a.at.desc(), _a.seq.desc())
        .limit(bindparam("b_limit"))
    )


def recall(tx: Tx, flow: str, window: str, *, since: int, limit: int, size: int) -> list[Reading]:
    """The newest of one window, oldest first. EMQX brings a message again whose 202 was lost:
    time and text tell that it is the same."""
    bound = {
        "b_flow": codec.key(flow),
        "b_window": codec.key(window),
        "b_since": since,
        "b_ahead": tx.now + AHEAD,
        "b_limit": limit + LATE,
    }
    found: set[Reading] = set()
    for row in tx.run(_bodies(), bound):
        found.update(one for one in codec.readings_in(row.body) if one.at >= since)
    kept: list[Reading] = []
    for one in sorted(found, key=lambda each: (each.at, each.topic, each.text), reverse=True):
        size -= size_of(one.text, one.topic)
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
    """How many rows there are, and about how many bytes they take."""
    count, size = tx.run(_measure()).one()
    return int(count), int(size)
