"""Windows in the database: bounded by number, bytes and age; the same on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from service.domain import Reading
from service.inbox import Chunk, Inbox, window_keys
from service.inbox.readings import LATE
from tests.inbox.make import Clock

HOUR = 3_600_000


def chunk(
    window: str,
    found: Sequence[Reading],
    *,
    most: int = 4,
    size: int = 10_000,
    trim: bool = True,
    row: int | None = None,
) -> Chunk:
    return Chunk.of(
        window_keys("boiler", window),
        found,
        size=sum(len(one.text.encode("utf-8", "surrogatepass")) for one in found),
        lasts=HOUR,
        most=most,
        most_bytes=size,
        trim=trim,
        row=row,
    )


async def look(
    store: Inbox, window: str, *, since: int = 0, limit: int = 4, size: int = 10_000
) -> list[str]:
    found = await store.readings("boiler", window, since=since, limit=limit, size=size)
    return [one.text for one in found]


def at(clock: Clock, *numbers: int) -> list[Reading]:
    return [Reading(clock.now + number, f"r{number}") for number in numbers]


async def test_the_newest_come_oldest_first_whatever_the_order_they_came_in(
    store: Inbox, clock: Clock
) -> None:
    await store.add_readings([chunk("a", at(clock, 3, 1)), chunk("b", at(clock, 9))])
    await store.add_readings([chunk("a", at(clock, 2, 5)), chunk("a", at(clock, 4))])
    assert await look(store, "a") == ["r2", "r3", "r4", "r5"]
    assert await look(store, "a", limit=2) == ["r4", "r5"]
    assert await look(store, "a", since=clock.now + 5) == ["r5"]
    assert await look(store, "b") == ["r9"]
    assert await look(store, "c") == []


async def test_what_emqx_brings_twice_counts_once(store: Inbox, clock: Clock) -> None:
    await store.add_readings([chunk("a", at(clock, 1, 2))])
    await store.add_readings([chunk("a", at(clock, 2, 3))])
    assert await look(store, "a") == ["r1", "r2", "r3"]


async def test_a_window_is_bounded_in_number_on_disk(
    store: Inbox, other: Inbox, clock: Clock
) -> None:
    for number in range(50):
        taker = store if number % 2 else other
        await taker.add_readings([chunk("a", at(clock, number), trim=number % 2 == 1)])
    kept = [f"r{number}" for number in range(50)][-6 - LATE :]
    assert await look(store, "a", limit=100) == kept
    assert await look(store, "a", limit=4) == kept[-4:]


async def test_a_window_is_bounded_in_bytes(store: Inbox, clock: Clock) -> None:
    big = [Reading(clock.now + number, str(number) * 400) for number in range(8)]
    for one in big:
        await store.add_readings([chunk("a", [one], most=3, size=900)])
    assert await look(store, "a", limit=100, size=100_000) == [one.text for one in big[4:]]
    assert await look(store, "a", limit=100, size=1000) == [one.text for one in big[6:]]


async def test_what_is_too_old_goes_from_the_disk_and_the_rest_stays(
    store: Inbox, clock: Clock
) -> None:
    early = [chunk(f"w{number}", at(clock, 0)) for number in range(700)]
    await store.add_readings(early)
    clock.pass_(HOUR)
    await store.add_readings([chunk("w1", at(clock, 7))])
    clock.pass_(1)
    assert await store.bound_readings(10**9) == 0
    assert await look(store, "w1", limit=100) == ["r7"]
    assert await look(store, "w2", limit=100) == []


async def test_all_windows_together_are_bounded_and_the_oldest_goes(
    store: Inbox, clock: Clock
) -> None:
    for number in range(10):
        await store.add_readings([chunk(f"w{number}", [Reading(clock.now, "x" * 100)])])
    assert await store.bound_readings(450) == 6
    kept = [number for number in range(10) if await look(store, f"w{number}")]
    assert kept == [6, 7, 8, 9]
    assert await store.bound_readings(450) == 0


async def test_texts_that_no_database_likes_come_back(store: Inbox, clock: Clock) -> None:
    odd = [Reading(clock.now, "\0 \ud800 ÿ", topic="a/\0")]
    await store.add_readings([chunk("~\0\ud800", odd)])
    assert await store.readings("boiler", "~\0\ud800", since=0, limit=9, size=99) == odd


async def test_many_processes_write_one_window_side_by_side(
    store: Inbox, other: Inbox, clock: Clock
) -> None:
    writes = [
        taker.add_readings(
            [chunk(f"w{n % 3}", at(clock, n), most=200) for n in range(start, start + 30)]
        )
        for start, taker in ((0, store), (30, other), (60, store), (90, other))
    ]
    await asyncio.gather(*writes)
    for number in range(3):
        found = await look(store, f"w{number}", limit=200)
        assert found == [f"r{n}" for n in range(120) if n % 3 == number]


async def test_what_comes_stands_beside_what_came_before(
    store: Inbox, other: Inbox, clock: Clock
) -> None:
    """In the row that was written last, as long as that is there."""
    (row,) = await store.add_readings([chunk("a", at(clock, 1))])
    (same,) = await store.add_readings([chunk("a", at(clock, 2), row=row)])
    assert same == row
    assert await other.add_readings([chunk("a", at(clock, 4), row=row)]) == [row]
    (fresh,) = await other.add_readings([chunk("b", at(clock, 9), row=row)])
    assert fresh != row  # a row is of one window
    assert await look(store, "a") == ["r1", "r2", "r4"]
    assert await look(store, "b") == ["r9"]
    assert await store.bound_readings(4) == 1  # the oldest row, with all that it has
    assert await look(store, "a") == []
    (anew,) = await store.add_readings([chunk("a", at(clock, 5), row=row)])
    assert await look(store, "a") == ["r5"]
    first, second = await store.add_readings([chunk("a", at(clock, n), row=anew) for n in (6, 7)])
    assert await look(store, "a") == ["r5", "r6", "r7"]
    assert {first, second} != {anew}


async def test_a_row_lives_as_long_as_the_newest_in_it(store: Inbox, clock: Clock) -> None:
    (row,) = await store.add_readings([chunk("a", at(clock, 1))])
    clock.pass_(HOUR // 2)
    await store.add_readings([chunk("a", at(clock, 2), row=row)])
    clock.pass_(HOUR // 2 + 5)
    assert await store.bound_readings(10**9) == 0
    assert await look(store, "a", since=clock.now - HOUR) == ["r2"]


async def test_a_row_of_another_process_stays_if_the_newest_is_in_it(
    store: Inbox, other: Inbox, clock: Clock
) -> None:
    (row,) = await store.add_readings([chunk("a", at(clock, 0))])
    for number in range(1, 40):
        await other.add_readings([chunk("a", at(clock, number), trim=False)])
    await store.add_readings([chunk("a", at(clock, 40), row=row)])
    await other.add_readings([chunk("a", at(clock, 41))])
    assert await look(store, "a") == ["r38", "r39", "r40", "r41"]


async def test_processes_that_add_to_and_cut_the_same_windows_hold_nobody_up(
    store: Inbox, other: Inbox, clock: Clock
) -> None:
    """Each has a row of its own in each window, and all rows are over the bound."""
    rows: dict[tuple[int, str], int | None] = {}

    async def take(who: int, taker: Inbox) -> None:
        for turn in range(60):
            names = [f"w{n}" for n in range(20)][:: 1 if who else -1]
            chunks = [
                chunk(name, at(clock, 2 * turn + who), most=8, row=rows.get((who, name)))
                for name in names
            ]
            for name, row in zip(names, await taker.add_readings(chunks), strict=True):
                rows[who, name] = row if turn % 3 else None

    async with asyncio.timeout(50):
        await asyncio.gather(take(0, store), take(1, other))
    for number in range(20):
        newest = [f"r{n}" for n in range(112, 120)]
        assert await look(store, f"w{number}", limit=8) == newest
