"""A look that may be dear: shared by those who ask at once, and kept for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")
_CHEAP = 0.3
_SHARE = 30


class Cached(Generic[T]):
    """Looks afresh, unless that took long: then at most one thirtieth of the time."""

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
