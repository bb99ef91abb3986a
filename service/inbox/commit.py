"""Group commit: whoever waits is served together, in one transaction.

There is no delay on purpose. While one transaction runs, the next batch gathers; a lone
caller starts one at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from service.errors import StoreBusy
from service.inbox.sql import Tx

Item = TypeVar("Item")
Result = TypeVar("Result")
Step = Callable[[Tx, Sequence[Any]], Sequence[Any]]
"""Does one kind of thing for many items; as many results, in the same order."""

MAX_ITEMS = 500
MAX_WEIGHT = 16 << 20


@dataclass(slots=True, eq=False)
class Op:
    """One caller's part of a batch."""

    step: Step
    item: Any
    weight: int
    future: asyncio.Future[Any]


def _tell(batch: Sequence[Op], results: Sequence[Any]) -> None:
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
        step: Callable[[Tx, Sequence[Item]], Sequence[Result]],
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
        op = Op(step, item, weight, future)
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
                _tell(batch, await self._run(batch))
        except BaseException as error:
            stopped = StoreBusy(f"the store stopped: {error!r}")
            batch += self._pending
            _tell(batch, [stopped] * len(batch))
            self._pending.clear()
            raise
        finally:
            self._task = None

    async def close(self) -> None:
        """Nothing new; what was submitted is still done."""
        self._closed = True
        if self._task is not None:
            await asyncio.shield(self._task)
