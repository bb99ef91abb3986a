"""Replies to the broker: what is ready together goes out together, over outages of EMQX.

A few lanes publish at a time. While all are busy replies gather, and the next free lane takes
up to a hundred of them in one bulk; a lone reply finds a free lane and never waits. Deltas and
progress have a lane of their own, so that they keep their order.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tenacity

from service.domain import Publish
from service.emqx.publish_api import Emqx, Result
from service.errors import BrokerError
from service.operations.health import Health
from service.operations.metrics import Metrics

log = logging.getLogger("emqx-gpt.publisher")


@dataclass(frozen=True, slots=True)
class PublishPolicy:
    """How replies go out. Pauses in seconds."""

    lanes: int = 3
    bulk: int = 100  # messages
    bulk_bytes: int = 900_000
    progress: int = 2000  # deltas and progress that may wait; more is dropped
    first_pause: float = 0.25  # between tries while the broker is away
    longest_pause: float = 10.0

    def pause(self, attempt: int) -> float:
        """Seconds after failed attempt `attempt` (1 is the first)."""
        pause = min(self.longest_pause, self.first_pause * 2.0 ** min(attempt - 1, 10))
        return pause * random.uniform(0.75, 1.25)


STANDARD = PublishPolicy()


@dataclass(slots=True, eq=False)
class _Item:
    """A message on its way. `progress_of`: it is progress of this request, and may be dropped."""

    message: Publish
    result: asyncio.Future[Result]
    progress_of: str | None = None
    tries: int = 0


class _Lane:
    """A queue that one or more tasks drain."""

    def __init__(self, policy: PublishPolicy) -> None:
        self._policy = policy
        self._wake = asyncio.Event()
        self.ready: deque[_Item] = deque()

    def append(self, item: _Item) -> None:
        self.ready.append(item)
        self._wake.set()

    async def take(self) -> list[_Item]:
        """What is ready, as far as it fits one bulk."""
        batch: list[_Item] = []
        while not batch:
            while not self.ready:
                self._wake.clear()
                await self._wake.wait()
            size = 0
            while self.ready and len(batch) < self._policy.bulk:
                if self.ready[0].result.done():  # who waited for it is gone
                    self.ready.popleft()
                    continue
                size += len(self.ready[0].message.payload)
                if batch and size > self._policy.bulk_bytes:
                    break
                batch.append(self.ready.popleft())
        return batch


class Publisher:
    """Owns all traffic to `/publish`. `health` is told of outages. `is_command` knows the topics of
    tools and of their answers: there nothing is published but by `send`, which the gate calls."""

    def __init__(
        self,
        emqx: Emqx,
        metrics: Metrics,
        health: Health,
        *,
        policy: PublishPolicy,
        is_command: Callable[[str], bool] = lambda topic: False,
    ) -> None:
        self._is_command = is_command
        self._emqx = emqx
        self._metrics = metrics
        self._health = health
        self._policy = policy
        self._replies = _Lane(self._policy)
        self._progress = _Lane(self._policy)
        self._tasks: list[asyncio.Task[None]] = []
        self._progress_of: dict[str, asyncio.Future[Result]] = {}  # the latest, by request

    def start(self) -> None:
        lanes = (*[self._replies] * self._policy.lanes, self._progress)
        self._tasks = [asyncio.create_task(self._drain(lane)) for lane in lanes]

    async def close(self) -> None:
        """Stop at once; what was not published stays in the inbox as `answered`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def deliver(self, outbox: Sequence[Publish], *, after: str | None = None) -> list[Result]:
        """Publish all of these, over outages of the broker; the result of each, in order.

        What goes to one topic, as the pieces of a reply, goes one after the other. A BrokerError
        among the results is a refusal. `after`: they go out behind the progress of this request,
        since a light must not end on `working`.
        """
        while after is not None and (progress := self._progress_of.get(after)) is not None:
            await asyncio.wait([progress])
        loop = asyncio.get_running_loop()
        items = [_Item(message, loop.create_future()) for message in outbox]
        for item in items:
            if self._is_command(item.message.topic):
                item.result.set_result(_no_command(item.message.topic))
        return await self._all(items)

    async def _all(self, items: Sequence[_Item]) -> list[Result]:
        behind: dict[str, _Item] = {}
        for item in items:
            before = behind.get(item.message.topic)
            if item.result.done():
                continue  # refused
            if before is None:
                self._replies.append(item)
            else:
                before.result.add_done_callback(functools.partial(self._next, item))
            behind[item.message.topic] = item
        try:
            return [await item.result for item in items]
        finally:
            for item in items:
                item.result.cancel()  # nobody waits any more; nothing, where all are done

    def _next(self, item: _Item, before: asyncio.Future[Result]) -> None:
        if not before.cancelled():
            self._replies.append(item)

    async def send(self, message: Publish, *, once: bool = False) -> Result:
        """Publish a tool's command and wait, over outages; a BrokerError is a refusal.

        `once`: one try, alone; a BrokerError may then also mean that its answer was lost.
        """
        if not once:
            item = _Item(message, asyncio.get_running_loop().create_future())
            return (await self._all((item,)))[0]
        try:
            return await self._emqx.publish(message)
        except BrokerError as error:
            return error

    def post(self, message: Publish, *, of: str) -> None:
        """Publish progress of request `of` soon or, while the broker is away, not at all."""
        if self._is_command(message.topic):
            log.warning("%s", _no_command(message.topic).message)
        elif self._health.outage is None and len(self._progress.ready) < self._policy.progress:
            result = asyncio.get_running_loop().create_future()
            self._progress_of[of] = result
            self._progress.append(_Item(message, result, progress_of=of))

    async def retained(self, topic: str) -> bytes | None:
        """The retained message of a topic. Raises BrokerError."""
        return await self._emqx.retained(topic)

    def told_instead(self, call: Mapping[str, Any]) -> str | None:
        """Every call is carried out."""
        return None

    @property
    def waiting(self) -> int:
        """Replies that are ready and not yet in a call."""
        return len(self._replies.ready)

    async def _drain(self, lane: _Lane) -> None:
        while_away = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(BrokerError),
            wait=self._pause,
            before_sleep=self._away,
        )
        while True:
            batch = await lane.take()
            try:
                await while_away(self._publish, batch)
            except Exception:
                # Without its lanes the process would take requests and answer none.
                log.exception("an internal error while publishing")
                for item in batch:
                    await self._salvage(item)

    async def _publish(self, batch: list[_Item]) -> None:
        """One call, or as many as it takes; who is settled leaves the batch.

        Raises BrokerError while the broker as a whole can't.
        """
        if len(batch) > 1:
            try:
                results = await self._emqx.publish_bulk([item.message for item in batch])
            except BrokerError as error:
                if not error.refused:
                    raise
                # One of them is refused and nothing was published: each for itself, below.
            else:
                self._settle_bulk(batch, results)
                return
        while batch:
            await self._alone(batch[0])
            del batch[0]

    def _settle_bulk(self, batch: list[_Item], results: Sequence[Result]) -> None:
        failed = [isinstance(result, BrokerError) and not result.refused for result in results]
        if all(failed) and isinstance(results[0], BrokerError):
            raise results[0]
        for item, result, again in zip(batch, results, failed, strict=True):
            if again and item.progress_of is None and isinstance(result, BrokerError):
                self._later(item, result.code)  # the others went, so the broker is there
            else:
                self._settle(item, result)
        batch.clear()

    async def _alone(self, item: _Item) -> None:
        try:
            self._settle(item, await self._emqx.publish(item.message))
        except BrokerError as error:
            if not error.refused:
                raise
            self._settle(item, error)

    async def _salvage(self, item: _Item) -> None:
        """One of a batch in which something was at fault: it, or another."""
        try:
            await self._alone(item)
        except BrokerError as error:
            self._later(item, error.code)
        except Exception:
            text = "an internal error; see the service's log"
            self._settle(item, BrokerError(text, code="internal", refused=True))

    def _later(self, item: _Item, code: str) -> None:
        item.tries += 1
        self._metrics.again("publish", code)
        loop = asyncio.get_running_loop()
        loop.call_later(self._policy.pause(item.tries), self._replies.append, item)

    def _settle(self, item: _Item, result: Result) -> None:
        if self._health.outage is not None:
            log.warning("EMQX takes messages again")
            self._health.back()
        code = "delivered" if result is True else "unknown" if result is None else "no_subscriber"
        self._metrics.published(result.code if isinstance(result, BrokerError) else code)
        if not item.result.done():
            item.result.set_result(result)
        of = item.progress_of
        if of is not None and self._progress_of.get(of) is item.result:
            del self._progress_of[of]

    def _pause(self, state: tenacity.RetryCallState) -> float:
        return self._policy.pause(state.attempt_number)

    def _away(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, BrokerError):
            outage = self._health.outage
            if outage is None or outage.code != error.code:
                log.error("can't publish, replies wait in the inbox: %s", error.message)
            self._health.outage = error
            self._metrics.published(error.code)
            self._metrics.again("publish", error.code)


def _no_command(topic: str) -> BrokerError:
    text = f"{topic!r} is where a tool is called or answered, and this is no call: not published"
    return BrokerError(text, code="tool_topic", refused=True)
