"""A hundred thousand requests that wait cost a process no more memory than a hundred."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from service.domain import Ear, Wait
from service.inbox import Inbox
from service.inbox.sql_tables import requests, waits
from tests.inbox.conftest import Postgres
from tests.inbox.make import claim_one, loose
from tests.rig import OPERATOR, OPERATOR_AUTH, WEBHOOK, environment, eventually

FLOWS = '[flows.alarm]\nrequest = "in/${n}"\nreply = "out/${n}"\n'
FOREVER = 2**50
SPARE = 8 << 20  # bytes that two processes may differ by, whatever they do


async def fill(url: str, count: int) -> None:
    """So many waiting requests: one as the service makes it, and copies of it."""
    async with Inbox(url) as store:
        await store.add(loose())
        one = await claim_one(store)
        wait = Wait(one.id, Ear.ANSWER, f"t/{one.id}", FOREVER, {"told": True})
        await store.checkpoint(one, [{"calls": []}], begun=[wait])
        ear = [(one.id, Ear.ANSWER)]
        await store.park(one, until=FOREVER, waiting_for=ear, steps=[{"calls": []}])

        def copy(connection: Any) -> None:
            numbers = (
                "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < :count)"
            )
            for table, own in (
                (requests, {"seq": "i", "id": "'w' || i", "dedupe": "'d' || i"}),
                (waits, {"seq": "i", "request": "i", "call_id": "'w' || i", "topic": "'t' || i"}),
            ):
                names = [column.name for column in table.c]
                values = ", ".join(own.get(name, f'"{name}"') for name in names)
                into = ", ".join(f'"{name}"' for name in names)
                connection.execute(
                    text(
                        f"INSERT INTO {table.name} ({into}) {numbers} SELECT {values}"
                        f" FROM n, (SELECT * FROM {table.name} LIMIT 1) AS one"
                        if connection.dialect.name == "sqlite"
                        else f"{numbers} INSERT INTO {table.name} ({into}) SELECT {values}"
                        f" FROM n, (SELECT * FROM {table.name} LIMIT 1) AS one"
                    ),
                    {"count": count},
                )

        await write(url, copy)


async def write(url: str, work: Any) -> None:
    """By another connection, in one transaction."""
    from sqlalchemy import create_engine
    from sqlalchemy.ext.asyncio import create_async_engine

    if url.startswith("sqlite"):
        engine = create_engine(url)
        with engine.begin() as connection:
            work(connection)
        engine.dispose()
        return
    other = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
    async with other.begin() as connection:
        await connection.run_sync(work)
    await other.dispose()


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    [line] = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in one]
    return int(line.split()[1]) * 1024


@contextlib.asynccontextmanager
async def serving(url: str, folder: Path, port: int) -> AsyncIterator[int]:
    (folder / "flows.toml").write_text(FLOWS)
    env = environment(
        OPENAI_API_KEY="sk-test",
        OPENAI_BASE_URL="http://127.0.0.1:9/v1",
        EMQX_API_KEY="key",
        EMQX_API_SECRET="secret",  # noqa: S106
        EMQX_URL="http://127.0.0.1:9",
        WEBHOOK_TOKEN=WEBHOOK,
        OPERATOR_TOKEN=OPERATOR,
        DATABASE_URL=url,
        PORT=str(port),
        FLOWS=str(folder / "flows.toml"),
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", "serve", env=env, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process.pid
    finally:
        process.terminate()
        await process.wait()


async def measured(url: str, folder: Path, port: int, count: int) -> int:
    """Bytes, after it has looked at what waits, and was asked to list it."""
    await fill(url, count)
    async with (
        serving(url, folder, port) as pid,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=OPERATOR_AUTH) as http,
    ):

        async def up() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return (await http.get("/healthz")).status_code == 200
            return False

        await eventually(up)
        for _ in range(5):
            page = (await http.get("/requests", params={"state": "waiting"})).json()
            metrics = (await http.get("/metrics")).text
        assert len(page["requests"]) == 50
        assert f'emqx_gpt_open{{flow="alarm",state="waiting"}} {float(count)}' in metrics
        return resident(pid)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_it_costs_no_memory_to_wait(
    kind: str, postgres: Postgres, tmp_path: Path, unused_tcp_port_factory: Any
) -> None:
    sizes = []
    for count in (100, 100_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        url = f"sqlite:///{folder / 'w.db'}" if kind == "sqlite" else postgres.fresh()
        sizes.append(await measured(url, folder, unused_tcp_port_factory(), count))
    few, many = sizes
    assert many - few < SPARE, sizes
