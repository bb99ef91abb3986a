"""Readings for windows, 10,000 a second, beside questions: how long the questions' 202 takes."""

from __future__ import annotations

import asyncio
import time

import orjson

from tests.bench.load import Load
from tests.bench.rows import Bench, Row, percentile

RATE = 10_000  # readings a second
QUESTIONS = 100  # a second
DEVICES = 1000


def reading(number: int) -> bytes:
    """One output of a window's rule as EMQX posts it, whole."""
    device = f"d{number % DEVICES:04d}"
    body = orjson.dumps(
        {
            "recent": "kept",
            "topic": f"kept/{device}/telemetry",
            "payload": f'{{"temperature":{20 + number % 17},"humidity":{number % 100}}}',
            "publish_received_at": time.time_ns() // 1_000_000,
            "clientid": device,
        }
    )
    return (
        b"POST /webhook HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json\r\n"
        b"connection: keep-alive\r\ncontent-type: application/json\r\n"
        b"keep-alive: timeout=5\r\nauthorization: Bearer webhook-token\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(body), body)
    )


async def windows(bench: Bench) -> list[Row]:
    """Both over connections of their own, as EMQX has them; the load shares the machine."""
    seconds = bench.size(10, 1)
    async with (
        bench.service("/delay/3600/v1", MAX_CONCURRENCY="1") as service,
        Load(service.port) as readings,
        Load(service.port) as questions,
    ):
        await questions.post(bench.requests(bench.size(500, 100)))
        alone = await readings.post([reading(number) for number in range(bench.size(20_000, 2000))])
        kept, asked = await asyncio.gather(
            readings.post([reading(n) for n in range(RATE * seconds)], rate=RATE),
            questions.post(bench.requests(QUESTIONS * seconds), rate=QUESTIONS),
        )
    p50, p99 = (percentile(asked.latencies, at) * 1000 for at in (0.5, 0.99))
    refused = alone.refused + kept.refused + asked.refused
    return [
        Row(
            "windows",
            f"time to a question's 202 beside {RATE:,} readings/s for windows",
            "p99 under 50 ms, no reading refused",
            f"p50 {p50:.1f} ms, p99 {p99:.1f} ms at {kept.rate:,.0f} readings/s "
            f"(as fast as it goes: {alone.rate:,.0f}/s)",
            p99 < 50 and kept.rate > RATE * 0.95 and refused == 0,
            figures={
                "p50_ms": p50,
                "p99_ms": p99,
                "readings_per_second": kept.rate,
                "most_per_second": alone.rate,
            },
        )
    ]
