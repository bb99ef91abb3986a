"""EMQX's buffer worker: what it keeps, sends again, drops, and in which order.

Running, it has up to `inflight_window` requests under way. One that can be sent again (503, 429,
lost connection; not one that met a reset when it was about to go out) blocks the worker: every
`resume` seconds the oldest such request is tried, one at a time, until none is left; only then do
new ones go out. All others overtake it meanwhile, which is why a window of 1 keeps order and one
of 100 does not.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from service.demo.standin.raw_http import Lost, Unsendable

RETRIED_STATUSES = (429, 503)


class Outcome(Enum):
    """What became of a message."""

    DONE = "done"
    AGAIN = "again"
    FAILED = "failed"
    EXPIRED = "expired"
    LATE = "late_reply"  # answered, but past its request_ttl
    OVERFLOW = "queue_full"


@dataclass(eq=False, slots=True)
class Query:
    """One message on its way. `expires` in the loop's seconds."""

    request: bytes
    expires: float
    finished: Callable[[Query, Outcome], None]
    label: str
    reason: str = ""
    again: bool = field(default=False)
    order: int = field(default_factory=itertools.count(1).__next__)


@dataclass(frozen=True, slots=True)
class Limits:
    """An action's resource_opts, in seconds and bytes."""

    inflight_window: int
    max_buffer_bytes: int
    resume: float
    attempts: int


class Worker:
    """One of an action's `worker_pool_size` buffers."""

    def __init__(
        self,
        limits: Limits,
        send: Callable[[bytes, int], asyncio.Future[int]],
        is_connected: Callable[[], bool],
        counters: Counter[str],
    ) -> None:
        self._limits = limits
        self._send = send
        self._is_connected = is_connected
        self._counters = counters
        self._queue: deque[Query] = deque()
        self._inflight: dict[Query, asyncio.Task[None] | None] = {}
        self._resuming: asyncio.Task[None] | None = None
        self.queuing_bytes = 0

    @property
    def queuing(self) -> int:
        return len(self._queue)

    @property
    def inflight(self) -> int:
        return len(self._inflight)

    def offer(self, query: Query) -> None:
        """Takes a message; the oldest ones go when the buffer is full."""
        self._queue.append(query)
        self.queuing_bytes += len(query.request)
        while self.queuing_bytes > self._limits.max_buffer_bytes:
            query.finished(self._pop(), Outcome.OVERFLOW)
        self._flush()

    async def close(self) -> None:
        tasks = [task for task in (*self._inflight.values(), self._resuming) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _pop(self) -> Query:
        query = self._queue.popleft()
        self.queuing_bytes -= len(query.request)
        return query

    def _flush(self) -> None:
        while self._queue and self._resuming is None:
            if len(self._inflight) >= self._limits.inflight_window:
                return
            query = self._pop()
            if _expired(query):
                query.finished(query, Outcome.EXPIRED)
            elif self._is_connected():
                self._inflight[query] = asyncio.create_task(self._first(query))
            else:
                self._inflight[query] = None
                self._block(query)

    async def _first(self, query: Query) -> None:
        outcome = await self._attempt(query)
        if outcome is Outcome.AGAIN:
            self._inflight[query] = None
            self._block(query)
        else:
            self._finish(query, outcome)

    async def _attempt(self, query: Query) -> Outcome:
        """Asks up to `attempts` times in a row, as EMQX's HTTP connector does by itself."""
        for _ in range(self._limits.attempts):
            try:
                status = await self._send(query.request, query.order)
            except Lost as exc:
                query.reason = str(exc)
                continue
            except Unsendable as exc:
                query.reason = str(exc)
                return Outcome.FAILED
            query.reason = f"status {status}"
            if 200 <= status < 300:
                return Outcome.DONE
            if status not in RETRIED_STATUSES:
                return Outcome.FAILED
        return Outcome.AGAIN

    def _block(self, query: Query) -> None:
        query.again = True
        if self._resuming is None:
            self._resuming = asyncio.create_task(self._resume())

    async def _resume(self) -> None:
        while (query := self._oldest_to_retry()) is not None:
            if _expired(query):
                self._finish(query, Outcome.EXPIRED)
                continue
            await asyncio.sleep(self._limits.resume)
            while self._is_connected() and (query := self._oldest_to_retry()) is not None:
                if _expired(query):
                    self._finish(query, Outcome.EXPIRED)
                    continue
                self._counters["retried"] += 1
                outcome = await self._attempt(query)
                if outcome is Outcome.AGAIN:
                    break
                self._finish(query, outcome)
        self._resuming = None
        self._flush()

    def _oldest_to_retry(self) -> Query | None:
        return next((query for query in self._inflight if query.again), None)

    def _finish(self, query: Query, outcome: Outcome) -> None:
        del self._inflight[query]
        if outcome is not Outcome.EXPIRED and _expired(query):
            outcome = Outcome.LATE
        query.finished(query, outcome)
        self._flush()


def _expired(query: Query) -> bool:
    return asyncio.get_running_loop().time() >= query.expires
