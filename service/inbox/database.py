"""What the store needs of a database, and which one a URL means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from service.inbox.notices import Notice
from service.inbox.sql import Link
from service.inbox.url import parse

T = TypeVar("T")


class Database(Protocol):
    """Runs plain functions over a Link, each in one transaction."""

    concurrent: bool
    """Whether it can write on several connections at a time."""

    async def open(self) -> None: ...

    async def write(self, work: Callable[[Link], T], *, must_last: bool = True) -> T:
        """`must_last`: it survives a power cut once this returns."""
        ...

    async def read(self, work: Callable[[Link], T]) -> T: ...

    def listen(self, heard: Callable[[Notice], None], joined: Callable[[], None]) -> None: ...

    async def close(self) -> None: ...


def connect(text: str) -> Database:
    """Not opened yet. Imports only the driver that is needed."""
    url = parse(text)
    if url.drivername == "sqlite":
        from service.inbox.sqlite import SqliteDatabase

        return SqliteDatabase(url)
    from service.inbox.postgres import PostgresDatabase

    return PostgresDatabase(url)
