"""Group commit: whoever waits is served together, in one transaction.

There is no delay on purpose. While one transaction runs, the next batch gathers; a lone
caller starts one at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from service.errors import StoreBusy, StoreError
from service.inbox import reads
from service.inbox.database import Database, Failure, classify, parse, reason
from service.inbox.rows import Change, Notice
from service.inbox.sql import SqlConnection, Tx
from service.inbox.transaction import Executed, Op, execute, must_last

log = logging.getLogger(__name__)
T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_ITEMS = 500
MAX_WEIGHT = 16 << 20
_REPEATS = 4
_COUNT_EVERY = 5.0


def connect(text: str) -> Database:
    """Not opened yet. Imports only the driver that is needed."""
    url = parse(text)
    if url.drivername == "sqlite":
        from service.inbox.sqlite import SqliteDatabase

        return SqliteDatabase(url)
    from service.inbox.postgres import PostgresDatabase

    return PostgresDatabase(url)


def _resolve(batch: Sequence[Op], results: Sequence[Any]) -> None:
    """Each its result or exception, unless it heard already."""
    for op, result in zip(batch, results, strict=True):
        if op.future.done():
            continue
        if isinstance(result, Exception):
            op.future.set_exception(result)
        else:
            op.future.set_result(result)


class GroupCommit:
    """Runs what is submitted in batches, one at a time, in a task of its own.

    So a caller that is cancelled takes nobody down, and what it submitted is done all the
    same. `run` returns a result or an exception for each.
    """

    def __init__(self, run: Callable[[list[Op]], Awaitable[Sequence[Any]]]) -> None:
        self._run = run
        self._pending: deque[Op] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def submit(
        self,
        work: Callable[[Tx, Sequence[Item]], Sequence[Result]],
        item: Item,
        *,
        weight: int = 0,
        timeout: float | None = None,
    ) -> asyncio.Future[Result]:
        """`timeout` is for callers who must answer somebody: not begun by then, not done."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        if self._closed:
            future.set_exception(StoreBusy("the store is closing"))
            return future
        op = Op(work, item, weight, future)
        self._pending.append(op)
        if timeout is not None:
            timer = loop.call_later(timeout, self._too_late, op)
            future.add_done_callback(lambda _: timer.cancel())
        if self._task is None:
            self._task = loop.create_task(self._drain())
        return future

    def _too_late(self, op: Op) -> None:
        if not op.future.done():
            op.future.set_exception(StoreBusy("the database did not answer in time"))
            with suppress(ValueError):  # being written already: a copy will be a duplicate
                self._pending.remove(op)

    def _batch(self) -> list[Op]:
        batch: list[Op] = []
        weight = 0
        while self._pending and len(batch) < MAX_ITEMS and weight < MAX_WEIGHT:
            op = self._pending.popleft()
            batch.append(op)
            weight += op.weight
        return batch

    async def _drain(self) -> None:
        batch: list[Op] = []
        try:
            await asyncio.sleep(0)  # whom the same event woke comes along
            while self._pending:
                batch = self._batch()
                _resolve(batch, await self._run(batch))
        except BaseException as error:
            stopped = StoreBusy(f"the store stopped: {error!r}")
            batch += self._pending
            _resolve(batch, [stopped] * len(batch))
            self._pending.clear()
            raise
        finally:
            self._task = None

    async def close(self) -> None:
        """Nothing new; what was submitted is still done."""
        self._closed = True
        if self._task is not None:
            await asyncio.shield(self._task)


class Engine:
    """Submits, commits, repeats what lost a race, and tells.

    SQLite has one writer, so everything shares its transactions. PostgreSQL gets lanes
    side by side: what comes in, what lease holders write, claims, and readings.
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
        self._readings = GroupCommit(self._commit) if several else self._work
        self._counting: asyncio.Task[None] | None = None
        self.backlog = 0
        self.trouble: str | None = None
        self.submit = self._work.submit
        self.claim = self._claims.submit
        self.read_in = self._readings.submit

    async def open(self) -> None:
        await self._database.open()
        self.backlog = await self.view(reads.backlog)
        self._database.listen(self._heard, self._wake)
        self._counting = asyncio.get_running_loop().create_task(self._count())

    async def close(self) -> None:
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.gather(self._counting, return_exceptions=True)
        for lane in (self._intake, self._claims, self._readings, self._work):
            await lane.close()
        await self._database.close()

    def intake(
        self,
        work: Callable[[Tx, Sequence[Item]], Sequence[Result]],
        item: Item,
        *,
        weight: int = 0,
        timeout: float | None = None,
    ) -> asyncio.Future[Result]:
        """What comes in. Where all share a transaction, its claim goes along in the same."""
        future = self._intake.submit(work, item, weight=weight, timeout=timeout)
        if self._intake is self._work:
            self._wake()
        return future

    async def submit_all(
        self, work: Callable[[Tx, Sequence[Item]], Sequence[Result]], items: Sequence[Item]
    ) -> list[Result]:
        return await asyncio.gather(*(self._work.submit(work, item) for item in items))

    async def view(self, look: Callable[[Tx], T]) -> T:
        """Read; whatever goes wrong is `StoreBusy`."""

        def work(connection: SqlConnection) -> T:
            return look(Tx(connection, self._now()))

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
                failure = classify(error)
                if failure is Failure.ROW:
                    raise
                if failure is Failure.BUSY or attempt == _REPEATS:
                    raise StoreBusy(f"the database can't be used now: {reason(error)}") from error
            await asyncio.sleep(random.uniform(0, 0.02 * attempt))

    async def _commit(self, ops: list[Op]) -> Sequence[Any]:
        """All in one transaction; if a row is refused, each in its own."""
        now = self._now()

        def work(connection: SqlConnection) -> Executed:
            return execute(connection, ops, now, self._origin)

        lasting = must_last(ops)
        try:
            done = await self._repeating(lambda: self._database.write(work, must_last=lasting))
        except StoreBusy as error:
            self.trouble = error.message
            return [error] * len(ops)
        except Exception as error:
            if len(ops) == 1:
                return [self._refused(error)]
            return [(await self._commit([op]))[0] for op in ops]
        self.trouble = None
        self.backlog = max(0, self.backlog + done.opened)
        self._tell(done.changes, done.wake)
        return done.results

    def _refused(self, error: Exception) -> Exception:
        return StoreError(f"the database refused it: {reason(error)}")

    def _tell(self, changes: Sequence[Change], wake: bool) -> None:
        """A listener's fault must not reach those whose commit is done."""
        try:
            if changes and self._on_change is not None:
                self._on_change(changes)
            if wake and self._on_wake is not None:
                self._on_wake()
        except Exception:
            log.exception("a listener of the inbox failed")

    def _wake(self) -> None:
        self._tell((), True)

    def _heard(self, notice: Notice) -> None:
        """From another process; our own commits were told when they were done."""
        if notice.origin != self._origin:
            self._tell(notice.changes, notice.wake)

    async def _count(self) -> None:
        """Other processes add and end requests too: at most 2 % of the time goes into counting."""
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
