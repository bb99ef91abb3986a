"""Webhooks accepted: committed to disk, over 8 pipelined connections."""

from __future__ import annotations

from tests.bench.load import Load
from tests.bench.machine import fsync_ms
from tests.bench.rows import Bar, Bench, Row, in_pairs, median, percentile

SHARE = 0.15


async def accepted(bench: Bench) -> list[Row]:
    """The model hangs and one call may be in flight: nothing is answered meanwhile."""
    ours: list[float] = []
    bare: list[float] = []
    syncs: list[float] = []
    asked: list[float] = []
    full: list[float] = []
    async with (
        bench.service("/delay/3600/v1", MAX_CONCURRENCY="1") as service,
        bench.baseline("bare") as other,
        Load(service.port) as load,
        Load(other.port) as bare_load,
    ):
        warm = bench.size(2000, 300)
        await load.post(bench.requests(warm))
        await bare_load.post(bench.requests(warm))
        for _ in range(bench.rounds):
            count = bench.size(12_000, 1500)
            posted = await load.post(bench.requests(count))
            assert posted.refused == 0
            ours.append(posted.rate)
            syncs.append(fsync_ms(service.folder))
            count = bench.size(40_000, 5000)
            bare.append((await bare_load.post(bench.requests(count))).rate)
        half, ours_half = SHARE * median(bare) / 2, median(ours) / 2
        for _ in range(bench.rounds):
            for rate, latencies in ((half, asked), (ours_half, full)):
                requests = bench.requests(int(rate * bench.size(3, 1)))
                latencies += (await load.post(requests, rate=rate)).latencies
    share = in_pairs(ours, bare)
    p50, p99 = (percentile(asked, at) * 1000 for at in (0.5, 0.99))
    full_p99 = percentile(full, 0.99) * 1000
    return [
        Row(
            "accept",
            "webhooks accepted, durable, per second (8 connections)",
            "15 % of a bare uvicorn 202",
            f"{median(ours):,.0f}/s (fsync {median(syncs):.2f} ms)",
            share >= SHARE,
            f"{median(bare):,.0f}/s",
            share,
            [
                Bar("emqx-gpt, on disk", median(ours), f"{median(ours):,.0f}/s"),
                Bar("uvicorn alone", median(bare), f"{median(bare):,.0f}/s"),
            ],
            figures={
                "per_second": median(ours),
                "bare_per_second": median(bare),
                "fsync_ms": median(syncs),
            },
        ),
        Row(
            "latency",
            f"time to the 202 at half of these 15 % ({half:,.0f}/s)",
            "p99 under 30 ms",
            f"p50 {p50:.1f} ms, p99 {p99:.1f} ms; at half of what it reaches "
            f"({ours_half:,.0f}/s) p99 {full_p99:.1f} ms",
            p99 < 30,
            figures={
                "p50_ms": p50,
                "p99_ms": p99,
                "per_second": half,
                "p99_ms_at_half_of_ours": full_p99,
            },
        ),
    ]
