"""Ticks of schedules in the database: each one is seen to once, by whoever is first."""

from __future__ import annotations

import asyncio

from service.inbox import Inbox
from tests.inbox.make import Clock, entry

DAILY = "0 7 * * * UTC"
DAY = 86_400_000


async def test_a_new_schedule_begins_now_and_stays_when_a_process_comes_back(
    store: Inbox, other: Inbox, clock: Clock
) -> None:
    begun = clock.now
    assert await store.schedule("report", DAILY) == begun
    clock.pass_(5000)
    assert await other.schedule("report", DAILY) == begun
    assert await other.schedule("other", DAILY) == clock.now


async def test_another_expression_begins_anew_and_each_tick_is_one_whoever_has_which(
    store: Inbox, clock: Clock
) -> None:
    await store.schedule("report", DAILY)
    clock.pass_(5000)
    assert await store.schedule("report", "* * * * * UTC") == clock.now
    assert await store.tick("report", DAILY, clock.now + 1, entry("a"))  # of an older file
    assert not await store.tick("report", "* * * * * UTC", clock.now + 1, entry("b"))
    assert await store.tick("report", "* * * * * UTC", clock.now + 2, entry("c"))
    assert [row.conversation for row in await store.requests()] == ["c", "a"]


async def test_many_processes_see_a_tick_and_it_is_one_request(
    store: Inbox, other: Inbox, clock: Clock
) -> None:
    await store.schedule("report", DAILY)
    for day in range(1, 6):
        at = clock.now + day * DAY
        seen = [one.tick("report", DAILY, at, entry(f"d{day}")) for one in (store, other) * 5]
        assert sum(await asyncio.gather(*seen)) == 1
    assert sorted(row.conversation for row in await store.requests()) == [
        f"d{day}" for day in range(1, 6)
    ]
    assert not await other.tick("report", DAILY, clock.now + 3 * DAY, entry("late"))


async def test_a_tick_that_is_let_pass_is_over_too(store: Inbox, clock: Clock) -> None:
    await store.schedule("report", DAILY)
    assert await store.tick("report", DAILY, clock.now + 1, None)
    assert not await store.tick("report", DAILY, clock.now + 1, entry("a"))
    assert await store.requests() == []


async def test_a_clock_that_was_far_ahead_stops_no_schedule_for_good(
    store: Inbox, clock: Clock
) -> None:
    await store.schedule("report", DAILY)
    wrong = clock.now + 900 * DAY
    assert await store.tick("report", DAILY, wrong, None)
    assert await store.schedule("report", DAILY) == clock.now
    near = clock.now + DAY
    assert await store.tick("report", DAILY, near, None)
    assert await store.schedule("report", DAILY) == near
