"""Readings come in and are written together: no request, no model, a row for each window.

Whoever brings one is answered once it is on the disk, as with a question; but nobody waits for
these answers, so they gather for a moment and cost one transaction for many.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from service.answering.intake import SKEW
from service.domain import Message, Reading
from service.emqx.message import Kept
from service.errors import StoreBusy, StoreError, Unavailable
from service.flows import Catalogue, Flow
from service.inbox import Chunk, Inbox
from service.inbox.readings import LATE

GATHER = 0.04  # seconds
ROWS = 100  # of one transaction: others write in between
HELD = 64 << 20  # bytes that may wait to be written
KNOWN = 50_000  # windows whose growth is followed; of others it is looked up
UPKEEP = 60.0  # seconds between looks for what is too old or too much
LEAST = 8  # readings that a window may have too many before it is cut

Place = tuple[str, str]
"""(flow, window)"""

log = logging.getLogger("emqx-gpt.recent")


@dataclass(slots=True)
class _Window:
    flow: Flow
    readings: deque[Reading]
    came: int = 0  # more than that, if it came faster than a window holds


@dataclass(slots=True)
class _Batch:
    """What is written together; `done` tells those who brought it, with None or an error."""

    done: asyncio.Future[Exception | None]
    windows: dict[Place, _Window] = field(default_factory=dict)
    size: int = 0


class Recents:
    """The windows of all flows. `now` gives epoch ms, `most` bytes are kept on disk; `kept` is
    told how many messages of a flow are on it now."""

    def __init__(
        self,
        flows: Catalogue,
        store: Inbox,
        *,
        now: Callable[[], int],
        most: int,
        kept: Callable[[str, int], None] = lambda flow, count: None,
    ) -> None:
        self._flows = flows
        self._store = store
        self._now = now
        self._most = most
        self._kept = kept
        self._batch: _Batch | None = None
        self.waiting = 0  # bytes taken and not yet on disk
        self._places: dict[tuple[str, str, str], Place] = {}  # by flow, its pattern, and topic
        self._grown: OrderedDict[Place, tuple[int, int]] = OrderedDict()
        self._writer: asyncio.Task[None] | None = None
        self._upkeep: asyncio.Task[None] | None = None
        self.closing = False

    def start(self) -> None:
        wanted = any(flow.recent is not None for flow in self._flows.flows.values())
        if wanted and self._upkeep is None:
            self._upkeep = asyncio.create_task(self._tidy())

    def follow(self) -> None:
        """The flows are others now, and so may be what a window holds: look at each at once."""
        self._grown.clear()
        self.start()

    def known(self, name: str) -> Flow | None:
        """The flow of this name, if it has a window."""
        flow = self._flows.flows.get(name)
        return flow if flow is not None and flow.recent is not None else None

    def keep(self, flow: Flow, kept: Kept) -> asyncio.Future[Exception | None] | None:
        """Done once it is on disk, with None or why it is not; None: not a window's message.

        Raises Unavailable when nothing can be taken now.
        """
        assert flow.recent is not None
        topic = kept.topic
        where = flow.name, flow.recent.topic.text, topic
        place = self._places.get(where) or self._place(flow, topic)
        if place is None:
            return None
        if self.closing:
            raise Unavailable("shutting down", code="shutting_down", retry_after=5)
        text = kept.payload
        if isinstance(text, bytes):
            text = _text(flow, kept)
        size = len(text)  # of ASCII, which readings are; others are a few bytes more
        if self.waiting + size > HELD:
            raise Unavailable("readings come too fast", code=StoreBusy.code, retry_after=2)
        now = self._now()
        at = kept.received_at if abs(now - kept.received_at) <= SKEW else now
        batch = self._batch
        if batch is None:
            batch = self._batch = _Batch(asyncio.get_running_loop().create_future())
            if self._writer is None or self._writer.done():
                self._writer = asyncio.create_task(self._write_all())
        found = batch.windows.get(place)
        if found is None:
            # More than a window holds need not even be written.
            found = _Window(flow, deque(maxlen=flow.recent.messages + LATE))
            batch.windows[place] = found
        named = topic if _of_many_topics(flow.recent.topic.text) else ""
        found.readings.append(Reading(at, text, named))
        found.came += 1
        batch.size += size
        self.waiting += size
        return batch.done

    def _place(self, flow: Flow, topic: str) -> Place | None:
        """The window of a topic: most topics come again and again."""
        assert flow.recent is not None
        levels = flow.recent.topic.match(topic)
        window = None if levels is None else flow.window_of(levels)
        if window is None:
            return None
        if len(self._places) >= KNOWN:
            self._places.clear()
        place = self._places[flow.name, flow.recent.topic.text, topic] = flow.name, window
        return place

    async def _write_all(self) -> None:
        while self._batch is not None:
            if not self.closing:
                await asyncio.sleep(GATHER)
            batch, self._batch = self._batch, None
            result: Exception | None = None
            try:
                await self._write(batch)
            except StoreError as error:
                result = Unavailable(error.message, code=error.code, retry_after=2)
            except Exception as error:
                log.exception("an internal error while readings were stored")
                result = error
            finally:
                self.waiting -= batch.size
            if not batch.done.done():
                batch.done.set_result(result)

    async def _write(self, batch: _Batch) -> None:
        """Raises StoreError."""
        places = list(batch.windows.items())
        for start in range(0, len(places), ROWS):
            chunks = [self._chunk(place, one) for place, one in places[start : start + ROWS]]
            await self._store.add_readings(chunks)
            for (flow, _), one in places[start : start + ROWS]:
                self._kept(flow, one.came)

    def _chunk(self, place: Place, one: _Window) -> Chunk:
        recent = one.flow.recent
        assert recent is not None
        size = sum(len(each.text.encode("utf-8", "surrogatepass")) for each in one.readings)
        while len(one.readings) > 1 and size > recent.size:
            size -= len(one.readings.popleft().text.encode("utf-8", "surrogatepass"))
        count, grown = self._grown.pop(place, (recent.messages, 0))  # unknown: look at once
        count, grown = count + len(one.readings), grown + size
        trim = count >= max(LEAST, recent.messages // 2) or grown >= recent.size // 2
        self._grown[place] = (0, 0) if trim else (count, grown)
        if len(self._grown) > KNOWN:
            self._grown.popitem(last=False)
        return Chunk.of(
            *place,
            one.readings,
            size=size,
            lasts=int(recent.for_ * 1000),
            most=recent.messages,
            most_bytes=recent.size,
            trim=trim,
            came=one.came,
        )

    async def read(self, flow: Flow, levels: dict[str, str]) -> list[Reading]:
        """What `flow` may tell of now, oldest first; `levels` are those of the request's topic.
        Raises StoreError."""
        recent = flow.recent
        assert recent is not None
        window = flow.window_of(levels)
        if window is None:
            return []
        return await self._store.readings(
            flow.name,
            window,
            since=self._now() - int(recent.for_ * 1000),
            limit=recent.messages,
            size=recent.size,
        )

    async def _tidy(self) -> None:
        while True:
            try:
                dropped = await self._store.bound_readings(self._most)
                if dropped:
                    text = "readings are over MAX_READINGS: the oldest %d pieces are dropped"
                    log.warning(text, dropped)
            except StoreError as error:
                log.warning("old readings stay for now: %s", error.message)
            await asyncio.sleep(UPKEEP)

    async def close(self) -> None:
        """Nothing more is taken; what was, is written."""
        self.closing = True
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.gather(self._upkeep, return_exceptions=True)
        if self._writer is not None:
            await asyncio.gather(self._writer, return_exceptions=True)


def _text(flow: Flow, kept: Kept) -> str:
    """Of bytes in the charset of the flow."""
    assert isinstance(kept.payload, bytes)
    message = Message("", kept.topic, kept.payload, kept.received_at)
    return flow.readable(message).payload.decode("utf-8", "replace")


@lru_cache(maxsize=1000)
def _of_many_topics(pattern: str) -> bool:
    """Whether one window has messages of several topics."""
    levels = pattern.split("/")
    return "+" in levels or "#" in levels
