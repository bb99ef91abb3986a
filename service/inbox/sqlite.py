"""SQLite: a thread that writes, one that reads, one that tidies; a transaction is one hop."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Boolean, Engine, create_engine
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from service.errors import StoreUnusable
from service.inbox import migrations
from service.inbox.database import reason
from service.inbox.rows import Notice
from service.inbox.sql import SqlConnection

T = TypeVar("T")
BUSY_MS = 2000
_DIALECT = sqlite.dialect(paramstyle="named")
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


class Rows:
    """What a statement gave, in those words of SQLAlchemy's results that the inbox uses."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> list[Any]:
        return self._rows

    def scalars(self) -> Rows:
        return Rows([row[0] for row in self._rows], self.rowcount)

    def scalar(self) -> Any:
        return self._rows[0][0] if self._rows else None

    def one(self) -> Any:
        (row,) = self._rows
        return row

    def one_or_none(self) -> Any:
        return self.one() if self._rows else None


class CompiledStatement:
    """A statement as SQLite takes it: its text, the values it has itself, its named row."""

    def __init__(self, statement: Any, names: Iterable[str]) -> None:
        compiled = statement.compile(dialect=_DIALECT, column_keys=list(names))
        if compiled.post_compile_params:
            raise TypeError(f"its text depends on its values: {compiled}")
        self.text = str(compiled)
        self.constants = {k: v for k, v in compiled.params.items() if k not in names}
        columns = list(statement.exported_columns)
        row: Any = namedtuple("row", [c.key for c in columns], rename=True)  # type: ignore[misc]
        self._row = row._make
        self._booleans = [at for at, c in enumerate(columns) if isinstance(c.type, Boolean)]

    def rows(self, cursor: sqlite3.Cursor) -> list[Any]:
        if not self._booleans:
            return list(map(self._row, cursor))
        found = []
        for values in map(list, cursor):
            for at in self._booleans:
                values[at] = None if values[at] is None else bool(values[at])
            found.append(self._row(values))
        return found


_compiled: dict[Any, CompiledStatement] = {}
"""By statement; each of ours is made once and kept (`functools.cache`)."""


class Connected:
    """A connection whose statements SQLAlchemy Core compiles once and sqlite3 runs (ADR 2)."""

    dialect = _DIALECT

    def __init__(self, path: Path) -> None:
        self.driver = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in _PRAGMAS:
            self.driver.execute(f"PRAGMA {pragma}")

    def execute(self, statement: Any, values: Any = None, /) -> Rows:
        """Raises sqlite3.Error. A list of values gives no rows."""
        several = isinstance(values, list)
        first = (values[0] if several else values) or {}
        known = _compiled.get(statement)
        if known is None:
            known = _compiled[statement] = CompiledStatement(statement, first.keys())
        if several:
            bound = [{**known.constants, **one} for one in values] if known.constants else values
            return Rows([], self.driver.executemany(known.text, bound).rowcount)
        bound = {**known.constants, **first} if known.constants else first
        cursor = self.driver.execute(known.text, bound)
        return Rows(known.rows(cursor), cursor.rowcount)


class Thread:
    """One connection, used by one thread only. After an error it is opened anew."""

    def __init__(self, path: Path, begin: str, name: str) -> None:
        self._path = path
        self._begin = f"BEGIN {begin}"
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"inbox-{name}")
        self._connection: Connected | None = None
        self._synchronous = "FULL"

    async def run(self, work: Callable[[SqlConnection], T], synchronous: str = "FULL") -> T:
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

    def _connected(self) -> Connected:
        if self._connection is None:
            self._connection = Connected(self._path)
            self._synchronous = "FULL"
        return self._connection

    def _transaction(self, work: Callable[[SqlConnection], T], synchronous: str) -> T:
        try:
            connection = self._connected()
            run = connection.driver.execute
            if synchronous != self._synchronous:
                run(f"PRAGMA synchronous={synchronous}")  # NORMAL: no wait at commit
                self._synchronous = synchronous
            run(self._begin)
            try:
                result = work(connection)
                run("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk has done it already
                    run("ROLLBACK")
                raise
        except sqlite3.Error:
            self._disconnect()
            raise
        return result

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.driver.close()

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
            Thread(self._path, "IMMEDIATE", "writer"),
            Thread(self._path, "DEFERRED", "viewer"),
            Thread(self._path, "DEFERRED", "checkpoint"),
        ]

    def _prepare(self) -> None:
        try:
            _create_file(self._path)
            migrations.sqlite(_engine(self._url), self._path)
        except PermissionError as error:
            raise StoreUnusable(
                f"{self._path} can't be written here: run it in a folder of your own, or name "
                "another file: DATABASE_URL=sqlite:///FILE"
            ) from error
        except (OSError, DBAPIError) as error:
            raise StoreUnusable(f"{self._path}: {reason(error)}") from error

    async def write(self, work: Callable[[SqlConnection], T], *, must_last: bool = True) -> T:
        result = await self._threads[0].run(work, "FULL" if must_last else "NORMAL")
        self._checkpoint()
        return result

    async def read(self, work: Callable[[SqlConnection], T]) -> T:
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
    """For migrations: begins no transaction by itself, changes nothing in the file it opens."""
    arguments = {"isolation_level": None, "timeout": 10}
    return create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=arguments)
