"""Lanes of group commit over one database, and what is told after each commit."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from service.errors import StoreBusy, StoreError
from service.inbox import reads
from service.inbox.apply import Applied, apply, must_last
from service.inbox.commit import GroupCommit, Op
from service.inbox.database import connect
from service.inbox.failures import Kind, kind, word
from service.inbox.notices import Notice
from service.inbox.sql import Link, Tx
from service.inbox.values import Change

log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")
_REPEATS = 4
_COUNT_EVERY = 5.0


class Engine:
    """Submits, commits, repeats what lost a race, and tells.

    SQLite has one writer, so everything shares its transactions. PostgreSQL gets three
    lanes side by side: what comes in, what lease holders write, and claims.
    """

    def __init__(
        self,
        url: str,
        *,
        now: Callable[[], int],
        on_change: Callable[[Sequence[Change]], None] | None,
        on_wake: Callable[[], None] | None,
    ) -> None:
        self._database = connect(url)
        self._now = now
        self._on_change = on_change
        self._on_wake = on_wake
        self._origin = uuid.uuid4().hex
        self._work = GroupCommit(self._commit)
        several = self._database.concurrent
        self._intake = GroupCommit(self._commit) if several else self._work
        self._claims = GroupCommit(self._commit) if several else self._work
        self._counting: asyncio.Task[None] | None = None
        self.backlog = 0
        self.trouble: str | None = None
        self.submit = self._work.submit
        self.claim = self._claims.submit

    async def open(self) -> None:
        await self._database.open()
        self.backlog = await self.view(reads.backlog)
        self._database.listen(self._heard, self._wake)
        self._counting = asyncio.get_running_loop().create_task(self._count())

    async def close(self) -> None:
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.gather(self._counting, return_exceptions=True)
        for lane in (self._intake, self._claims, self._work):
            await lane.close()
        await self._database.close()

    def intake(
        self,
        step: Callable[[Tx, Sequence[T]], Sequence[R]],
        item: T,
        *,
        weight: int = 0,
        timeout: float | None = None,
    ) -> asyncio.Future[R]:
        """What comes in. Where all share a transaction, its claim goes along in the same."""
        future = self._intake.submit(step, item, weight=weight, timeout=timeout)
        if self._intake is self._work:
            self._wake()
        return future

    async def submit_all(
        self, step: Callable[[Tx, Sequence[T]], Sequence[R]], items: Sequence[T]
    ) -> list[R]:
        return await asyncio.gather(*(self._work.submit(step, item) for item in items))

    async def view(self, look: Callable[[Tx], T]) -> T:
        """Read; whatever goes wrong is `StoreBusy`."""

        def work(link: Link) -> T:
            return look(Tx(link, self._now()))

        try:
            return await self._repeating(lambda: self._database.read(work))
        except StoreError:
            raise
        except Exception as error:
            raise self._refused(error) from error

    async def _repeating(self, work: Callable[[], Awaitable[T]]) -> T:
        """Again, if it lost a race or its connection; `StoreBusy` if it has to wait."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return await work()
            except Exception as error:
                meaning = kind(error)
                if meaning is Kind.ROW:
                    raise
                if meaning is Kind.BUSY or attempt == _REPEATS:
                    raise StoreBusy(f"the database can't be used now: {word(error)}") from error
            await asyncio.sleep(random.uniform(0, 0.02 * attempt))

    async def _commit(self, ops: list[Op]) -> Sequence[Any]:
        """All in one transaction; if a row is refused, each in its own."""
        now = self._now()

        def work(link: Link) -> Applied:
            return apply(link, ops, now, self._origin)

        try:
            applied = await self._repeating(
                lambda: self._database.write(work, must_last=must_last(ops))
            )
        except StoreBusy as error:
            self.trouble = error.message
            return [error] * len(ops)
        except Exception as error:
            if len(ops) == 1:
                return [self._refused(error)]
            return [(await self._commit([op]))[0] for op in ops]
        self.trouble = None
        self.backlog = max(0, self.backlog + applied.opened)
        self._tell(applied.changes, applied.wake)
        return applied.results

    def _refused(self, error: Exception) -> Exception:
        return StoreError(f"the database refused it: {word(error)}")

    def _tell(self, changes: Sequence[Change], wake: bool) -> None:
        """A listener's fault must not reach those whose commit is done."""
        try:
            if changes and self._on_change is not None:
                self._on_change(changes)
            if wake and self._on_wake is not None:
                self._on_wake()
        except Exception:
            log.exception("a listener of the store failed")

    def _wake(self) -> None:
        self._tell((), True)

    def _heard(self, notice: Notice) -> None:
        """From another process; our own commits were told when they were done."""
        if notice.origin != self._origin:
            self._tell(notice.changes, notice.wake)

    async def _count(self) -> None:
        """Other processes add and end requests too, so count now and then, not too dearly."""
        wait = _COUNT_EVERY
        while True:
            await asyncio.sleep(wait)
            begun = time.monotonic()
            try:
                counted = await self.view(reads.backlog)
            except StoreError:
                continue
            self.backlog = counted
            wait = max(_COUNT_EVERY, 50 * (time.monotonic() - begun))
