"""GET /events: what changes, for open pages."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.operations.live import Live, OpenPage

PING = 15  # seconds between comments that keep proxies from closing a silent stream


class _EventStream(EventSourceResponse):
    """`stack` is closed when it ends, whoever ends it."""

    def __init__(self, texts: AsyncIterator[bytes], stack: contextlib.ExitStack) -> None:
        super().__init__(
            texts,
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
            sep="\n",
            ping=PING,
            ping_message_factory=lambda: ServerSentEvent(comment="still here"),
        )
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._stack:
            await super().__call__(scope, receive, send)


class Events:
    """The endpoint."""

    def __init__(self, live: Live) -> None:
        self._live = live

    async def __call__(self, request: Request) -> Response:
        with contextlib.ExitStack() as stack:
            page = stack.enter_context(self._live.open())
            return _EventStream(self._texts(page), stack.pop_all())

    async def _texts(self, page: OpenPage) -> AsyncIterator[bytes]:
        yield await self._live.hello()
        while (text := await page.get()) is not None:
            yield text
