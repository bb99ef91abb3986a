"""DATABASE_URL: which database it means, what the inbox needs of one, what its errors mean."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Protocol, TypeVar

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.errors import StoreUnusable
from service.inbox.rows import Notice
from service.inbox.sql import SqlConnection

T = TypeVar("T")


class Database(Protocol):
    """Runs plain functions over a connection, each in one transaction."""

    concurrent: bool
    """Whether it can write on several connections at a time."""

    async def open(self) -> None: ...

    async def write(self, work: Callable[[SqlConnection], T], *, must_last: bool = True) -> T:
        """`must_last`: it survives a power cut once this returns."""
        ...

    async def read(self, work: Callable[[SqlConnection], T]) -> T: ...

    def listen(self, heard: Callable[[Notice], None], joined: Callable[[], None]) -> None: ...

    async def close(self) -> None: ...


# The URL. What is said of it never holds a password.

_FORMS = "sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
_SQLITE = ("sqlite", "sqlite+pysqlite", "sqlite+aiosqlite")
_POSTGRES = ("postgresql", "postgres", "postgresql+asyncpg", "postgres+asyncpg")


def parse(text: str) -> URL:
    """Checked, and with the driver that we use. Raises StoreUnusable."""
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError, TypeError) as error:
        raise StoreUnusable(f"DATABASE_URL is not a database URL; write {_FORMS}") from error
    if url.drivername in _SQLITE:
        return _sqlite(url)
    if url.drivername in _POSTGRES:
        return _postgres(url)
    raise StoreUnusable(f"DATABASE_URL has the unknown scheme {url.drivername!r}; write {_FORMS}")


def _sqlite(url: URL) -> URL:
    if url.host or url.username or url.password:
        raise StoreUnusable("DATABASE_URL: sqlite takes three slashes and a file: sqlite:///FILE")
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise StoreUnusable("DATABASE_URL: sqlite needs a file, so that nothing is lost")
    if url.query:
        raise StoreUnusable("DATABASE_URL: sqlite takes no options after '?'")
    return url.set(drivername="sqlite")


def _postgres(url: URL) -> URL:
    known = {"host", "port", "sslmode", "ssl", "application_name", "options", "connect_timeout"}
    unknown = sorted(set(url.query) - known - {"channel_binding", "target_session_attrs"})
    if unknown:
        raise StoreUnusable(f"DATABASE_URL: unknown option {unknown[0]!r}")
    return url.set(drivername="postgresql+asyncpg")


def postgres_arguments(url: URL) -> dict[str, Any]:
    """What asyncpg.connect takes; libpq's names, which every provider prints, translated."""
    query = {k: v if isinstance(v, str) else v[-1] for k, v in url.query.items()}
    settings = {
        "application_name": query.get("application_name", "emqx-gpt"),
        # A process that stands still must not keep others waiting with what it locked.
        "idle_in_transaction_session_timeout": "5000",
        "lock_timeout": "2000",
        "statement_timeout": "15000",
        # Plans for a queue: many short look-ups, in pages that are in memory anyway.
        "jit": "off",
        "random_page_cost": "1.1",
    }
    for name, value in re.findall(r"-c\s*([\w.]+)=(\S+)", query.get("options", "")):
        settings[name] = value
    arguments: dict[str, Any] = {
        "host": query.get("host") or url.host,
        "port": int(query.get("port") or url.port or 5432),
        "user": url.username,
        "password": url.password,
        "database": url.database,
        "timeout": float(query.get("connect_timeout", 3)),
        "command_timeout": 15.0,
        "server_settings": settings,
        "ssl": query.get("sslmode") or query.get("ssl") or None,
        "target_session_attrs": query.get("target_session_attrs"),
    }
    return {name: value for name, value in arguments.items() if value is not None}


def shown(url: URL) -> str:
    return url.set(query={}).render_as_string(hide_password=True).replace("+asyncpg", "")


# Errors.


class Failure(Enum):
    REPEAT = auto()  # lost a race, or the connection: the same again at once
    BUSY = auto()  # full, locked, away: nothing was written; later
    ROW = auto()  # something about what was to be written


# Classes of SQLSTATE: connection, transaction rollback, resources, intervention, system.
_REPEAT = ("08", "40", "57P0", "0A000")  # 0A000: a plan made before a migration
_BUSY = ("53", "55P03", "57", "58", "25006", "25P03", "XX")


def classify(error: BaseException) -> Failure:
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "sqlstate", None) or ""
        if error.connection_invalidated or state.startswith(_REPEAT):
            return Failure.REPEAT
        if state.startswith(_BUSY) or (not state and isinstance(error, OperationalError)):
            return Failure.BUSY
        return _of_driver(error.orig)
    if isinstance(error, PoolTimeout | OSError | asyncio.TimeoutError | sqlite3.OperationalError):
        return Failure.BUSY
    return Failure.ROW


def _of_driver(error: BaseException | None) -> Failure:
    """Drivers raise some things without a code: asyncpg, that its connection is gone."""
    cause = error.__cause__ if error is not None else None
    if isinstance(cause, OSError | asyncio.TimeoutError):
        return Failure.BUSY
    if type(cause).__name__ in ("InterfaceError", "ConnectionDoesNotExistError"):
        return Failure.REPEAT
    return Failure.ROW


def reason(error: BaseException) -> str:
    """The first line of what the driver said: no statement, no parameters."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    elif isinstance(error, SQLAlchemyError):
        return str(error).split("\n", 1)[0]
    text = str(error).strip().split("\n", 1)[0]
    return text or type(error).__name__
