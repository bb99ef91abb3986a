"""Webhooks the way EMQX sends them with the action that we ship.

A client's messages go to one of 16 buffer workers, each with up to 100 of them out
(`inflight_window`), and a worker keeps to one of 8 keep-alive connections (`pool_type = hash`)
with up to 100 requests pipelined on each. Many clients keep all of them busy; one publisher that
speaks for many users has one worker and one connection.
"""

from __future__ import annotations

import asyncio
import random
import time
import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import orjson

CONNECTIONS = 8
PIPELINED = 100
WORKERS = 16
WINDOW = 100
USERS = 1000
_MARK = b"HTTP/1.1 "
_TAIL = len(_MARK) + 3  # a status line may be cut in two; keep what could be its front


@dataclass
class Posted:
    """What came of a load: how long it took, and each answer's latency in seconds."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    refused: int = 0

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds


def question(run: str, number: int) -> str:
    """The text of a request; it comes back as the reply."""
    return f"{run}-{number:07d} Which lamp in the kitchen is still on?"


def webhook(
    run: str, number: int, *, flow: str = "chat", users: int = USERS, publishers: int = USERS
) -> bytes:
    """One rule output as EMQX posts it, whole. Each of the users asks in a topic of its own;
    `publishers` clients publish for them."""
    user = f"u{number % users:04d}"
    now = time.time_ns() // 1_000_000
    body = orjson.dumps(
        {
            "flow": flow,
            "id": f"{run}{number:019d}",
            "clientid": f"device-{number % users % publishers:04d}",
            "username": "bench",
            "topic": f"{flow}/request/{user}",
            "payload": question(run, number),
            "qos": 1,
            "pub_props": {"User-Property": {}},
            "publish_received_at": now,
            "correlation_base64": "",
        }
    )
    return (
        b"POST /webhook HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json\r\n"
        b"cache-control: no-cache\r\nconnection: keep-alive\r\ncontent-type: application/json\r\n"
        b"keep-alive: timeout=5\r\nauthorization: Bearer webhook-token\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(body), body)
    )


@dataclass(eq=False)
class _Worker:
    """A buffer worker: what it has still to send, and how much of it is out."""

    todo: deque[bytes] = field(default_factory=deque)
    out: int = 0


def _worker_of(request: bytes) -> int:
    """By its client, as EMQX chooses (`dispatch_strategy = per_clientid`)."""
    at = request.index(b'"clientid":"')
    return zlib.crc32(request[at : request.index(b'"', at + 12)]) % WORKERS


class _Line(asyncio.Protocol):
    """A connection that counts status lines; bodies are of no interest."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._tail = b""
        self.sent: deque[tuple[float, _Worker]] = deque()
        self.workers: list[_Worker] = []
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._tail + data
        at = data.rfind(_MARK)
        while at >= 0 and len(data) < at + _TAIL:  # its status is still on the way
            at = data.rfind(_MARK, 0, at)
        after = at + _TAIL if at >= 0 else 0
        self._tail = data[max(after, len(data) - _TAIL) :]
        whole = data[:after]
        answers = whole.count(_MARK)
        self._load.answered(self, answers, answers - whole.count(b"HTTP/1.1 202"))

    def fill(self) -> None:
        """Send what the windows allow, of each worker in turn."""
        batch: list[bytes] = []
        now = time.monotonic()
        for worker in self.workers:
            room = min(WINDOW - worker.out, PIPELINED - len(self.sent), len(worker.todo))
            for _ in range(room):
                batch.append(worker.todo.popleft())
                self.sent.append((now, worker))
            worker.out += max(0, room)
        if batch:
            self.transport.write(b"".join(batch))

    def post(self, request: bytes, due: float) -> None:
        """Now, whatever is out already."""
        self.sent.append((due, self.workers[0]))
        self.workers[0].out += 1
        self.transport.write(request)

    def connection_lost(self, error: Exception | None) -> None:
        self._load.broken(self, error)


class Load:
    """Posts requests and waits for all answers; each `post` is one run."""

    def __init__(self, port: int, *, connections: int = CONNECTIONS) -> None:
        self._port = port
        self._connections = connections
        self._lines: list[_Line] = []
        self._left = 0
        self._latencies: list[float] = []
        self._refused = 0
        self._done: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Load:
        return self

    async def _connect(self) -> None:
        self._abort()
        loop = asyncio.get_running_loop()
        for _ in range(self._connections):
            _, line = await loop.create_connection(lambda: _Line(self), "127.0.0.1", self._port)
            self._lines.append(line)

    async def __aexit__(self, *_: object) -> None:
        self._abort()

    def _abort(self) -> None:
        for line in self._lines:
            line.transport.abort()
        self._lines = []

    async def post(
        self,
        requests: list[bytes],
        *,
        rate: float | None = None,
        fresh: bool = True,
        timeout: float = 120,
    ) -> Posted:
        """As fast as answers come, or (rate a second) at random moments, come what may.

        At a rate, a latency counts from the moment at which the request was due. `fresh`: over
        new connections, since a server closes what was idle for a while.
        """
        if fresh or not self._lines:
            await self._connect()
        self._left, self._latencies, self._refused = len(requests), [], 0
        self._done = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        async with asyncio.timeout(timeout):
            if rate is None:
                workers = [_Worker() for _ in range(WORKERS)]
                for request in requests:
                    workers[_worker_of(request)].todo.append(request)
                began = time.monotonic()
                for at, line in enumerate(self._lines):
                    line.workers = workers[at :: len(self._lines)]
                    line.fill()
            else:
                for line in self._lines:
                    line.workers = [_Worker()]
                await self._paced(requests, rate)
            await self._done
        return Posted(time.monotonic() - began, self._latencies, self._refused)

    async def _paced(self, requests: list[bytes], rate: float) -> None:
        due = time.monotonic()
        for number, request in enumerate(requests):
            due += random.expovariate(rate)
            wait = due - time.monotonic()
            if wait > 0.0005:
                await asyncio.sleep(wait)
            self._lines[number % len(self._lines)].post(request, due)

    def answered(self, line: _Line, count: int, refused: int) -> None:
        now = time.monotonic()
        for _ in range(count):
            sent, worker = line.sent.popleft()
            worker.out -= 1
            self._latencies.append(now - sent)
        self._refused += refused
        self._left -= count
        line.fill()
        if self._left <= 0 and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def broken(self, line: _Line, error: Exception | None) -> None:
        if (
            line in self._lines
            and self._left > 0
            and self._done is not None
            and not self._done.done()
        ):
            self._done.set_exception(error or ConnectionError("the server closed a connection"))
