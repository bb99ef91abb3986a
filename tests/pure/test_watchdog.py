"""The watchdog ends a process whose event loop stands still, and no other."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

from service.operations.watchdog import EXIT_CODE, Watchdog


async def test_a_loop_that_turns_is_left_alone_though_it_is_slow_now_and_then() -> None:
    ended = threading.Event()
    dog = Watchdog(looks=16, every=0.05, end=ended.set)  # 0.8 s
    dog.start()
    for _ in range(5):
        time.sleep(0.1)  # noqa: ASYNC251
        await asyncio.sleep(0.1)
    dog.stop()
    assert not ended.is_set()


async def test_a_loop_that_stands_still_ends_the_process() -> None:
    ended = threading.Event()
    dog = Watchdog(looks=3, every=0.02, end=ended.set)
    dog.start()
    await asyncio.sleep(0.05)
    assert ended.wait(5)  # this blocks the loop
    dog.stop()


async def test_it_can_be_stopped() -> None:
    ended = threading.Event()
    dog = Watchdog(looks=5, every=0.1, end=ended.set)
    dog.start()
    dog.stop()
    assert not ended.wait(1.2)  # this blocks the loop, and nobody looks any more


def test_it_says_where_the_loop_hangs_and_exits_with_its_code() -> None:
    code = """
import asyncio, time
from service.operations.watchdog import Watchdog

async def main():
    Watchdog(looks=3, every=0.05).start()
    await asyncio.sleep(0.1)
    this_is_where_it_hangs()

def this_is_where_it_hangs():
    time.sleep(60)

asyncio.run(main())
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert found.returncode == EXIT_CODE
    assert "this_is_where_it_hangs" in found.stderr
