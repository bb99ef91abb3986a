"""Raw HTTP/1.1 with pipelining, the way EMQX's HTTP connector speaks it.

No client library does this: a second request goes out before the first is answered, and what
becomes of it when the connection breaks is the thing the stand-in has to show.
"""

from __future__ import annotations

import asyncio
import bisect
import random
import socket
import ssl
from collections import deque
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools

NO_BODY = (204, 304)
SILENCE = 20.0  # seconds without a byte while answers are due; EMQX was seen to wait 18 to 28


class Lost(Exception):
    """Refused, closed or reset before the answer came: the request may be sent again."""


class Unsendable(Exception):
    """The connection was reset when the request was about to go out: EMQX gives it up."""

    def __init__(self) -> None:
        super().__init__("{error, einval}")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a connector points. `path` is the url's own, without a trailing slash."""

    host: str
    port: int
    path: str
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Target:
        """Raises ValueError when it is no http(s) URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not an http:// or https:// URL")
        tls = parts.scheme == "https"
        port = parts.port or (443 if tls else 80)
        return cls(parts.hostname, port, parts.path.rstrip("/"), tls)

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Connection(asyncio.Protocol):
    """One keep-alive connection; opens itself when there is something to send."""

    def __init__(self, target: Target, pipelining: int, timeout: float) -> None:
        self._target = target
        self._pipelining = pipelining
        self._timeout = timeout
        self._transport: asyncio.Transport | None = None
        self._opening: asyncio.Task[None] | None = None
        self._waiting: list[tuple[int, bytes, asyncio.Future[int]]] = []
        self._sent: deque[asyncio.Future[int]] = deque()
        self._until_close: int | None = None
        self._gone = asyncio.Event()
        self._gone.set()
        self._closed = False
        self._watch: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def request(self, data: bytes, order: int = 0) -> asyncio.Future[int]:
        """The answer's status. What waits for a connection goes out by `order`.

        The future fails with Lost or Unsendable.
        """
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self._closed:
            _fail(answer, Lost("stopped"))
            return answer
        if self._is_reset():
            _fail(answer, Unsendable())
            return answer
        bisect.insort(self._waiting, (order, data, answer), key=lambda waiting: waiting[0])
        self._pump()
        return answer

    def _is_reset(self) -> bool:
        """Whether the kernel knows of a reset that the event loop has not come to yet."""
        found = self._transport.get_extra_info("socket") if self._transport is not None else None
        return bool(found is not None and found.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    async def open(self) -> None:
        """Connects unless connected. Raises Lost."""
        if not self.is_open:
            if self._opening is None:
                self._opening = asyncio.create_task(self._open())
            await asyncio.shield(self._opening)
        if not self.is_open:
            raise Lost("refused")

    async def close(self) -> None:
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        self._fail_waiting("stopped")
        if self._transport is not None:
            self._transport.abort()
        await self._gone.wait()

    async def _open(self) -> None:
        context = None
        if self._target.tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE  # EMQX's default, verify_none
        loop = asyncio.get_running_loop()
        await self._gone.wait()  # the former connection may be closing still
        try:
            async with asyncio.timeout(self._timeout):
                await loop.create_connection(
                    lambda: self, self._target.host, self._target.port, ssl=context
                )
        except OSError as exc:
            self._fail_waiting(f"not connected: {exc.strerror or type(exc).__name__}")
        finally:
            self._opening = None
        self._pump()  # the connection may be gone again already

    def _fail_waiting(self, reason: str) -> None:
        waiting, self._waiting = self._waiting, []
        for *_, answer in waiting:
            _fail(answer, Lost(reason))

    def _pump(self) -> None:
        if not self.is_open:
            if self._opening is None and self._waiting and not self._closed:
                self._opening = asyncio.create_task(self._open())
            return
        assert self._transport is not None
        while self._waiting and len(self._sent) < self._pipelining:
            _, data, answer = self._waiting.pop(0)
            if not answer.done():
                self._transport.write(data)
                self._sent.append(answer)
                self._expect()

    def _expect(self) -> None:
        """Answers are due: the clock of silence starts again."""
        if self._watch is not None:
            self._watch.cancel()
        loop = asyncio.get_running_loop()
        self._watch = loop.call_later(SILENCE, self._give_up) if self._sent else None

    def _give_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no asyncio.Transport, but do the same.
        self._transport = cast(asyncio.Transport, transport)
        self._gone.clear()
        self._parser = httptools.HttpResponseParser(self)
        self._until_close = None
        self._pump()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.abort()
        self._expect()
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._watch is not None:
            self._watch.cancel()
        if self._until_close is not None and exc is None and self._sent:
            _answer(self._sent.popleft(), self._until_close)
        lost, self._sent = self._sent, deque()
        for answer in lost:
            _fail(answer, Lost("the connection was lost"))
        self._gone.set()
        self._pump()

    # httptools

    def on_message_begin(self) -> None:
        self._lengths = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._lengths = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if not self._lengths and status >= 200 and status not in NO_BODY:
            self._until_close = status

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue and its like: the answer is still to come
            return
        self._until_close = None
        if self._sent:
            _answer(self._sent.popleft(), status)
        if not self._parser.should_keep_alive() and self._transport is not None:
            self._transport.close()


def _answer(future: asyncio.Future[int], status: int) -> None:
    if not future.done():
        future.set_result(status)


def _fail(future: asyncio.Future[int], error: Lost | Unsendable) -> None:
    if not future.done():
        future.set_exception(error)


class Pool:
    """`size` connections to one place. `by_hash`: a sender keeps to one of them."""

    def __init__(
        self, target: Target, *, size: int, pipelining: int, timeout: float, by_hash: bool
    ) -> None:
        self.target = target
        self._connections = [Connection(target, pipelining, timeout) for _ in range(size)]
        self._by_hash = by_hash

    def request(self, data: bytes, sender: int, order: int) -> asyncio.Future[int]:
        """The answer's status; `sender` is the buffer worker. The future fails as in Connection."""
        index = sender % len(self._connections) if self._by_hash else None
        chosen = random.choice(self._connections) if index is None else self._connections[index]
        return chosen.request(data, order)

    async def check(self) -> bool:
        """Whether somebody accepts connections; answers are not waited for, as in EMQX."""
        if any(connection.is_open for connection in self._connections):
            return True
        try:
            await self._connections[0].open()
        except Lost:
            return False
        return True

    async def close(self) -> None:
        await asyncio.gather(*(connection.close() for connection in self._connections))
