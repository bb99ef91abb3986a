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
from typing import TypeVar

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from service.errors import StoreUnusable
from service.inbox import migrations
from service.inbox.database import reason
from service.inbox.rows import Notice

T = TypeVar("T")
BUSY_MS = 2000
_OLDEST = (3, 38)  # RETURNING, and JSON as a matter of course
_CHECKPOINT_EVERY = 0.25  # seconds, while there are writes
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

    def __init__(self, url: URL, begin: str, name: str) -> None:
        self._engine = _engine(url)
        self._begin = f"BEGIN {begin}"
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"inbox-{name}")
        self._connection: Connection | None = None
        self._synchronous = "FULL"

    async def run(self, work: Callable[[Connection], T], synchronous: str = "FULL") -> T:
        """`work` in a transaction."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._transaction, work, synchronous)

    async def execute(self, statement: str) -> None:
        """A statement that stands outside of transactions; nobody hears of its errors."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._executor, self._alone, statement)

    def _alone(self, statement: str) -> None:
        try:
            connection = self._connected()
            connection.exec_driver_sql(statement).all()
            connection.commit()
        except DBAPIError:
            self._disconnect()

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
            for pragma in _PRAGMAS:
                self._connection.exec_driver_sql(f"PRAGMA {pragma}")
            self._synchronous = "FULL"
        return self._connection

    def _transaction(self, work: Callable[[Connection], T], synchronous: str) -> T:
        try:
            connection = self._connected()
            try:
                if synchronous != self._synchronous:
                    # NORMAL: no wait at commit
                    connection.exec_driver_sql(f"PRAGMA synchronous={synchronous}")
                    self._synchronous = synchronous
                connection.exec_driver_sql(self._begin)
                result = work(connection)
                connection.commit()
            except BaseException:
                with suppress(DBAPIError):
                    connection.rollback()
                raise
        except DBAPIError:
            self._disconnect()
            raise
        return result

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
        self._checkpointing: asyncio.Future[None] | None = None
        self._checkpoint_at = 0.0

    async def open(self) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise StoreUnusable(f"SQLite {sqlite3.sqlite_version} is too old: 3.38 or later")
        await asyncio.get_running_loop().run_in_executor(None, self._prepare)
        self._threads = [
            Thread(self._url, "IMMEDIATE", "writer"),
            Thread(self._url, "DEFERRED", "viewer"),
            Thread(self._url, "DEFERRED", "checkpoint"),
        ]

    def _prepare(self) -> None:
        try:
            _create_file(self._path)
            migrations.sqlite(_engine(self._url), self._path)
        except (OSError, DBAPIError) as error:
            raise StoreUnusable(f"{self._path}: {reason(error)}") from error

    async def write(self, work: Callable[[Connection], T], *, must_last: bool = True) -> T:
        result = await self._threads[0].run(work, "FULL" if must_last else "NORMAL")
        self._checkpoint()
        return result

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await self._threads[1].run(work)

    def _checkpoint(self) -> None:
        """The log into the database, beside the writer: else a commit now and then has to."""
        now = time.monotonic()
        running = self._checkpointing is not None and not self._checkpointing.done()
        if now >= self._checkpoint_at and not running:
            self._checkpoint_at = now + _CHECKPOINT_EVERY
            checkpoint = self._threads[2].execute("PRAGMA wal_checkpoint(PASSIVE)")
            self._checkpointing = asyncio.ensure_future(checkpoint)

    def listen(self, heard: Callable[[Notice], None], joined: Callable[[], None]) -> None:
        """There is nobody else to hear."""

    async def close(self) -> None:
        if self._checkpointing is not None:
            await self._checkpointing
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


def _engine(url: URL) -> Engine:
    """Its connections begin no transaction by themselves, and change nothing in the file."""
    return create_engine(
        url,
        poolclass=NullPool,
        pool_reset_on_return=None,
        hide_parameters=True,
        connect_args={"isolation_level": None, "check_same_thread": False, "timeout": 10},
    )
