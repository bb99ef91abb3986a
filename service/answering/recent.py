"""Readings come in and are written together: no request, and no model.

Whoever brings one is answered once it is on the disk, as with a question; but nobody waits for
these answers, so they gather for a moment and cost one transaction for many. While one batch is
written the next gathers, and each is answered by itself: EMQX always has something to send.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from service.answering.intake import SKEW
from service.domain import Message, Reading
from service.emqx.message import Kept
from service.errors import StoreBusy, StoreError, Unavailable
from service.flows import Catalogue, Flow
from service.inbox import Chunk, Inbox, window_keys
from service.inbox.readings import EACH, LATE, size_of

GATHER = 0.04  # seconds, at most
ROWS = 100  # windows of one batch
WRITERS = 2  # batches at once; the inbox may join them, and others wait for that
HELD = 64 << 20  # bytes that may wait to be written
KNOWN = 50_000  # topics whose window's growth is followed; of others it is looked up
LONGEST = 512  # characters of such a topic: who makes up long ones must not fill the memory
UPKEEP = 60.0  # seconds between looks for what is too old or too much
LEAST = 8  # readings that a window may have too many before it is cut
FULL = 2048  # bytes of a row of the inbox

log = logging.getLogger("emqx-gpt.recent")


@dataclass(slots=True, eq=False)
class _Window:
    """What is known of one: how much it has got since it was cut, what the row has that was
    written last, and of what time (ms) is the first in that."""

    keys: tuple[str, str]
    named: bool  # it has messages of several topics
    count: int
    size: int = 0
    row: int | None = None
    row_count: int = 0
    row_size: int = 0
    row_at: int = 0


@dataclass(slots=True, eq=False)
class _Part:
    """What is to be written of one window."""

    flow: Flow
    readings: deque[Reading]
    came: int = 0  # more than that, if it came faster than a window holds
    size: int = 0  # bytes of all that came


@dataclass(slots=True, eq=False)
class _Batch:
    """What is written together; `done` tells those who brought it, with None or an error."""

    done: asyncio.Future[Exception | None]
    parts: dict[_Window, _Part] = field(default_factory=dict)
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
        self._batch: _Batch | None = None  # gathers
        self._sealed: deque[_Batch] = deque()  # to be written, one after the other
        self.waiting = 0  # bytes taken and not yet on disk
        self._known: dict[tuple[str, str], _Window] = {}  # by flow and window
        self._of_topic: dict[tuple[str, str, str], _Window] = {}  # by flow, its pattern, topic
        self._writers: set[asyncio.Task[None]] = set()
        self._warned = float("-inf")
        self._upkeep: asyncio.Task[None] | None = None
        self.closing = False

    def start(self) -> None:
        wanted = any(flow.recent is not None for flow in self._flows.flows.values())
        if wanted and self._upkeep is None:
            self._upkeep = asyncio.create_task(self._tidy())

    def follow(self) -> None:
        """The flows are others now, and so may be what a window holds: look at each at once."""
        self._forget()
        self.start()

    def known(self, name: str) -> Flow | None:
        """The flow of this name, if it has a window."""
        flow = self._flows.flows.get(name)
        return flow if flow is not None and flow.recent is not None else None

    def keep(self, flow: Flow, kept: Kept) -> asyncio.Future[Exception | None] | None:
        """Done once it is on disk, with None or why it is not; None: not a window's message.

        Raises Unavailable when nothing can be taken now.
        """
        recent = flow.recent
        assert recent is not None
        flow_name, topic, payload, received_at = kept
        window = self._of_topic.get((flow_name, recent.topic.text, topic))
        if window is None:
            window = self._find(flow, topic)
            if window is None:
                return None
        if self.closing:
            raise Unavailable("shutting down", code="shutting_down", retry_after=5)
        text = payload if isinstance(payload, str) else _text(flow, kept)
        told = topic if window.named else ""
        size = EACH + size_of(text, told)
        if size > EACH + recent.size:
            self._too_large(flow, size - EACH, recent.size)
            return None
        if self.waiting + size > HELD:
            raise Unavailable("readings come too fast", code=StoreBusy.code, retry_after=2)
        now = self._now()
        at = received_at if abs(now - received_at) <= SKEW else now
        batch = self._batch
        if batch is None:
            loop = asyncio.get_running_loop()
            batch = self._batch = _Batch(loop.create_future())
            loop.call_later(GATHER, self._seal, batch)
        part = batch.parts.get(window)
        if part is None:
            # More than a window holds need not even be written.
            part = batch.parts[window] = _Part(flow, deque(maxlen=recent.messages + LATE))
        part.readings.append(Reading(at, text, told))
        part.came += 1
        part.size += size
        batch.size += size
        self.waiting += size
        if len(batch.parts) >= ROWS:
            self._seal(batch)
        return batch.done

    def _too_large(self, flow: Flow, size: int, most: int) -> None:
        """It could never be told, and those before it would be gone."""
        if time.monotonic() - self._warned >= UPKEEP:
            self._warned = time.monotonic()
            text = "flow %s: a message of %d bytes is larger than its window (recent.size is %d)"
            log.warning(text + " and not kept", flow.name, size, most)

    def _find(self, flow: Flow, topic: str) -> _Window | None:
        """The window of a topic: most topics come again and again."""
        recent = flow.recent
        assert recent is not None
        levels = recent.topic.match(topic)
        name = None if levels is None else flow.window_of(levels)
        if name is None:
            return None
        if len(self._of_topic) >= KNOWN:
            self._forget()
        pattern = recent.topic.text
        window = self._known.get((flow.name, name))
        if window is None:  # how much it has is looked up at once
            keys = window_keys(flow.name, name)
            window = _Window(keys, _of_many_topics(pattern), recent.messages)
        if len(topic) <= LONGEST:
            self._known[flow.name, name] = self._of_topic[flow.name, pattern, topic] = window
        return window

    def _forget(self) -> None:
        self._known.clear()
        self._of_topic.clear()

    def _seal(self, batch: _Batch) -> None:
        """Nothing more comes into it."""
        if self._batch is not batch:
            return  # it was full before its time
        self._batch = None
        self._sealed.append(batch)
        if len(self._writers) < WRITERS:
            self._writers.add(asyncio.create_task(self._write_all()))

    async def _write_all(self) -> None:
        while self._sealed:
            batch = self._sealed.popleft()
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
        # Here and not in a callback: what is sealed from now on needs another one.
        self._writers.remove(asyncio.current_task())  # type: ignore[arg-type]

    async def _write(self, batch: _Batch) -> None:
        """Raises StoreError."""
        chunks = [_chunk(*each) for each in batch.parts.items()]
        rows = await self._store.add_readings(chunks)
        came: Counter[str] = Counter()
        for (window, part), row in zip(batch.parts.items(), rows, strict=True):
            window.row = row
            came[part.flow.name] += part.came
        for flow, count in came.items():
            self._kept(flow, count)

    async def read(self, flow: Flow, levels: Mapping[str, str]) -> list[Reading]:
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
        if self._batch is not None:
            self._seal(self._batch)
        await asyncio.gather(*self._writers, return_exceptions=True)


def _chunk(window: _Window, part: _Part) -> Chunk:
    """Of what came, as it goes into the inbox."""
    recent, readings = part.flow.recent, part.readings
    assert recent is not None
    size = part.size
    if part.came > len(readings):
        size = sum(EACH + size_of(each.text, each.topic) for each in readings)
    while len(readings) > 1 and size - EACH * len(readings) > recent.size:
        first_one = readings.popleft()
        size -= EACH + size_of(first_one.text, first_one.topic)
    lasts, count, first = int(recent.for_ * 1000), len(readings), readings[0].at
    told = size - EACH * count
    if (  # a row is small beside its window, in each way
        window.row_count + count > max(1, recent.messages // 4)
        or window.row_size + told > min(FULL, recent.size // 4)
        or abs(first - window.row_at) > lasts // 4
    ):
        window.row, window.row_count, window.row_size, window.row_at = None, 0, 0, first
    window.row_count += count
    window.row_size += told
    window.count += count
    window.size += told
    trim = window.count >= max(LEAST, recent.messages // 2) or window.size >= recent.size // 2
    if trim:
        window.count = window.size = 0
    return Chunk.of(
        window.keys,
        readings,
        size=size,
        lasts=lasts,
        most=recent.messages,
        most_bytes=recent.size,
        trim=trim,
        came=part.came,
        row=window.row,
    )


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
