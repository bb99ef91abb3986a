"""News inside this process: changes of requests and pieces of replies, for who listens now.

Nothing here is stored; who needs certainty reads the inbox.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.inbox import Change

QUEUE = 1000  # news a slow listener may lag behind before the oldest are dropped


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a reply; a new `run` starts the text again."""

    id: str
    run: int
    text: str


News = Change | Delta


class Listener:
    """A queue of news for one who listens. `closed`: the service shuts down."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[News | None] = asyncio.Queue(QUEUE)
        self.closed = False

    def put(self, news: News | None) -> None:
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(news)

    def close(self) -> None:
        self.closed = True
        self.put(None)

    def rest(self) -> list[News]:
        """What else has come; does not wait."""
        found = []
        while not self._queue.empty():
            news = self._queue.get_nowait()
            if news is not None:
                found.append(news)
        return found

    async def get(self, seconds: float) -> News | None:
        """The next news; None after so long, or once the service shuts down."""
        try:
            async with asyncio.timeout(seconds):
                return await self._queue.get()
        except TimeoutError:
            return None


class Hub:
    """Who listens to what. Runs in the event loop's thread."""

    def __init__(self) -> None:
        self._all: set[Listener] = set()
        self._one: dict[str, set[Listener]] = {}
        self._pieces: dict[str, set[Listener]] = {}
        self._closed = False

    @contextlib.contextmanager
    def listen(self, id: str | None = None, *, pieces: bool = False) -> Iterator[Listener]:
        """Listen to one request's changes, with `pieces` also to its deltas; None: to all."""
        listener = Listener()
        groups = [self._all] if id is None else [self._one.setdefault(id, set())]
        if id is not None and pieces:
            groups.append(self._pieces.setdefault(id, set()))
        for group in groups:
            group.add(listener)
        if self._closed:
            listener.close()
        try:
            yield listener
        finally:
            for group in groups:
                group.discard(listener)
            for kept in (self._one, self._pieces):
                if id is not None and not kept.get(id, True):
                    del kept[id]

    def wanted(self, id: str) -> bool:
        """Does anyone want this reply piece by piece?"""
        return id in self._pieces

    def changed(self, changes: Sequence[Change]) -> None:
        """Requests entered a state."""
        if not self._all and not self._one:
            return
        for change in changes:
            for listener in (*self._all, *self._one.get(change.id, ())):
                listener.put(change)

    def delta(self, delta: Delta) -> None:
        for listener in self._pieces.get(delta.id, ()):
            listener.put(delta)

    def close(self) -> None:
        """End every listener: the service shuts down."""
        self._closed = True
        for listener in (*self._all, *(one for group in self._one.values() for one in group)):
            listener.close()
