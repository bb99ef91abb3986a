"""What a database error means: try again, wait, or one row that it will never take."""

from __future__ import annotations

import asyncio
import sqlite3
from enum import Enum, auto

from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout


class Kind(Enum):
    REPEAT = auto()  # lost a race, or the connection: the same again at once
    BUSY = auto()  # full, locked, away: nothing was written; later
    ROW = auto()  # something about what was to be written


# Classes of SQLSTATE: connection, transaction rollback, resources, intervention, system.
_REPEAT = ("08", "40", "57P0", "0A000")  # 0A000: a plan made before a migration
_BUSY = ("53", "55P03", "57", "58", "25006", "25P03", "XX")


def kind(error: BaseException) -> Kind:
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "sqlstate", None) or ""
        if error.connection_invalidated or state.startswith(_REPEAT):
            return Kind.REPEAT
        if state.startswith(_BUSY) or (not state and isinstance(error, OperationalError)):
            return Kind.BUSY
        return _of_driver(error.orig)
    if isinstance(error, PoolTimeout | OSError | asyncio.TimeoutError | sqlite3.OperationalError):
        return Kind.BUSY
    return Kind.ROW


def _of_driver(error: BaseException | None) -> Kind:
    """Drivers raise some things without a code: asyncpg, that its connection is gone."""
    cause = error.__cause__ if error is not None else None
    if isinstance(cause, OSError | asyncio.TimeoutError):
        return Kind.BUSY
    if type(cause).__name__ in ("InterfaceError", "ConnectionDoesNotExistError"):
        return Kind.REPEAT
    return Kind.ROW


def word(error: BaseException) -> str:
    """The first line of what the driver said: no statement, no parameters."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    elif isinstance(error, SQLAlchemyError):
        return str(error).split("\n", 1)[0]
    text = str(error).strip().split("\n", 1)[0]
    return text or type(error).__name__
