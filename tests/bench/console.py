"""The console: how soon its pages come with a large inbox, and what open pages cost."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from service.inbox import Inbox
from tests.bench.answers import CONCURRENCY, throughput
from tests.bench.load import Load
from tests.bench.rows import Bar, Bench, Row, in_pairs, median
from tests.databases import postgresql

AUTH = {"authorization": "Bearer operator-token"}
PAGES = 200
LIMIT = 0.3  # seconds
DAY = 86_400_000
COLUMNS = (
    "id, flow, scope, dedupe, conversation, ordered, order_at, order_id, accepted_at, deadline,"
    " not_before, state, fence, claims, tries, publish, topic, clientid, payload, message, reply,"
    " model, prompt_tokens, completion_tokens, cost, error_code, error_message, answered_at,"
    " ended_at"
)
FLOWS = ("chat", "alarm", "home", "story", "parse")
VIEWS = {
    "the first view": "/",
    "requests": "/console/requests",
    "a state": "/console/requests?state=failed",
    "a flow and a state": "/console/requests?flow=home&state=expired",
    "a conversation": "/console/requests?flow=chat&conversation=u77",
    "an error": "/console/requests?error=model_refused",
    "a text that many have": "/console/requests?text=lamp",
    "a text that nobody has": "/console/requests?text=nowhere-at-all",
    "a time": "/console/requests?since={since}&until={until}",
    "a state, a text and a time": "/console/requests?state=done&text=lamp&until={until}",
    "dead letters": "/console/dead",
    "conversations": "/console/conversations",
    "a week of figures": "/console/flows?window=week",
}


def _rows(many: int, now: int) -> Iterator[tuple[Any, ...]]:
    """Ended requests of a week: 98 % done, the rest failed or too late."""
    for n in range(many):
        flow, user = FLOWS[n % len(FLOWS)], f"u{n // 20}"
        at = now - 7 * DAY + 7 * DAY * n // many
        bad = {7: "failed", 57: "expired"}.get(n % 100)
        topic, id = f"{flow}/request/{user}", f"{n:032x}"
        text = f"Which lamp in the kitchen is still on, for the {n}th time?".encode()
        message = f'{{"id":"{id}","topic":"{topic}","received_at":{at},"flow":"{flow}"}}'.encode()
        yield (
            *(id, flow, flow, id, user, True, at, id, at, at + 60_000, 0, bad or "done", 1, 0, 1),
            *(True, topic, f"device-{user}", text, message, b"The left one." if not bad else None),
            *("gpt-5.4-mini", 24, 12, 0.0001, "model_refused" if bad else None),
            *("no such field" if bad else None, at + 900, at + 950),
        )


async def fill(url: str, many: int) -> None:
    """So many ended requests into a fresh database."""
    async with Inbox(url):
        pass
    rows = _rows(many, time.time_ns() // 1_000_000)
    if url.startswith("sqlite"):
        await asyncio.to_thread(_fill, Path(url.removeprefix("sqlite:///")), rows)
        return
    database = await asyncpg.connect(url)
    try:
        names = [name.strip() for name in COLUMNS.split(",")]
        await database.copy_records_to_table("requests", records=rows, columns=names)
        await database.execute("ANALYZE requests")
    finally:
        await database.close()


def _fill(path: Path, rows: Iterator[tuple[Any, ...]]) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        for pragma in ("synchronous=OFF", "cache_size=-400000", "temp_store=MEMORY"):
            database.execute(f"PRAGMA {pragma}")
        marks = ",".join("?" * (COLUMNS.count(",") + 1))
        database.executemany(f"INSERT INTO requests ({COLUMNS}) VALUES ({marks})", rows)  # noqa: S608
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


async def pages(bench: Bench) -> list[Row]:
    """Each view with a million ended requests, on both databases."""
    many = bench.size(1_000_000, 20_000)
    found = []
    with contextlib.ExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, postgresql())
        for name in ("SQLite", "PostgreSQL"):
            shared = None if name == "SQLite" else await asyncio.to_thread(server.fresh)

            async def prepare(home: Path, shared: str | None = shared) -> None:
                await fill(shared or f"sqlite:///{home / 'emqx-gpt.db'}", many)

            env = {"DATABASE_URL": shared} if shared else {}
            async with bench.service("/delay/0/v1", prepare, **env) as service:
                found.append(await _views(bench, f"http://127.0.0.1:{service.port}", name, many))
    return found


async def _views(bench: Bench, url: str, name: str, many: int) -> Row:
    now = time.time_ns() // 1_000_000
    times: dict[str, float] = {}
    async with httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client:
        if not bench.quick:
            await _counted(client)
        for about, view in VIEWS.items():
            path = view.format(since=now - 3 * DAY, until=now - 2 * DAY)
            took = []
            for _ in range(bench.size(5, 2)):
                began = time.perf_counter()
                answer = await client.get(path)
                took.append(time.perf_counter() - began)
                assert answer.status_code == 200, (path, answer.text)
            times[about] = max(took[0], median(took))  # the first look counts as well
    slowest = max(times, key=lambda about: times[about])
    first, most = times["the first view"] * 1000, times[slowest] * 1000
    return Row(
        f"pages {name}",
        f"the console's views with {many:,} requests in {name}",
        "each within 300 ms",
        f"{most:.0f} ms ({slowest}), first {first:.0f} ms",
        times[slowest] < LIMIT,
        figures={about.replace(" ", "_"): seconds for about, seconds in times.items()},
    )


async def _counted(client: httpx.AsyncClient) -> None:
    """Wait until the minutes of before are counted, as they are in a service that has run."""
    before = -1
    while True:
        answer = await client.get("/stats", params={"window": "week"})
        counted = answer.json()["total"]["requests"]
        if counted and counted == before:
            return
        before = counted
        await asyncio.sleep(5)


@contextlib.asynccontextmanager
async def _watching(port: int, number: int) -> AsyncIterator[list[int]]:
    """So many open pages that read what they are told; how many events each of them got."""
    seen = [0] * number
    told = asyncio.Event()

    async def watch(at: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            head = f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            writer.write((head + f"Authorization: {AUTH['authorization']}\r\n\r\n").encode())
            while line := await reader.readline():
                seen[at] += line.startswith(b"event:")
                if min(seen) > 0:
                    told.set()
        finally:
            writer.close()

    tasks = [asyncio.create_task(watch(at)) for at in range(number)]
    try:
        async with asyncio.timeout(30):
            await told.wait()
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def open_pages(bench: Bench) -> list[Row]:
    """Answers a second with many open pages, beside the same service without any."""
    number = bench.size(PAGES, 20)
    with_pages: list[float] = []
    without: list[float] = []
    options = {"MAX_CONCURRENCY": str(CONCURRENCY)}
    async with (
        bench.service("/delay/0/v1", **options) as service,
        Load(service.port) as load,
    ):
        await throughput(bench, load, bench.size(2000, 100))
        for _ in range(bench.size(9, 1)):
            without.append(await throughput(bench, load, bench.size(3000, 200)))
            async with _watching(service.port, number):
                with_pages.append(await throughput(bench, load, bench.size(3000, 200)))
    share = in_pairs(with_pages, without)
    return [
        Row(
            "open pages",
            f"answers with {number} open pages of the console",
            "95 % of those without",
            f"{median(with_pages):,.0f} answers/s",
            share >= 0.95,
            f"{median(without):,.0f} answers/s",
            share,
            [
                Bar(
                    f"{number} open pages",
                    median(with_pages),
                    f"{median(with_pages):,.0f} answers/s",
                ),
                Bar("none", median(without), f"{median(without):,.0f} answers/s"),
            ],
            figures={"per_second": median(with_pages), "without_per_second": median(without)},
        )
    ]
