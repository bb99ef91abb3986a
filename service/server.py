"""uvicorn for this service: our signals, our log, keep-alive long enough for EMQX."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import uvicorn

from service.errors import ConfigError, Fault
from service.supervised import Link
from service.web.connections import ConnectionBounds, Connections
from service.web.pipelined import Pipelined

KEEP_ALIVE = 120  # seconds, for connections other than EMQX's
_SIGNALS = [
    number for name in ("SIGTERM", "SIGINT", "SIGHUP") if (number := getattr(signal, name, None))
]


log = logging.getLogger("emqx-gpt")


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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close without resetting anything that EMQX may write to."""
        still = [sock.dup() for sock in sockets or ()]
        for server in self.servers:
            server.close()
        for sock in still:
            # What waits in the listen queue would be reset with it.
            await self._accept_waiting(sock)
            sock.close()
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.close()  # the other side had its time to close
        await asyncio.sleep(0)  # until they are

    async def _accept_waiting(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # none is left
            while True:
                waiting, _ = sock.accept()
                waiting.setblocking(False)
                await loop.connect_accepted_socket(self._protocol, waiting)

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )


def make_server(app: Any, sock: socket.socket | None = None) -> Server:
    """A server for `app`."""
    connections = Connections(ConnectionBounds(connections=app.state.max_connections))
    connections.open_files()
    config = uvicorn.Config(
        app,
        # uvicorn only ever calls it, and a class could not carry the webhook
        http=functools.partial(  # type: ignore[arg-type]
            Pipelined,
            webhook=app.state.webhook,
            connections=connections,
            max_body=app.state.max_body,
        ),
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


async def serve(
    server: Server,
    sock: socket.socket,
    drain: Callable[[], Awaitable[None]],
    link: Link | None = None,
    reload: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT, also while `drain` finishes what is in hand; then close
    the connections and return. A second signal does not wait for `drain`; with a `link` it has
    to be the parent that got it, since systemd signals all processes of a service at once. On
    SIGHUP, `reload` is called."""
    loop = asyncio.get_running_loop()
    draining: asyncio.Task[None] | None = None

    async def finish() -> None:
        try:
            await drain()
        except Exception:
            log.exception("an internal error while shutting down")
        finally:
            server.should_exit = True

    def stop() -> None:
        nonlocal draining
        if draining is None:
            draining = loop.create_task(finish())
        else:
            draining.cancel()

    def begin() -> None:
        if draining is None:
            stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop if link is None else begin)
    if link is not None:
        link.watch(stop, reload)
    elif hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        await server.serve(sockets=[sock])
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
