"""A message or a question comes in and is stored: nothing else happens before the answer."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import replace

from service.answering.client_shares import PART, ShareRefusals, Shares, Turns
from service.domain import Entry, Message
from service.errors import OverShare, StoreBusy, Unavailable
from service.flows import Catalogue, Flow
from service.inbox import Added, Inbox
from service.mqtt import traceparent

SETTLE_WRITE = 0.7  # seconds; with the 4 s of an add a webhook is still answered in time
SETTLE_EVERY = 30.0  # seconds; or an endless overload would hold up ordered flows for good
STRAGGLE = 2000  # ms that ordered flows wait after each message from before the disturbance
LONGEST = 30_000  # ms after a disturbance that they wait at most
SKEW = 15 * 60_000  # ms; EMQX keeps a message at most for its request_ttl, 10 minutes
UNKNOWN_DEADLINE = 900_000  # ms, for a flow that this process does not know


def new_id(now: int) -> str:
    """32 hex digits that begin with the time (ms): rows of one time lie together in an index."""
    return f"{now & 0xFFFFFFFFFFFF:012x}{os.urandom(10).hex()}"


class Intake:
    """Makes entries of messages and stores them. `now` gives epoch ms.

    What it had to refuse EMQX sends again, up to some seconds later than younger messages. So
    after that, and at the start and end of a process, conversations with order wait `settle`
    seconds before they go on, in all processes, and longer while such messages still come.
    """

    def __init__(
        self,
        flows: Catalogue,
        store: Inbox,
        *,
        now: Callable[[], int],
        max_backlog: int,
        settle: float,
        client: Callable[[Message], str] = lambda message: message.clientid or "",
    ) -> None:
        self._flows = flows
        self._store = store
        self._now = now
        self._max_backlog = max_backlog
        self._client = client
        self._turns = Turns()
        self.shares = Shares(max_backlog)
        self.refusals: ShareRefusals | None = None
        self._settle_ms = int(settle * 1000)
        self._settled_at = -SETTLE_EVERY
        self._disturbed_at = 0  # ms
        self._settled_until = 0  # ms
        self._adding = 0  # taken, and not yet part of the store's backlog
        self._refused = False  # since the last message that was taken
        self.closing = False

    async def accept(self, message: Message) -> Added:
        """Store one message of the broker. Raises Unavailable when nothing can be stored, and
        OverShare for a client that has its part of the backlog: it is told, and nothing is stored.
        """
        self._check()
        now = self._now()
        client = self._client(message)
        entry = self.entry(message, new_id(now))
        if self.shares.over(client, self._store.backlog + self._adding):
            flow = self._flows.flows.get(entry.flow or "")
            if self.refusals is not None and flow is not None:
                self.refusals.tell(flow, entry, client)
            raise OverShare(f"a client has its part of the backlog (MAX_BACKLOG / {PART})")
        added = await self._add(replace(entry, turn=self._turns.next(client, now)))
        if not added.duplicate:
            self.shares.stored(added.id, client)
        return added

    async def ask(
        self,
        flow: Flow,
        text: str,
        *,
        topic: str,
        conversation: str | None,
        publish: bool,
        key: str | None,
        id: str | None = None,
        trace: traceparent.Properties = (),
    ) -> Added:
        """Store a question that came over HTTP. `key` (Idempotency-Key) makes it one request,
        `trace` is where its trace came from."""
        self._check()
        now = self._now()
        id = id or new_id(now)
        message = Message(
            id=id,
            topic=topic,
            payload=text.encode("utf-8", "surrogatepass"),
            received_at=now,
            flow=flow.name,
            user_properties=trace,
        )
        captured = flow.match(topic) or {}
        dedupe = f"http:{id}"
        if key is not None:
            dedupe = "key:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        entry = Entry(
            id=id,
            flow=flow.name,
            dedupe=dedupe,
            conversation=conversation or flow.conversation_of(message, captured),
            ordered=flow.ordered,
            message=message,
            accepted_at=now,
            deadline=now + int(flow.deadline * 1000),
            publish=publish,
        )
        return await self._add(entry)

    def entry(self, message: Message, id: str) -> Entry:
        """The request that a message becomes; without a known flow it waits for one."""
        now = self._now()
        flow = self._flows.find(message.flow, message.topic)
        if flow is None:
            return Entry(
                id=id,
                flow=message.flow,
                dedupe=message.id,
                conversation="",
                ordered=False,
                message=message,
                accepted_at=now,
                deadline=now + UNKNOWN_DEADLINE,
                resolved=False,
            )
        captured = flow.match(message.topic) or {}
        return Entry(
            id=id,
            flow=flow.name,
            dedupe=flow.dedupe_of(message, captured),
            conversation=flow.conversation_of(message, captured),
            ordered=flow.ordered,
            message=message,
            accepted_at=now,
            deadline=self._deadline(flow, message, now),
            batch=flow.batch,
        )

    def _deadline(self, flow: Flow, message: Message, now: int) -> int:
        """By EMQX's clock, unless that can't be right: it holds nothing for longer than SKEW."""
        began = message.received_at if 0 <= now - message.received_at <= SKEW else now
        seconds = flow.deadline
        if message.expiry is not None:
            seconds = min(seconds, float(max(0, message.expiry)))
        return began + int(seconds * 1000)

    def check_open(self) -> None:
        """Raises Unavailable while this process shuts down."""
        if self.closing:
            raise Unavailable("shutting down", code="shutting_down", retry_after=5)

    def _check(self) -> None:
        self.check_open()
        if self._store.backlog + self._adding >= self._max_backlog:
            self._refused = True
            raise Unavailable(
                f"the backlog is full (MAX_BACKLOG = {self._max_backlog})",
                code="backlog_full",
                retry_after=5,
            )

    async def _add(self, entry: Entry) -> Added:
        self._adding += 1
        try:
            late = entry.ordered and entry.message.received_at < self._disturbed_at
            if late or self._refused:
                await self._disturbed(late)
            return await self._store.add(entry)
        except StoreBusy as error:
            self._refused = True
            raise Unavailable(error.message, code=error.code, retry_after=2) from None
        finally:
            self._adding -= 1

    async def pause_ordered(self) -> None:
        """Let conversations with order wait, in all processes. Raises StoreError."""
        self._settled_at = time.monotonic()
        if self._settle_ms:
            self._disturbed_at = self._now()
            await self._pause_ordered_until(self._disturbed_at + self._settle_ms)

    async def _disturbed(self, late: bool) -> None:
        """The first message after a refusal, or one from before a disturbance."""
        if self._refused:
            self._refused = False
            if time.monotonic() - self._settled_at >= SETTLE_EVERY:
                await self.pause_ordered()
        until = min(self._now() + STRAGGLE, self._disturbed_at + LONGEST)
        if late and until > self._settled_until + STRAGGLE // 4:  # not with each of them
            await self._pause_ordered_until(until)

    async def _pause_ordered_until(self, until: int) -> None:
        self._settled_until = until
        try:
            async with asyncio.timeout(SETTLE_WRITE):
                await self._store.pause_ordered(until)
        except TimeoutError:
            raise StoreBusy("the database did not answer in time") from None
