"""A dear look is kept for a while; a cheap one never."""

from __future__ import annotations

import asyncio

import pytest

from service.inbox.reads import Cached


class Look:
    """Takes as long as it is told, on its own clock."""

    def __init__(self, took: float) -> None:
        self.now = 100.0
        self.took = took
        self.count = 0

    async def __call__(self) -> int:
        self.count += 1
        self.now += self.took
        return self.count

    def clock(self) -> float:
        return self.now


async def test_cheap_ones_are_always_fresh() -> None:
    look = Look(took=0.1)
    cached = Cached(look, look.clock)
    assert [await cached(), await cached(), await cached()] == [1, 2, 3]


async def test_dear_ones_are_kept_in_proportion() -> None:
    look = Look(took=1.0)
    cached = Cached(look, look.clock)
    assert [await cached(), await cached()] == [1, 1]
    look.now += 28
    assert await cached() == 1
    look.now += 1
    assert await cached() == 2


async def test_who_asks_at_once_shares() -> None:
    look = Look(took=1.0)
    cached = Cached(look, look.clock)
    assert await asyncio.gather(*(cached() for _ in range(5))) == [1] * 5


async def test_a_failure_is_not_kept() -> None:
    async def fail() -> int:
        raise OSError("away")

    cached = Cached(fail)
    for _ in range(2):
        with pytest.raises(OSError, match="away"):
            await cached()
