"""End to end: question in by webhook, reply out by EMQX's publish API."""

from __future__ import annotations

import asyncio
import time

from tests.bench.load import USERS, Load, webhook
from tests.bench.processes import Child
from tests.bench.rows import Bar, Bench, Row, in_pairs, median

CONCURRENCY = 100
DELAY = 2.0


async def throughput(bench: Bench, load: Load, count: int, *, publishers: int = USERS) -> float:
    """Answers a second, from the first webhook to the last publish."""
    await bench.forget()
    requests = bench.requests(count, publishers=publishers)
    began = time.monotonic()
    await load.post(requests)
    arrived = await bench.ends.wait(count, 120)
    assert arrived >= count, f"{arrived} of {count} were published"
    notes = await bench.ends.published()
    return count / (max(notes["notes"].values()) - began)


async def sdk_rate(child: Child, count: int, concurrency: int = CONCURRENCY) -> float:
    return count / float(await child.ask(f"{count} {concurrency}"))


async def instant(bench: Bench) -> list[Row]:
    """A model that answers at once: what is left is all ours."""
    ours: list[float] = []
    one: list[float] = []
    sdk: list[float] = []
    cpu: list[float] = []
    async with (
        bench.service("/delay/0/v1", MAX_CONCURRENCY=str(CONCURRENCY)) as service,
        bench.baseline("sdk", "/delay/0/v1") as other,
        Load(service.port) as load,
    ):
        count = bench.size(3000, 200)
        await throughput(bench, load, bench.size(1000, 100))
        await sdk_rate(other, bench.size(1000, 100))
        for _ in range(bench.rounds):
            used = service.cpu()
            ours.append(await throughput(bench, load, count))
            cpu.append((service.cpu() - used) / count * 1000)
            one.append(await throughput(bench, load, count, publishers=1))
            sdk.append(await sdk_rate(other, count))
    share, share_of_one = in_pairs(ours, sdk), in_pairs(one, sdk)
    return [
        Row(
            "instant",
            f"end to end, a model that answers at once ({CONCURRENCY} in flight)",
            "60 % of the bare SDK loop",
            f"{median(ours):,.0f} answers/s",
            share >= 0.6,
            f"{median(sdk):,.0f} calls/s",
            share,
            [
                Bar("emqx-gpt", median(ours), f"{median(ours):,.0f} answers/s"),
                Bar("the SDK in a loop", median(sdk), f"{median(sdk):,.0f} calls/s"),
            ],
            figures={"per_second": median(ours), "sdk_per_second": median(sdk)},
        ),
        Row(
            "one publisher",
            "the same from one client that speaks for all users: one connection",
            "60 % of the bare SDK loop",
            f"{median(one):,.0f} answers/s",
            share_of_one >= 0.6,
            f"{median(sdk):,.0f} calls/s",
            share_of_one,
            figures={"per_second": median(one), "sdk_per_second": median(sdk)},
        ),
        Row(
            "cpu",
            "CPU of the service for one of these answers",
            "0.5 ms",
            f"{median(cpu):.2f} ms",
            median(cpu) <= 0.5,
            figures={"ms": median(cpu)},
        ),
    ]


async def slow(bench: Bench) -> list[Row]:
    """1,000 questions of 1,000 users at once; the plain webhook beside it; memory on the way."""
    ours: list[float] = []
    plain: list[float] = []
    busy: list[float] = []
    count = bench.size(USERS, 100)
    async with (
        bench.service(f"/delay/{DELAY}/v1", MAX_CONCURRENCY=str(USERS)) as service,
        Load(service.port) as load,
    ):
        await asyncio.sleep(1)
        idle = service.memory()
        await throughput(bench, load, count)
        for _ in range(bench.rounds):
            await bench.forget()
            requests = bench.requests(count)
            began = time.monotonic()
            await load.post(requests)
            await asyncio.sleep(max(0.0, DELAY * 0.9 - (time.monotonic() - began)))
            busy.append(service.memory())  # while they are all with the model
            arrived = await bench.ends.wait(count, 60)
            assert arrived == count, f"{arrived} of {count} were published"
            ours.append(max((await bench.ends.published())["notes"].values()) - began)
            peak = (await bench.ends.asked())["peak"]
            plain.append(await _plain(bench, bench.size(8.5, 2.5)))
    over = median(ours) / DELAY
    rates = [count / seconds for seconds in ours]
    times = in_pairs(rates, plain)
    return [
        Row(
            "slow",
            f"a model of {DELAY:g} s, {count:,} questions of as many users at once",
            f"within 1.5 × the model's time ({DELAY * 1.5:g} s)",
            f"{median(ours):.2f} s",
            over <= 1.5,
            f"{DELAY:g} s (the model alone)",
            over,
            [
                Bar("emqx-gpt", median(ours), f"{median(ours):.2f} s (less is better)"),
                Bar("the model alone", DELAY, f"{DELAY:g} s"),
            ],
            figures={"seconds": median(ours), "model_seconds": DELAY, "in_flight": peak},
        ),
        Row(
            "plain",
            "the same against a plain webhook that waits for the model",
            "100 × its answers per second",
            f"{median(rates):,.0f} answers/s",
            times >= 100,
            f"{median(plain):.2f} answers/s",
            times,
            [
                Bar("emqx-gpt", median(rates), f"{median(rates):,.0f} answers/s"),
                Bar("plain webhook", median(plain), f"{median(plain):.1f} answers/s"),
            ],
            figures={"per_second": median(rates), "plain_per_second": median(plain)},
        ),
        Row(
            "memory",
            "memory, idle and with 1,000 calls in flight",
            "130 MB and 250 MB",
            f"{idle:.0f} MB and {max(busy):.0f} MB",
            idle <= 130 and max(busy) <= 250,
            figures={"idle_mb": idle, "busy_mb": max(busy)},
        ),
    ]


async def _plain(bench: Bench, seconds: float) -> float:
    """The plain webhook takes minutes for all of them; count what it publishes in a while."""
    async with bench.baseline("webhook", f"/delay/{DELAY}/v1") as child, Load(child.port) as load:
        await bench.forget()
        began = time.monotonic()
        posting = asyncio.create_task(load.post([webhook("P", number) for number in range(USERS)]))
        await asyncio.sleep(seconds)
        assert await bench.ends.wait(1, 30), "the plain webhook published nothing"
        posting.cancel()
        await asyncio.gather(posting, return_exceptions=True)
        notes = (await bench.ends.published())["notes"]
    return len(notes) / (max(notes.values()) - began)
