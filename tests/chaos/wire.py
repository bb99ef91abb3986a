"""Pipelined keep-alive connections to the webhooks, as EMQX's connector holds them."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httptools

RESET = struct.pack("ii", 1, 0)


class Lost(Exception):
    """Refused, closed or reset before the answer: EMQX sends it again."""


class Gone(Lost):
    """Sent into a connection that the other side had closed: EMQX 5.8.9 gives the message up.

    Its client finds the socket closed under it (`{error, einval}`), and counts that as final.
    """


@dataclass(frozen=True, slots=True)
class Answer:
    """`took` counts from when the connection's earlier answers were out of the way."""

    status: int
    body: bytes
    took: float
    port: int


@dataclass(slots=True)
class _Sent:
    at: float
    answer: asyncio.Future[Answer]


class Connection(asyncio.Protocol):
    """Opens itself when there is something to send, to any of the ports."""

    def __init__(self, ports: Sequence[int], rng: random.Random) -> None:
        self._ports = ports
        self._rng = rng
        self._port = 0
        self._transport: Any = None
        self._opening: asyncio.Task[None] | None = None
        self._waiting: deque[tuple[bytes, asyncio.Future[Answer]]] = deque()
        self._sent: deque[_Sent] = deque()
        self._answered_at = 0.0
        self._body = b""
        self.on_sent: Callable[[int], None] = lambda port: None

    @property
    def pipelined(self) -> int:
        """Requests that are out and not answered."""
        return len(self._sent)

    def request(self, data: bytes) -> asyncio.Future[Answer]:
        """Its future fails with Lost. Without an answer it waits for ever, as EMQX does."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((data, future))
        self._pump()
        return future

    def reset(self) -> None:
        """RST, with whatever is on the way."""
        if self._transport is not None:
            wire = self._transport.get_extra_info("socket")
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._transport.abort()

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        self.reset()

    def _pump(self) -> None:
        if self._transport is None:
            if self._opening is None and self._waiting:
                self._opening = asyncio.get_running_loop().create_task(self._open())
            return
        while self._waiting:
            data, future = self._waiting.popleft()
            if self._closed_by_peer():
                _fail(future, Gone("the connection was closed under it"))
                continue
            self._transport.write(data)
            self._sent.append(_Sent(time.monotonic(), future))
            self.on_sent(self._port)

    def _closed_by_peer(self) -> bool:
        """Whether a FIN or RST has come that this side has not noticed yet."""
        number = self._transport.get_extra_info("socket").fileno()
        if number < 0:
            return True
        with socket.socket(fileno=os.dup(number)) as same:
            try:
                return same.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
            except BlockingIOError:
                return False
            except OSError:
                return True

    async def _open(self) -> None:
        self._port = self._rng.choice(self._ports)
        try:
            async with asyncio.timeout(5):
                await asyncio.get_running_loop().create_connection(
                    lambda: self, "127.0.0.1", self._port
                )
        except OSError:  # TimeoutError is one of them
            waiting, self._waiting = self._waiting, deque()
            for _, future in waiting:
                _fail(future, Lost("refused"))
        finally:
            self._opening = None
        self._pump()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self._pump()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.reset()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        sent, self._sent = self._sent, deque()
        for one in sent:
            _fail(one.answer, Lost("the connection was lost"))
        self._pump()

    # httptools

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        body, self._body = self._body, b""
        if not self._sent:
            return
        one, now = self._sent.popleft(), time.monotonic()
        took = now - max(one.at, self._answered_at)
        self._answered_at = now
        if not one.answer.done():
            status = self._parser.get_status_code()
            one.answer.set_result(Answer(status, body, took, self._port))


def _fail(future: asyncio.Future[Answer], error: Lost) -> None:
    if not future.done():
        future.set_exception(error)
