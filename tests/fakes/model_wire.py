"""One call of the fake model on the wire: what came in, and what can be done with it."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class Call:
    """One call as it came in, and how it ended."""

    body: dict[str, Any]
    headers: dict[str, str]
    started: float
    ended: float | None = None
    gone: bool = False  # the client left before the answer; only steps that wait can tell
    outcome: str = ""  # the name of the last step that played
    query: str = ""

    @property
    def messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self.body["messages"]
        return messages

    @property
    def model(self) -> str:
        return str(self.body["model"])

    @property
    def text(self) -> str:
        """The last user message's text."""
        return last_user_text(self.body)

    @property
    def key(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")


class Gone(Exception):
    """The client closed its connection."""


@dataclass
class Exchange:
    """One call on the wire, for the steps to play on."""

    call: Call
    receive: Callable[[], Awaitable[dict[str, Any]]]
    send: Callable[[dict[str, Any]], Awaitable[None]]
    released: asyncio.Event
    number: int

    async def answer(
        self, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        await self._start(status, len(body), headers)
        await self.send({"type": "http.response.body", "body": body})

    async def begin(self, body: bytes) -> None:
        """Send half of the body only."""
        await self._start(200, len(body))
        half = body[: len(body) // 2]
        await self.send({"type": "http.response.body", "body": half, "more_body": True})

    async def _start(
        self, status: int, size: int, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        start = [(b"content-length", b"%d" % size), *headers]
        if not any(name == b"content-type" for name, _ in headers):
            start.append((b"content-type", b"application/json"))
        await self.send({"type": "http.response.start", "status": status, "headers": start})

    async def start_stream(self) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})

    async def event(self, data: bytes) -> None:
        event = b"data: " + data + b"\n\n"
        await self.send({"type": "http.response.body", "body": event, "more_body": True})

    async def end_stream(self) -> None:
        await self.send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def left(self) -> None:
        """Return when the client has gone."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def pause(self, until: float | asyncio.Event) -> None:
        """Wait for the time or the event; Gone if the client leaves before."""
        left = asyncio.ensure_future(self.left())
        waiting = {left}
        seconds = None
        if isinstance(until, asyncio.Event):
            waiting.add(asyncio.ensure_future(_waited(until)))
        else:
            seconds = until
        try:
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if left.done():
                self.call.gone = True
                raise Gone
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def raw(self, data: bytes) -> None:
        """Send this as it is, and end the connection."""
        getattr(self.send, "__self__").transport.write(data)  # noqa: B009
        await self.close()

    async def close(self, reset: bool = False) -> None:
        """End the connection: after what was sent, or at once with a TCP reset."""
        # ASGI has no word for it, so this reaches through uvicorn's bound method.
        transport = getattr(self.send, "__self__").transport  # noqa: B009
        if reset and not transport.is_closing():
            linger = struct.pack("ii", 1, 0)
            wire = transport.get_extra_info("socket")
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            transport.abort()
        else:
            transport.close()
        await self.left()


async def _waited(event: asyncio.Event) -> None:
    await event.wait()


Step = Callable[[Exchange], Awaitable[None]]


def last_user_text(body: Mapping[str, Any]) -> str:
    for message in reversed(body.get("messages") or []):
        if message.get("role") == "user":
            return text_of(message.get("content"))
    return ""


def text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part.get("text", "") for part in parts)
