"""Work that is watched goes on as work does; while it runs its name can be read."""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
from collections.abc import Iterator

import pytest

from service.supervised import Link


@pytest.fixture
def at() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, 128) as memory:
        yield memory


@pytest.fixture
def link(at: mmap.mmap) -> Iterator[Link]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Link(theirs, at, 0, None, frozenset(), os.getppid())


def name(at: mmap.mmap) -> bytes:
    return bytes(at[:100]).rstrip(b"\0")


async def test_the_name_stands_there_while_it_runs_and_not_while_it_waits(
    link: Link, at: mmap.mmap
) -> None:
    go = asyncio.Event()
    seen = []

    async def work() -> int:
        seen.append(name(at))
        await go.wait()
        seen.append(name(at))
        return 7

    task = asyncio.create_task(link.during("r1", work()))
    await asyncio.sleep(0)
    assert name(at) == b""
    go.set()
    assert await task == 7
    assert seen == [b"r1", b"r1"]
    assert name(at) == b""


async def test_errors_go_through_both_ways(link: Link, at: mmap.mmap) -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise KeyError("x")

    with pytest.raises(KeyError):
        await link.during("r1", fails())

    async def cleans_up() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "cleaned"
        return "never"

    task = asyncio.create_task(link.during("r1", cleans_up()))
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "cleaned"

    async def waits_for_one_that_fails() -> str:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_exception, ValueError("y"))
        try:
            await future
        except ValueError as error:
            return str(error)
        return "never"

    assert await link.during("r1", waits_for_one_that_fails()) == "y"
    assert name(at) == b""


async def test_two_at_once_keep_their_names_apart(link: Link, at: mmap.mmap) -> None:
    async def work(own: bytes) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
            assert name(at) == own

    await asyncio.gather(*(link.during(f"r{n}", work(f"r{n}".encode())) for n in range(5)))
