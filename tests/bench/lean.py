"""An HTTP server for the ends of the bench: as little CPU as Python allows, no framework."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import orjson

Reply = Callable[[int, bytes], None]
Handler = Callable[[str, str, bytes, "Connection"], None]
"""(method, path, body, connection); answers through the connection, now or later."""

_HEAD = b"\r\n\r\n"


class Connection(asyncio.Protocol):
    """One client. Answers leave in the order in which the handler gives them."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._buffer = b""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        while True:
            end = buffer.find(_HEAD)
            if end < 0:
                break
            head = buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            stop = end + 4 + length
            if len(buffer) < stop:
                break
            method, path, _ = buffer[: buffer.find(b"\r\n")].decode("latin-1").split(" ", 2)
            body = buffer[end + 4 : stop]
            buffer = buffer[stop:]
            self._handler(method, path, body, self)
        self._buffer = buffer

    def send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def answer(self, body: bytes, status: int = 200, headers: bytes = b"") -> None:
        self.send(response(body, status, headers))

    def json(self, value: Any, status: int = 200) -> None:
        self.answer(orjson.dumps(value), status)


def response(body: bytes, status: int = 200, headers: bytes = b"") -> bytes:
    """A whole response."""
    return b"HTTP/1.1 %d OK\r\ncontent-type: application/json\r\n%scontent-length: %d\r\n\r\n%s" % (
        status,
        headers,
        len(body),
        body,
    )


async def serve(handler: Handler) -> None:
    """Listen on a free port of loopback, say which on stdout, serve until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(handler), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
