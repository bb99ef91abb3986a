"""What people and metrics look at. Nothing here locks or changes anything."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, Generic, TypeVar

from sqlalchemy import Text, bindparam, func, literal_column, select

from service.domain import State
from service.inbox import codec
from service.inbox.rows import Row, Stats, full_columns, to_row
from service.inbox.sql import Tx
from service.inbox.sql_tables import (
    ended,
    leased,
    open_,
    ordered_queue,
    requests,
    unordered_queue,
)

_r = requests.c
T = TypeVar("T")
_CHEAP = 0.3  # seconds
_SHARE = 30
_DEAD = (State.FAILED, State.EXPIRED, State.IGNORED)


@cache
def _get() -> Any:
    return select(*full_columns).where(_r.id == bindparam("b_id", type_=Text))


def get(tx: Tx, id: str) -> Row | None:
    row = tx.run(_get(), {"b_id": codec.key(id)}).one_or_none()
    return None if row is None else to_row(row)


@cache
def _waiting(where: Any) -> Any:
    """From the index alone: it has the flow, and `state` is known by what it holds."""
    return select(_r.flow, func.count().label("n")).where(where).group_by(_r.flow)


@cache
def _working() -> Any:
    return (
        select(_r.flow, _r.state, func.count().label("n")).where(leased).group_by(_r.flow, _r.state)
    )


def stats(tx: Tx) -> Stats:
    """Counted from the small indexes: what ended well is not looked at."""
    counts: Counter[tuple[str | None, State]] = Counter()
    for where in (ordered_queue, unordered_queue):
        for row in tx.run(_waiting(where)):
            counts[row.flow or None, State.QUEUED] += row.n
    for row in tx.run(_working()):
        counts[row.flow or None, State(row.state)] += row.n
    deads = {State(row.state): row.n for row in tx.run(_dead_counts())}
    return Stats(dict(counts), tx.run(_oldest()).scalar(), deads)


@cache
def _dead_counts() -> Any:
    died = _r.state.in_([literal_column(f"'{state}'") for state in _DEAD])
    return select(_r.state, func.count().label("n")).where(ended, died).group_by(_r.state)


@cache
def _oldest() -> Any:
    return select(_r.accepted_at).where(open_).order_by(_r.seq).limit(1)


@cache
def _open() -> Any:
    return select(func.count()).select_from(requests).where(open_)


def backlog(tx: Tx) -> int:
    """Requests that have not ended."""
    return int(tx.run(_open()).scalar())


class Cached(Generic[T]):
    """A look shared by those who ask at once.

    Looks afresh, unless that took long: then at most one thirtieth of the time.
    """

    def __init__(
        self, look: Callable[[], Awaitable[T]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._look = look
        self._clock = clock
        self._lock = asyncio.Lock()
        self._value: T | None = None
        self._good_until = 0.0

    async def __call__(self) -> T:
        async with self._lock:
            begun = self._clock()
            if self._value is None or begun >= self._good_until:
                self._value = await self._look()
                took = self._clock() - begun
                self._good_until = begun + took * _SHARE if took > _CHEAP else 0.0
            return self._value
