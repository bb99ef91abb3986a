"""A webhook that records what a broker posts, and misbehaves when told to.

It runs in a thread of its own, so tests of any kind can use it. Like the service it answers
401 to a wrong token and 400 to what is no message.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Body = dict[str, Any]
RESET = -1
"""In place of a status: the connection is reset before any answer."""
HANG = -2
"""In place of a status: no answer until the webhook closes."""


@dataclass
class Post:
    """One POST that was answered, reset or left hanging with `status`."""

    body: Body
    status: int
    connection: int
    at: float
    headers: dict[str, str] = field(default_factory=dict)


class Webhook:
    """`url` is where `bind` is reached; `host` the name under which the broker knows us."""

    def __init__(self, token: str, *, bind: str = "127.0.0.1", host: str | None = None) -> None:
        self.token = token
        self.path = "/webhook"
        self.posts: list[Post] = []
        self.answer: Callable[[Body], int] = lambda _: 202
        self._bind, self._host = bind, host or bind
        self._port = 0
        self._changed = threading.Condition()
        self._connections: dict[int, asyncio.StreamWriter] = {}
        self._serving: set[asyncio.Task[None] | None] = set()
        self._opened = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    @property
    def local_url(self) -> str:
        """Where this machine reaches it, whatever the broker calls it."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Webhook:
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def listen(self) -> None:
        """Take connections, after `refuse` on the same port."""
        self._call(self._listen())

    def refuse(self) -> None:
        """Reset all connections and take no new ones."""
        self._call(self._refuse())

    @property
    def taken(self) -> list[Body]:
        """The bodies that were answered 2xx, in the order of the answers."""
        with self._changed:
            return [post.body for post in self.posts if 200 <= post.status < 300]

    def forget(self) -> None:
        with self._changed:
            self.posts.clear()

    def wait(self, done: Callable[[list[Body]], bool], timeout: float = 60.0) -> list[Body]:
        """The bodies taken, once `done(bodies)`. Fails with what came instead."""
        end = time.monotonic() + timeout
        with self._changed:
            while True:
                bodies = [post.body for post in self.posts if 200 <= post.status < 300]
                if done(bodies):
                    return bodies
                if (left := end - time.monotonic()) <= 0:
                    shown = [(post.status, post.body.get("payload")) for post in self.posts]
                    raise AssertionError(f"not within {timeout} s; {len(shown)} posts: {shown}")
                self._changed.wait(min(left, 1.0))

    def wait_posts(self, count: int, timeout: float = 60.0) -> list[Post]:
        """All posts, whatever was answered, once there are `count`."""
        end = time.monotonic() + timeout
        with self._changed:
            while len(self.posts) < count:
                if (left := end - time.monotonic()) <= 0:
                    raise AssertionError(f"{len(self.posts)} posts within {timeout} s")
                self._changed.wait(min(left, 1.0))
            return list(self.posts)

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        # Not only after a restart: a port in TIME_WAIT must not stop `listen` after `refuse`.
        listener = socket.socket(socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self._bind, self._port))
        self._port = listener.getsockname()[1]
        self._server = await asyncio.start_server(self._serve, sock=listener, limit=2**24)

    async def _refuse(self) -> None:
        self._server.close()
        for writer in list(self._connections.values()):
            _reset(writer)
        await asyncio.gather(*filter(None, self._serving), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._opened += 1
        number = self._opened
        self._connections[number] = writer
        self._serving.add(asyncio.current_task())
        try:
            while await self._request(number, reader, writer):
                pass
        except (OSError, EOFError):
            pass
        finally:
            del self._connections[number]
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self._serving.discard(asyncio.current_task())

    async def _request(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:])}
        data = await reader.readexactly(int(headers.get("content-length", "0")))
        status, body = self._status(head[0], headers, data)
        with self._changed:
            self.posts.append(Post(body, status, number, time.time(), headers))
            self._changed.notify_all()
        if status == RESET:
            _reset(writer)
            return False
        if status == HANG:
            await reader.read()
            return False
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n".encode())
        await writer.drain()
        return True

    def _status(self, line: str, headers: dict[str, str], data: bytes) -> tuple[int, Body]:
        if line.split(" ")[:2] != ["POST", self.path]:
            return 404, {}
        if headers.get("authorization") != f"Bearer {self.token}":
            return 401, {}
        try:
            body = json.loads(data)
        except ValueError:
            return 400, {}
        if not isinstance(body, dict) or "id" not in body or "topic" not in body:
            return 400, {}
        return self.answer(body), body


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, as a crashed process does, instead of FIN."""
    raw = writer.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
