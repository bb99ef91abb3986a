"""A full inbox: does a million waiting requests slow down those that can be answered?"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path

from service.inbox import Inbox
from tests.bench.answers import CONCURRENCY, throughput
from tests.bench.load import Load
from tests.bench.rows import Bar, Bench, Row, in_pairs, median

PER_CONVERSATION = 20

_FILL = """
INSERT INTO requests (
    id, flow, scope, dedupe, conversation, ordered, order_at, order_id, accepted_at, deadline,
    not_before, state, fence, claims, tries, publish, topic, clientid, payload, message)
WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < :last)
SELECT
    lower(hex(randomblob(16))), :flow, :flow, printf('B%s%020d', :flow, n),
    'u' || (n / :each), :ordered, :now + n, printf('B%s%020d', :flow, n), :now + n, :deadline,
    0, 'queued', 0, 0, 0, 1, :flow || '/request/u' || (n / :each), 'device-u' || (n / :each),
    CAST('Which lamp in the kitchen is still on?' AS BLOB),
    CAST(json_object('id', printf('B%s%020d', :flow, n), 'topic',
        :flow || '/request/u' || (n / :each), 'received_at', :now + n, 'flow', :flow) AS BLOB)
FROM numbers
"""
_LINES = """
INSERT INTO conversations (flow, conversation, next_at, since)
SELECT flow, conversation, 0, min(accepted_at) FROM requests WHERE ordered GROUP BY 1, 2
"""


async def fill(path: Path, count: int) -> None:
    """Waiting requests of two flows whose model is paused: half in conversations, half loose."""
    async with Inbox(f"sqlite:///{path}"):
        pass
    await asyncio.to_thread(_fill, path, count)


def _fill(path: Path, count: int) -> None:
    now = time.time_ns() // 1_000_000 - count
    with contextlib.closing(sqlite3.connect(path)) as database:
        for pragma in ("synchronous=OFF", "cache_size=-400000", "temp_store=MEMORY"):
            database.execute(f"PRAGMA {pragma}")
        for flow, ordered in (("later", 1), ("loose", 0)):
            values = {
                "flow": flow,
                "ordered": ordered,
                "last": count // 2 - 1,
                "each": PER_CONVERSATION,
                "now": now,
                "deadline": now + 86_400_000,
            }
            database.execute(_FILL, values)
        database.execute(_LINES)
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


async def waiting(bench: Bench) -> list[Row]:
    """End to end with a model that answers at once, beside a service with an empty inbox."""
    count = bench.size(1_000_000, 20_000)
    full: list[float] = []
    empty: list[float] = []
    options = {"MAX_CONCURRENCY": str(CONCURRENCY)}

    async def prepare(home: Path) -> None:
        await fill(home / "emqx-gpt.db", count)

    async with (
        bench.service("/delay/0/v1", prepare, **options) as service,
        bench.service("/delay/0/v1", **options) as other,
        Load(service.port) as load,
        Load(other.port) as other_load,
    ):
        for one in (load, other_load):
            await throughput(bench, one, bench.size(1000, 100))
        for _ in range(bench.rounds):
            full.append(await throughput(bench, load, bench.size(2000, 200)))
            empty.append(await throughput(bench, other_load, bench.size(2000, 200)))
    share = in_pairs(full, empty)
    return [
        Row(
            "backlog",
            f"{count:,} requests waiting in the inbox: answers of another flow",
            "90 % of an empty inbox",
            f"{median(full):,.0f} answers/s",
            share >= 0.9,
            f"{median(empty):,.0f} answers/s",
            share,
            [
                Bar(f"{count:,} waiting", median(full), f"{median(full):,.0f} answers/s"),
                Bar("none", median(empty), f"{median(empty):,.0f} answers/s"),
            ],
            figures={"per_second": median(full), "empty_per_second": median(empty)},
        )
    ]
