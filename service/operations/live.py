"""What open pages are told: one look and one text for all of them, a few times a second.

Changes come from the hub, which hears of those of other processes on the same database too, so
nothing is asked for as long as nothing happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import orjson

from service.errors import Unavailable
from service.inbox import Change
from service.operations.events import Hub
from service.operations.insights import when

PAGES = 500  # that may be open on one process
BEHIND = 8  # texts that a page may not have taken yet; then it is dropped
FASTEST = 0.5  # seconds between two texts
SLOWEST = 2.0  # likewise, with many pages open
SHOWN = 100  # changes of one text, the newest
AFRESH = 10.0  # seconds after which totals are told although nothing changed

log = logging.getLogger("emqx-gpt.web")

Board = Callable[[], Awaitable[dict[str, Any]]]


class OpenPage:
    """One open page. Iterate over the texts it gets, as server-sent events."""

    def __init__(self) -> None:
        self._texts: asyncio.Queue[bytes | None] = asyncio.Queue(BEHIND + 1)
        self._dropped = False

    def put(self, text: bytes | None) -> bool:
        """False: it is too far behind, and gets no more."""
        if self._dropped:
            return False
        if text is None or self._texts.qsize() >= BEHIND:
            self._dropped = True
            text = None
        self._texts.put_nowait(text)
        return not self._dropped

    async def get(self) -> bytes | None:
        """The next text; None: no more."""
        return await self._texts.get()


class Live:
    """The pages of one process. `board` is what all of them show. Epoch ms from `now`."""

    def __init__(self, hub: Hub, board: Board, *, now: Callable[[], int]) -> None:
        self._hub = hub
        self.board = board
        self._now = now
        self._pages: set[OpenPage] = set()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def pages(self) -> int:
        return len(self._pages)

    @contextlib.contextmanager
    def open(self) -> Iterator[OpenPage]:
        """A page opens. Raises Unavailable."""
        if self._closed or len(self._pages) >= PAGES:
            why = "shutting down" if self._closed else f"{PAGES} pages are open"
            raise Unavailable(f"no more pages: {why}", code="pages", retry_after=5)
        page = OpenPage()
        self._pages.add(page)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._tell())
        try:
            yield page
        finally:
            self._pages.discard(page)
            if not self._pages and self._task is not None:
                self._task.cancel()
                self._task = None

    async def hello(self) -> bytes:
        """What a page shows first."""
        return _event("hello", {"at": when(self._now()), **await self.board()})

    async def close(self) -> None:
        """End all pages: the service shuts down."""
        self._closed = True
        task, self._task = self._task, None
        for page in list(self._pages):
            page.put(None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _tell(self) -> None:
        with self._hub.listen() as listener:
            while not listener.closed:
                news = await listener.get(AFRESH)
                # Together with what comes in the next moment.
                await asyncio.sleep(min(SLOWEST, max(FASTEST, len(self._pages) / 100)))
                changes = [] if news is None else [news]
                changes += listener.rest()
                self._send(changes, await self.board())
        for page in list(self._pages):
            page.put(None)

    def _send(self, changes: list[Any], board: dict[str, Any]) -> None:
        latest = {one.id: one for one in changes if isinstance(one, Change)}
        newest = list(latest.values())[-SHOWN:]
        text = _event(
            "changes",
            {
                "at": when(self._now()),
                **board,
                "requests": [
                    {
                        "id": one.id,
                        "flow": one.flow,
                        "conversation": _clean(one.conversation) or None,
                        "state": str(one.state),
                    }
                    for one in newest
                ],
                "more": len(latest) - len(newest),
            },
        )
        for page in list(self._pages):
            if not page.put(text):
                self._pages.discard(page)


def _event(name: str, document: Any) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(document) + b"\n\n"


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
