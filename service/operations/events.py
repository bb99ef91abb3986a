"""News inside this process: changes of requests and pieces of replies, for who listens now.

Nothing here is stored; who needs certainty reads the inbox.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

QUEUE = 1000  # news a slow listener may lag behind before the oldest are dropped


@dataclass(frozen=True, slots=True)
class Change:
    """A request entered this state."""

    id: str
    flow: str | None
    conversation: str
    state: str


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a reply; a new `run` starts the text again."""

    id: str
    run: int
    text: str


News = Change | Delta


class Listener:
    """A queue of news; `async for` it."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[News | None] = asyncio.Queue(QUEUE)

    def put(self, news: News | None) -> None:
        while True:
            try:
                self._queue.put_nowait(news)
                return
            except asyncio.QueueFull:
                self._queue.get_nowait()

    async def get(self) -> News | None:
        """The next news; None once the service shuts down."""
        return await self._queue.get()

    async def __aiter__(self) -> AsyncIterator[News]:
        while (news := await self._queue.get()) is not None:
            yield news


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
            listener.put(None)
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

    def change(self, change: Change) -> None:
        for listener in (*self._all, *self._one.get(change.id, ())):
            listener.put(change)

    def delta(self, delta: Delta) -> None:
        for listener in self._pieces.get(delta.id, ()):
            listener.put(delta)

    @property
    def busy(self) -> bool:
        """Is anyone listening at all?"""
        return bool(self._all or self._one)

    def close(self) -> None:
        """End every listener: the service shuts down."""
        self._closed = True
        for listener in (*self._all, *(one for group in self._one.values() for one in group)):
            listener.put(None)
