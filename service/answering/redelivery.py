"""Replies that found nobody are published again for a while: devices sleep, and after an outage
of the broker it is back before its clients are.

The request has ended by then: a held reply delays nothing that comes after it in its
conversation, and costs no second model call. It is held only where the broker says that nobody
was there, so not on the way through the broker's reply rule.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from service.answering.publisher import Publisher
from service.domain import Publish
from service.emqx.publish_api import of_all
from service.errors import BrokerError
from service.flows import Flow
from service.inbox import HeldReply, Inbox
from service.operations.health import Health

FIRST = 1.0  # seconds before a held reply is published again
LONGEST = 15.0  # seconds between two tries
AFTER_OUTAGE = 60.0  # seconds a reply is held whose flow does not say, right after an outage
RIGHT_AFTER = 30.0  # seconds
AT_ONCE = 100  # replies
LEASE_MS = 30_000
IDLE = 2.0  # seconds between looks

log = logging.getLogger("emqx-gpt.requests")


class Redelivery:
    """One process's share. `now` gives epoch ms, `given_up` hears of a flow's reply that nobody
    came for."""

    def __init__(
        self,
        store: Inbox,
        publisher: Publisher,
        health: Health,
        *,
        now: Callable[[], int],
        given_up: Callable[[str], None] = lambda flow: None,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._health = health
        self._now = now
        self._given_up = given_up

    def window(self, flow: Flow | None, outbox: Sequence[Publish]) -> tuple[int, int] | None:
        """For a reply that found nobody: when to publish it again, and until when (ms)."""
        seconds = flow.hold if flow is not None else None
        if seconds is None and self._health.back_within(RIGHT_AFTER):
            seconds = AFTER_OUTAGE
        if seconds is None or outbox[0].retain:  # the broker itself keeps a retained one
            return None
        if outbox[0].expiry is not None:
            seconds = min(seconds, outbox[0].expiry)
        now = self._now()
        return now + int(min(FIRST, seconds) * 1000), now + int(seconds * 1000)

    async def round(self) -> float:
        """Publish again what is due; seconds until the next look."""
        taken = await self._store.take_held(AT_ONCE, LEASE_MS)
        await asyncio.gather(*map(self._again, taken.replies))
        if taken.next_at is None:
            return IDLE
        return min(IDLE, max(0.05, (taken.next_at - self._now()) / 1000))

    async def _again(self, reply: HeldReply) -> None:
        elapsed = max(0, self._now() - reply.since) / 1000
        outbox = [_aged(one, elapsed) for one in reply.outbox if one.topic == reply.outbox[0].topic]
        result = of_all(await self._publisher.deliver(outbox))
        delivered = False if isinstance(result, BrokerError) else result
        again_at = None
        if result is False:
            at = self._now() + int(min(LONGEST, max(FIRST, elapsed / 2)) * 1000)
            again_at = at if at <= reply.until else None
        await self._store.note_held(reply, delivered, again_at)
        if result is False and again_at is None:
            self._given_up(reply.flow or "")
        if again_at is None:
            came = "delivered" if delivered else "given up, nobody came for it"
            fields = {"request": reply.id, "flow": reply.flow, "seconds": round(elapsed, 3)}
            text = "request %s flow=%s: its held reply is %s, %.0f s after it was ready"
            log.info(text, reply.id, reply.flow or "-", came, elapsed, extra=fields)


def _aged(message: Publish, seconds: float) -> Publish:
    if message.expiry is None:
        return message
    return replace(message, expiry=max(1, message.expiry - int(seconds)))
