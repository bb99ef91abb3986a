"""Replies to the broker: what is ready together goes out together, over outages of EMQX.

A few lanes post at a time. While all are busy replies gather, and the next free lane takes up
to a hundred of them in one bulk; a lone reply finds a free lane and never waits. Deltas and
progress have a lane of their own, so that they keep their order.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import tenacity

from service.domain import Claimed, Publish
from service.emqx.publish_api import Emqx, Result
from service.errors import BrokerError
from service.llm.retry import with_retries

LANES = 3
BULK = 100
BULK_BYTES = 900_000
POSTS = 2000  # deltas and progress that may wait; nobody misses them more than that
OUTAGE_CAP = 10.0  # seconds between tries while the broker is away

log = logging.getLogger("emqx-gpt.publisher")

Finish = Callable[[Claimed, Result], Awaitable[None]]


@dataclass(slots=True)
class _Item:
    message: Publish
    settled: Callable[[Result], None]
    keep: bool = True  # False: progress, that nobody misses
    tries: int = 0


class _Lane:
    """A queue that some tasks drain."""

    def __init__(self) -> None:
        self.ready: deque[_Item] = deque()
        self.wake = asyncio.Event()

    def append(self, item: _Item) -> None:
        self.ready.append(item)
        self.wake.set()

    async def take(self) -> list[_Item]:
        while not self.ready:
            self.wake.clear()
            await self.wake.wait()
        batch: list[_Item] = []
        size = 0
        while self.ready and len(batch) < BULK:
            size += len(self.ready[0].message.payload)
            if batch and size > BULK_BYTES:
                break
            batch.append(self.ready.popleft())
        return batch


class Publisher:
    """Owns all traffic to `/publish`. `finish` hears how a request's outbox went."""

    def __init__(
        self, emqx: Emqx, finish: Finish, *, on_publish: Callable[[str, int], None]
    ) -> None:
        self._emqx = emqx
        self._finish = finish
        self._on_publish = on_publish
        self._replies = _Lane()
        self._progress = _Lane()
        self._lanes: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._progressing: Counter[str] = Counter()  # by request, what is on its way
        self._behind: dict[str, list[Callable[[], None]]] = {}  # outboxes that wait for it
        self.outage: BrokerError | None = None

    async def start(self) -> None:
        lanes = (*[self._replies] * LANES, self._progress)
        self._lanes = [asyncio.create_task(self._drain(lane)) for lane in lanes]

    async def close(self) -> None:
        """Stop at once; what was not published stays in the inbox as `answered`."""
        for task in (*self._lanes, *self._tasks):
            task.cancel()
        await asyncio.gather(*self._lanes, *self._tasks, return_exceptions=True)

    def put(self, claimed: Claimed, outbox: tuple[Publish, ...]) -> None:
        """Publish a stored outbox; `finish` is called once all of it went or was refused.

        It goes out after the request's progress: a light must not end on `working`.
        """
        results: dict[int, Result] = {}

        def settle(index: int, result: Result) -> None:
            results[index] = result
            if len(results) == len(outbox):
                self._spawn(self._finish(claimed, results[0]))  # the reply is the first

        def go() -> None:
            for index, message in enumerate(outbox):
                self._replies.append(_Item(message, functools.partial(settle, index)))

        if self._progressing[claimed.id]:
            self._behind.setdefault(claimed.id, []).append(go)
        else:
            del self._progressing[claimed.id]
            go()

    async def send(self, message: Publish, *, once: bool = False) -> Result:
        """Publish and wait, over outages; a BrokerError that comes back is a refusal.

        `once`: one try, alone; a BrokerError may then also mean that its answer was lost.
        """
        if once:
            try:
                return await self._emqx.publish(message)
            except BrokerError as error:
                return error
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def settled(result: Result) -> None:
            if not future.done():
                future.set_result(result)

        self._replies.append(_Item(message, settled))
        return await future

    def post(self, message: Publish, of: str) -> None:
        """Publish progress of request `of` soon or, while the broker is away, not at all."""
        if self.outage is None and len(self._progress.ready) < POSTS:
            self._progressing[of] += 1
            self._progress.append(_Item(message, lambda _: self._progressed(of), keep=False))

    def _progressed(self, of: str) -> None:
        self._progressing[of] -= 1
        if self._progressing[of] <= 0:
            del self._progressing[of]
            for go in self._behind.pop(of, ()):
                go()

    async def retained(self, topic: str) -> bytes | None:
        """The retained message of a topic. Raises BrokerError."""
        return await self._emqx.retained(topic)

    @property
    def waiting(self) -> int:
        """Replies that are ready and not yet in a call."""
        return len(self._replies.ready)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, lane: _Lane) -> None:
        while True:
            batch = await lane.take()
            try:
                await self._post(batch)
            except Exception:
                # Without its lanes the process would take requests and answer none.
                log.exception("a fault of this program while publishing")
                for item in batch:
                    await self._salvage(item)

    async def _salvage(self, item: _Item) -> None:
        """One of a batch in which something was at fault: it, or another."""
        try:
            await self._alone(item)
        except BrokerError:
            self._later(item)
        except Exception:
            text = "a fault of this program; see its log"
            self._settle(item, BrokerError(text, code="internal", poison=True))

    async def _post(self, batch: list[_Item]) -> None:
        """Publish a batch, again and again while the broker as a whole can't."""
        pending = batch

        async def attempt() -> None:
            nonlocal pending
            pending = await self._once(pending)

        await with_retries(attempt, self._rounds)

    def _rounds(self) -> tenacity.AsyncRetrying:
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(BrokerError),
            wait=lambda state: _distance(state.attempt_number),
            before_sleep=self._away,
        )

    def _away(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, BrokerError):
            if self.outage is None or self.outage.code != error.code:
                log.error("can't publish, replies wait in the inbox: %s", error.message)
            self.outage = error
            self._on_publish(error.code, 1)

    async def _once(self, batch: list[_Item]) -> list[_Item]:
        """One call. Returns [] when every item is settled; raises BrokerError to try again."""
        if len(batch) == 1:
            await self._alone(batch[0])
            return []
        try:
            results = await self._emqx.publish_bulk([item.message for item in batch])
        except BrokerError as error:
            if not error.poison:
                raise
            # One of them is refused and nothing was published: each for itself.
            while batch:
                await self._alone(batch[0])
                del batch[0]
            return []
        failed = [isinstance(result, BrokerError) and not result.poison for result in results]
        if all(failed) and isinstance(results[0], BrokerError):
            raise results[0]
        for item, result, again in zip(batch, results, failed, strict=True):
            if again and item.keep:
                self._later(item)  # alone: the others went, so the broker is there
            else:
                self._settle(item, result)
        return []

    def _later(self, item: _Item) -> None:
        item.tries += 1
        loop = asyncio.get_running_loop()
        loop.call_later(_distance(item.tries), self._replies.append, item)

    async def _alone(self, item: _Item) -> None:
        try:
            self._settle(item, await self._emqx.publish(item.message))
        except BrokerError as error:
            if not error.poison:
                raise
            self._settle(item, error)

    def _settle(self, item: _Item, result: Result) -> None:
        if self.outage is not None:
            log.warning("EMQX takes messages again")
            self.outage = None
        code = "delivered" if result is True else "unknown" if result is None else "no_subscriber"
        self._on_publish(result.code if isinstance(result, BrokerError) else code, 1)
        item.settled(result)


def _distance(attempt: int) -> float:
    return float(min(OUTAGE_CAP, 0.25 * 2 ** min(attempt - 1, 10)) * (0.75 + random.random() / 2))
