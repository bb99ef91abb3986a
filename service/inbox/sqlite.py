"""SQLite: a thread that writes, one that reads, one that tidies; a transaction is one hop."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from service.errors import StoreUnusable
from service.inbox import migrate
from service.inbox.failures import word
from service.inbox.notices import Notice
from service.inbox.prepared import Prepared
from service.inbox.sql import Link

T = TypeVar("T")
BUSY_MS = 2000
_OLDEST = (3, 38)  # RETURNING, and JSON as a matter of course
_FOLD_EVERY = 0.25  # seconds, while there are writes
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

    def __init__(self, path: Path, begin: str, name: str) -> None:
        self._path = path
        self._begin = begin
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"store-{name}")
        self._link: Prepared | None = None
        self._synchronous = "FULL"

    async def run(self, work: Callable[[Link], T], synchronous: str = "FULL") -> T:
        """`work` in a transaction."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._transaction, work, synchronous)

    async def execute(self, statement: str) -> None:
        """A statement that stands outside of transactions; nobody hears of its errors."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._executor, self._alone, statement)

    def _alone(self, statement: str) -> None:
        try:
            self._connected().driver.execute(statement).fetchall()
        except sqlite3.Error:
            self._disconnect()

    def _connected(self) -> Prepared:
        if self._link is None:
            self._link = Prepared(_connect(self._path))
            self._synchronous = "FULL"
        return self._link

    def _transaction(self, work: Callable[[Link], T], synchronous: str) -> T:
        try:
            link = self._connected()
            if synchronous != self._synchronous:
                # NORMAL: no wait at commit
                link.driver.execute(f"PRAGMA synchronous={synchronous}")
                self._synchronous = synchronous
            link.driver.execute(f"BEGIN {self._begin}")
            try:
                result = work(link)
                link.driver.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk has done it already
                    link.driver.execute("ROLLBACK")
                raise
        except sqlite3.Error:
            self._disconnect()
            raise
        return result

    def _disconnect(self) -> None:
        if self._link is not None:
            link, self._link = self._link, None
            link.driver.close()

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
        self._folding: asyncio.Future[None] | None = None
        self._fold_at = 0.0

    async def open(self) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise StoreUnusable(f"SQLite {sqlite3.sqlite_version} is too old: 3.38 or later")
        await asyncio.get_running_loop().run_in_executor(None, self._prepare)
        self._threads = [
            Thread(self._path, "IMMEDIATE", "writer"),
            Thread(self._path, "DEFERRED", "viewer"),
            Thread(self._path, "DEFERRED", "folder"),
        ]

    def _prepare(self) -> None:
        try:
            _create_file(self._path)
            migrate.sqlite(_bare_engine(self._url), self._path)
        except (OSError, DBAPIError) as error:
            raise StoreUnusable(f"{self._path}: {word(error)}") from error

    async def write(self, work: Callable[[Link], T], *, must_last: bool = True) -> T:
        result = await self._threads[0].run(work, "FULL" if must_last else "NORMAL")
        self._fold()
        return result

    async def read(self, work: Callable[[Link], T]) -> T:
        return await self._threads[1].run(work)

    def _fold(self) -> None:
        """The log into the database, beside the writer: else a commit now and then has to."""
        now = time.monotonic()
        if now >= self._fold_at and (self._folding is None or self._folding.done()):
            self._fold_at = now + _FOLD_EVERY
            folding = self._threads[2].execute("PRAGMA wal_checkpoint(PASSIVE)")
            self._folding = asyncio.ensure_future(folding)

    def listen(self, heard: Callable[[Notice], None], joined: Callable[[], None]) -> None:
        """There is nobody else to hear."""

    async def close(self) -> None:
        if self._folding is not None:
            await self._folding
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


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    return connection
