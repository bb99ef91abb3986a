"""EMQX's publishing API on raw sockets: what it took, and ways of being away."""

from __future__ import annotations

import asyncio
import base64
import random
import socket
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httptools
import orjson

from tests.chaos.wire import RESET
from tests.fakes.payload import payload_of

SECRET = "secret"
NOBODY = {"message": "no_matching_subscribers", "reason_code": 16}
_FAILED = {"message": "failed_to_dispatch", "reason_code": 131}
_INVALID = {"message": "topic_name_invalid", "reason_code": 144}
_NO_KEY = {"code": "BAD_API_KEY_OR_SECRET", "message": "Check api_key/api_secret"}
WAYS = ("refuse", "reset", "503", "silent", "401")
"""To be away. After `reset` and `silent` some of the messages were published all the same."""


@dataclass(frozen=True, slots=True)
class Published:
    """One copy of a reply, as subscribers got it."""

    at: float
    topic: str
    payload: str
    request_id: str | None
    error: str | None


def has_subscriber(topic: str) -> bool:
    """One topic in ten has none: its publishes are 202."""
    return zlib.crc32(topic.encode()) % 10 != 0


def _bound(port: int) -> socket.socket:
    """A socket on this port, beside others of ours; it gets calls only if it listens."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


class Broker:
    """The server. `away` is one of WAYS, or None; `hiccups` the share of answers lost."""

    def __init__(self, rng: random.Random, hiccups: float) -> None:
        self._rng = rng
        self._hiccups = hiccups
        self._server: asyncio.Server | None = None
        self._held = _bound(0)  # while it is away, nobody else gets its port
        self._port = self._held.getsockname()[1]
        self._away: str | None = None
        self._numbers = 0
        self.connections: set[_Exchange] = set()
        self.published: list[Published] = []
        self.calls = 0
        self.lost_answers = 0
        self.on_call: dict[str, Callable[[], None]] = {}
        """Called once, when this API key publishes: before anything else, or after it is
        published and before that is answered; by chance."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Exchange(self), sock=_bound(self._port))

    async def stop(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            server.close()
            for connection in list(self.connections):
                connection.reset()
            await server.wait_closed()

    async def close(self) -> None:
        """Away for good."""
        await self.stop()
        self._held.close()

    async def leave(self, way: str) -> None:
        """Be away."""
        self._away = way
        if way == "refuse":
            await self.stop()

    async def come_back(self) -> None:
        self._away = None
        if self._server is None:
            await self.start()
        for connection in list(self.connections):
            if connection.unanswered:
                connection.reset()

    def take(self, exchange: _Exchange, path: str, key: str | None, body: bytes) -> None:
        """One call."""
        self.calls += 1
        if key is None or self._away == "401":
            exchange.answer(401, _NO_KEY)
            return
        if "/publish" not in path:  # the service looks at counters and rules
            exchange.answer(404, {"code": "NOT_FOUND", "message": "none"})
            return
        document = orjson.loads(body)
        bulk = path.endswith("/bulk")
        messages = document if bulk else [document]
        if any(not message["topic"] for message in messages):  # how the service asks for health
            exchange.answer(400, _INVALID)
            return
        trip = self.on_call.pop(key, None)
        if trip is not None and self._rng.random() < 0.5:
            trip, _ = None, trip()
        lost = self._rng.random() < self._hiccups
        if self._away == "503":
            self._fail(exchange, messages, bulk)
        elif self._away is not None or lost:
            if lost or self._rng.random() < 0.3:
                self._publish(messages)
                self.lost_answers += 1
            exchange.unanswered = True
            if self._away != "silent":
                exchange.reset()
        else:
            results = self._publish(messages)
            if trip is not None:
                trip()
            status = 202 if NOBODY in results else 200
            exchange.answer(status, results if bulk else results[0])

    def _publish(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        now, results = time.time(), []
        for message in messages:
            user = message.get("properties", {}).get("user_properties", {})
            self.published.append(
                Published(
                    now,
                    message["topic"],
                    payload_of(message),
                    user.get("request_id"),
                    user.get("error"),
                )
            )
            self._numbers += 1
            found = {"id": f"{self._numbers:032X}"}
            results.append(found if has_subscriber(message["topic"]) else NOBODY)
        return results

    def _fail(self, exchange: _Exchange, messages: list[dict[str, Any]], bulk: bool) -> None:
        """503: of a bulk, the first half was published before the node went."""
        if not bulk:
            exchange.answer(503, _FAILED)
            return
        half = self._publish(messages[: len(messages) // 2])
        exchange.answer(503, half + [_FAILED] * (len(messages) - len(half)))


class _Exchange(asyncio.Protocol):
    """One connection of the service."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._transport: Any = None
        self._path = ""
        self._key: str | None = None
        self._body = b""
        self.unanswered = False

    def answer(self, status: int, document: Any) -> None:
        body = orjson.dumps(document)
        head = (
            f"HTTP/1.1 {status} {'OK' if status < 300 else 'NO'}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._transport.write(head.encode() + body)

    def reset(self) -> None:
        wire = self._transport.get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self._broker.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._broker.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    # httptools

    def on_url(self, url: bytes) -> None:
        self._path, self._body, self._key = url.decode(), b"", None

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"authorization":
            key, _, secret = base64.b64decode(value.split()[1]).decode().partition(":")
            self._key = key if secret == SECRET else None

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if not self._transport.is_closing():
            self._broker.take(self, self._path, self._key, self._body)
