"""Three replicas on one PostgreSQL, beside one process with three times the concurrency."""

from __future__ import annotations

import asyncio
import contextlib
import time

from tests.bench.load import Load
from tests.bench.rows import Bar, Bench, Row, in_pairs, median
from tests.databases import postgresql

DELAY = 2.0
EACH = 50
REPLICAS = 3
NOISE = 0.97


async def three(bench: Bench) -> list[Row]:
    """A slow model: what counts is how many questions are with it at a time."""
    several: list[float] = []
    single: list[float] = []
    waves = bench.size(4, 1)
    async with contextlib.AsyncExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, postgresql())
        shared = await asyncio.to_thread(server.fresh)
        alone = await asyncio.to_thread(server.fresh)

        async def up(database: str, concurrency: int) -> Load:
            service = await stack.enter_async_context(
                bench.service(
                    f"/delay/{DELAY}/v1",
                    DATABASE_URL=database,
                    MAX_CONCURRENCY=str(concurrency),
                )
            )
            return await stack.enter_async_context(Load(service.port))

        replicas = [await up(shared, EACH) for _ in range(REPLICAS)]
        one = await up(alone, EACH * REPLICAS)
        count = EACH * REPLICAS * waves
        for loads in (replicas, [one]):  # connections opened, statements prepared
            await _answers(bench, loads, EACH * REPLICAS)
        for _ in range(bench.size(3, 1)):
            several.append(await _answers(bench, replicas, count))
            single.append(await _answers(bench, [one], count))
    share = in_pairs(several, single)
    return [
        Row(
            "replicas",
            f"three replicas on PostgreSQL, a model of {DELAY:g} s ({EACH} in flight each)",
            f"as many answers as one process with {EACH * REPLICAS} (± 3 %)",
            f"{median(several):,.1f} answers/s",
            share >= NOISE,
            f"{median(single):,.1f} answers/s",
            share,
            [
                Bar("three replicas", median(several), f"{median(several):,.1f} answers/s"),
                Bar("one, three times as wide", median(single), f"{median(single):,.1f} answers/s"),
            ],
            figures={"per_second": median(several), "one_per_second": median(single)},
        )
    ]


async def _answers(bench: Bench, loads: list[Load], count: int) -> float:
    """Answers a second; the questions are spread over the services."""
    await bench.forget()
    requests = bench.requests(count)
    began = time.monotonic()
    await asyncio.gather(*(load.post(requests[at :: len(loads)]) for at, load in enumerate(loads)))
    arrived = await bench.ends.wait(count, 120)
    assert arrived >= count, f"{arrived} of {count} were published"
    notes = await bench.ends.published()
    return count / (max(notes["notes"].values()) - began)
