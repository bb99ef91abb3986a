"""SQLite: a thread that writes and two that read; each transaction is one hop."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from service.errors import StoreUnusable
from service.store import migrate
from service.store.failures import word
from service.store.notices import Notice

T = TypeVar("T")
BUSY_MS = 2000
_OLDEST = (3, 38)  # RETURNING, and JSON as a matter of course
_PRAGMAS = (
    f"busy_timeout={BUSY_MS}",
    "synchronous=FULL",
    "foreign_keys=ON",
    "cache_size=-16384",
    "wal_autocheckpoint=4000",
    "journal_size_limit=67108864",
    "temp_store=MEMORY",
)


class Thread:
    """One connection, used by one thread only. After an error it is opened anew."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"store-{name}")
        self._connection: Connection | None = None
        self._synchronous = "FULL"

    async def run(self, work: Callable[[Connection], T], synchronous: str = "FULL") -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._transaction, work, synchronous)

    def _transaction(self, work: Callable[[Connection], T], synchronous: str) -> T:
        if self._connection is None:
            self._connection = self._engine.connect()
            self._synchronous = "FULL"
        if synchronous != self._synchronous:
            driver: Any = self._connection.connection.driver_connection
            driver.execute(f"PRAGMA synchronous={synchronous}")  # NORMAL: no wait at commit
            self._synchronous = synchronous
        try:
            with self._connection.begin():
                return work(self._connection)
        except DBAPIError:
            self._disconnect()
            raise

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, self._disconnect)
        self._executor.shutdown()


class SqliteDatabase:
    """The embedded default, for one serving process. Others may look and retry."""

    concurrent = False

    def __init__(self, url: URL) -> None:
        assert url.database is not None
        self._path = Path(url.database)
        self._url = url
        self._threads: list[Thread] = []

    async def open(self) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise StoreUnusable(f"SQLite {sqlite3.sqlite_version} is too old: 3.38 or later")
        await asyncio.get_running_loop().run_in_executor(None, self._prepare)
        self._threads = [
            Thread(_engine(self._url, "IMMEDIATE"), "writer"),
            Thread(_engine(self._url, "DEFERRED"), "reader"),
            Thread(_engine(self._url, "DEFERRED"), "viewer"),
        ]

    def _prepare(self) -> None:
        try:
            _create_file(self._path)
            migrate.sqlite(_bare_engine(self._url), self._path)
        except (OSError, DBAPIError) as error:
            raise StoreUnusable(f"{self._path}: {word(error)}") from error

    async def write(self, work: Callable[[Connection], T], *, must_last: bool = True) -> T:
        return await self._threads[0].run(work, "FULL" if must_last else "NORMAL")

    async def read(self, work: Callable[[Connection], T], *, hot: bool = False) -> T:
        return await self._threads[1 if hot else 2].run(work)

    def listen(self, heard: Callable[[Notice], None], joined: Callable[[], None]) -> None:
        """There is nobody else to hear."""

    async def close(self) -> None:
        for thread in self._threads:
            await thread.close()
        self._threads = []


def _create_file(path: Path) -> None:
    """With messages of people inside, it is for our eyes only."""
    if not path.parent.is_dir():
        raise StoreUnusable(f"{path}: the directory {path.parent} does not exist")
    if path.is_dir():
        raise StoreUnusable(f"{path} is a directory; name a file")
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _bare_engine(url: URL) -> Engine:
    """Takes no transaction by itself and changes nothing in the file it opens."""
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA busy_timeout=10000")

    return engine


def _engine(url: URL, begin: str) -> Engine:
    engine = create_engine(
        url, poolclass=NullPool, hide_parameters=True, connect_args={"check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {begin}")

    return engine
