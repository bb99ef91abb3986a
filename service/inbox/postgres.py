"""PostgreSQL: a pool of asyncpg connections, and one that listens to the other replicas."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any, TypeVar

import asyncpg
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from service.errors import StoreUnusable
from service.inbox import migrations, notices
from service.inbox.database import postgres_arguments, reason, shown
from service.inbox.rows import Notice
from service.inbox.sql import SqlConnection

T = TypeVar("T")
log = logging.getLogger(__name__)
_POOL = 8
_LISTEN_CHECK = 15.0


class PostgresDatabase:
    """Any number of processes on one database."""

    concurrent = True

    def __init__(self, url: URL) -> None:
        self._arguments = postgres_arguments(url)
        self._place = shown(url)
        self._engine: AsyncEngine | None = None
        self._listener: asyncio.Task[None] | None = None

    async def open(self) -> None:
        engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._connect,
            pool_size=_POOL,
            max_overflow=0,
            pool_timeout=5,
            hide_parameters=True,
        )
        try:
            async with engine.begin() as connection:
                await connection.run_sync(migrations.postgres, self._place)
        except (DBAPIError, OSError, TimeoutError, asyncpg.PostgresError) as error:
            await engine.dispose()
            raise StoreUnusable(f"{self._place}: {reason(error)}") from None
        except BaseException:
            await engine.dispose()
            raise
        self._engine = engine

    async def _connect(self) -> Any:
        return await asyncpg.connect(**self._arguments)

    async def write(self, work: Callable[[SqlConnection], T], *, must_last: bool = True) -> T:
        """Always lasts: here workers outlive the server, and a fence must not come twice."""
        assert self._engine is not None
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def read(self, work: Callable[[SqlConnection], T]) -> T:
        return await self.write(work)

    def listen(self, heard: Callable[[Notice], None], joined: Callable[[], None]) -> None:
        """`joined` is called whenever something may have been missed."""
        self._listener = asyncio.get_running_loop().create_task(self._listen(heard, joined))

    async def _listen(self, heard: Callable[[Notice], None], joined: Callable[[], None]) -> None:
        wait = 0.1
        while True:
            try:
                connection = await self._connect()
                wait = 0.1
                try:
                    await self._hear(connection, heard, joined)
                finally:
                    connection.terminate()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.info("not listening to the database: %s; trying again", reason(error))
            await asyncio.sleep(wait * random.uniform(0.5, 1))
            wait = min(5.0, wait * 2)

    async def _hear(
        self,
        connection: Any,
        heard: Callable[[Notice], None],
        joined: Callable[[], None],
    ) -> None:
        """Until the connection is gone. A silent one is asked now and then."""
        gone = asyncio.Event()
        connection.add_termination_listener(lambda _: gone.set())
        await connection.add_listener(
            notices.CHANNEL, lambda _c, _pid, _channel, text: heard(notices.unpack(text))
        )
        joined()
        while not gone.is_set():
            try:
                await asyncio.wait_for(gone.wait(), _LISTEN_CHECK)
            except TimeoutError:
                await connection.execute("SELECT 1", timeout=5)

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
            self._listener = None
        if self._engine is not None:
            await self._engine.dispose()
            self._engine = None
