"""What the service adds to the model's time: to a lone question, and to the first token."""

from __future__ import annotations

import asyncio
import random
import time

import orjson

from tests.bench.load import Load, question
from tests.bench.machine import fsync_ms
from tests.bench.rows import Bench, Row, percentile

DELAY = 0.05
FIRST = 0.3


async def idle(bench: Bench) -> list[Row]:
    """One question at a time: webhook in → publish call out, less what the model took."""
    count = bench.size(300, 20)
    began: list[float] = []
    async with (
        bench.service(f"/delay/{DELAY}/v1") as service,
        Load(service.port, connections=1) as load,
    ):
        run, requests = bench.run(count + 20)
        for request in requests[:20]:  # the first opens connections, fills caches
            await load.post([request], fresh=False)
        await bench.ends.wait(20, 20)
        await bench.forget()
        for number, request in enumerate(requests[20:]):
            began.append(time.monotonic())
            await load.post([request], fresh=False)
            await bench.ends.wait(number + 1, 20)
            await asyncio.sleep(random.uniform(0.005, 0.02))
        published = (await bench.ends.published())["notes"]
        asked = (await bench.ends.asked())["notes"]
        sync = fsync_ms(service.folder)
    added = []
    for number, start in enumerate(began):
        text = question(run, number + 20)
        came, answered = asked[text]
        added.append((published[text] - start - (answered - came)) * 1000)
    p50, p99 = percentile(added, 0.5), percentile(added, 0.99)
    return [
        Row(
            "idle",
            "added to the model's time when idle (webhook in → publish call out)",
            "p50 under 8 ms, p99 under 25 ms",
            f"p50 {p50:.1f} ms, p99 {p99:.1f} ms (fsync {sync:.2f} ms)",
            p50 < 8 and p99 < 25,
            figures={"p50_ms": p50, "p99_ms": p99, "fsync_ms": sync},
        )
    ]


async def streaming(bench: Bench) -> list[Row]:
    """The model's first token → the first delta in a publish call; a dozen streams at a time."""
    count = bench.size(200, 20)
    async with (
        bench.service(f"/first/{FIRST}/v1") as service,
        Load(service.port) as load,
    ):
        await load.post(bench.requests(20, flow="told"))
        await bench.ends.wait(40, 20)
        await asyncio.sleep(1)
        await bench.forget()
        run, requests = bench.run(count, flow="told")
        await load.post(requests, rate=20)
        await asyncio.sleep(2)
        published = (await bench.ends.published())["notes"]
        asked = (await bench.ends.asked())["notes"]
    first = {}
    for payload, at in published.items():
        if payload.startswith("{") and (news := orjson.loads(payload))["seq"] == 0:
            first[news["delta"].strip()] = at
    texts = [question(run, number) for number in range(count)]
    added = [(first[text] - asked[text][1]) * 1000 for text in texts]
    p50, p99 = percentile(added, 0.5), percentile(added, 0.99)
    return [
        Row(
            "streaming",
            "the model's first token → the first delta published",
            "under 150 ms",
            f"p50 {p50:.1f} ms, p99 {p99:.1f} ms",
            p99 < 150,
            figures={"p50_ms": p50, "p99_ms": p99},
        )
    ]
