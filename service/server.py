"""uvicorn for this service: our signals, our log, keep-alive long enough for EMQX."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import signal
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from service.errors import ConfigError, Fault
from service.web.pipelined import Pipelined

KEEP_ALIVE = 120  # seconds; EMQX holds its connections open and posts on them when it likes


class Server(uvicorn.Server):
    """A uvicorn server that ends with exit code 0 on SIGTERM and SIGINT."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn would raise the signal again at the end; `run` handles it instead."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started:
            self.should_exit = True


def make_server(app: Any, sock: socket.socket | None = None) -> Server:
    """A server for `app`."""
    config = uvicorn.Config(
        app,
        # uvicorn only ever calls it, and a class could not carry `take`
        http=functools.partial(Pipelined, take=app.state.take),  # type: ignore[arg-type]
        proxy_headers=False,
        lifespan="on",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=5,
        backlog=2048,
    )
    return Server(config)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError that names the port and the way out."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol by name: asyncio turns Nagle off only then, at 40 ms an answer otherwise.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        hint = "another program listens there; choose another PORT"
        if error.errno != errno.EADDRINUSE:
            hint = "choose an address of this machine as HOST, and a PORT you may use"
        fault = Fault("PORT", f"can't listen on {host}:{port}: {error.strerror}", hint=hint)
        raise ConfigError("can't listen", (fault,)) from None
    sock.listen(2048)
    sock.setblocking(False)
    return sock


async def serve(server: Server, sock: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await server.serve(sockets=[sock])
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
