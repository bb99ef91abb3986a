"""TCP and WebSocket: bytes from a socket to a connection, and back."""

from __future__ import annotations

import asyncio
import errno
import http
import logging
from typing import TYPE_CHECKING, cast

from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from service.demo.standin.mqtt_broker.client_connection import FIRST_PACKET, Connection
from service.demo.standin.mqtt_broker.reason_codes import protocol_error
from service.demo.standin.mqtt_broker.wire import MAX_PACKET_SIZE

if TYPE_CHECKING:
    from service.demo.standin.mqtt_broker.core import MqttBroker

logging.getLogger("websockets").setLevel(logging.CRITICAL)  # what clients do wrong there

PATHS = ("/mqtt", "/")  # EMQX's, and what mqtt.js asks for by itself
SUBPROTOCOLS = [Subprotocol(name) for name in ("mqtt", "mqttv3.1")]
LAST_BYTES = 2.0  # seconds for a client to read what was sent before the end


class Listener:
    """One port. `port` is the system's choice when 0 was asked for."""

    def __init__(self, broker: MqttBroker, host: str, port: int, *, websocket: bool) -> None:
        self._broker = broker
        self._host = host
        self.port = port
        self._kind = WebSocket if websocket else TcpSocket
        self._server: asyncio.Server | None = None
        self.sockets: set[TcpSocket] = set()

    async def start(self) -> None:
        """Raises OSError that names the port."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: self._kind(self, self._broker), self._host, self.port
            )
        except OSError as exc:
            raise port_error(exc, self.port, f"MQTT, {self._kind.label}") from None
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for socket in list(self.sockets):
            socket.abort()
        while self.sockets:  # noqa: ASYNC110 - connection_lost comes in the loop's next turns
            await asyncio.sleep(0)


class TcpSocket(asyncio.Protocol):
    """A client's TCP connection."""

    label = "tcp"

    def __init__(self, listener: Listener, broker: MqttBroker) -> None:
        self._listener = listener
        self._broker = broker
        self._ending: asyncio.TimerHandle | None = None
        self.is_writable = True

    # for the connection

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def unsent(self) -> int:
        return self._transport.get_write_buffer_size()

    def close(self) -> None:
        if self._ending is None:
            loop = asyncio.get_running_loop()
            self._ending = loop.call_later(LAST_BYTES, self.abort)
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no asyncio.Transport, but do the same.
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername") or ("?", 0)
        self.peer = (str(peer[0]), int(peer[1]))
        self._listener.sockets.add(self)
        if self._broker.is_stopping:
            self.abort()
        self._opened()

    def _opened(self) -> None:
        self._connection: Connection | None = self._broker.accept(self)

    def data_received(self, data: bytes) -> None:
        assert self._connection is not None
        self._connection.receive(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ending is not None:
            self._ending.cancel()
        self._listener.sockets.discard(self)
        if self._connection is not None:
            self._connection.lost()

    def pause_writing(self) -> None:
        self.is_writable = False

    def resume_writing(self) -> None:
        self.is_writable = True
        if self._connection is not None:
            self._connection.writable_again()


class WebSocket(TcpSocket):
    """MQTT in binary WebSocket frames; where the frames end means nothing, as the standard says."""

    label = "ws"

    def _opened(self) -> None:
        self._connection = None
        self._protocol = ServerProtocol(subprotocols=SUBPROTOCOLS, max_size=2 * MAX_PACKET_SIZE)
        self._waiting = asyncio.get_running_loop().call_later(FIRST_PACKET, self.abort)

    def write(self, data: bytes) -> None:
        if self._is_open():
            self._protocol.send_binary(data)
            self._flush()

    def _is_open(self) -> bool:
        """False before the handshake, and once the closing handshake has begun."""
        return self._protocol.state is State.OPEN and self._protocol.close_rcvd is None

    def close(self) -> None:
        if self._ending is None:
            if self._is_open():
                self._protocol.send_close(1000)
                self._flush()
            super().close()

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._answer(event)
            elif isinstance(event, Frame) and self._connection is not None:
                self._frame(event, self._connection)
        self._flush()
        if self._protocol.close_expected():
            super().close()

    def eof_received(self) -> None:
        self._protocol.receive_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self._waiting.cancel()
        super().connection_lost(exc)

    def _answer(self, request: Request) -> None:
        path = request.path.partition("?")[0]
        if path not in PATHS:
            response = self._refusal(http.HTTPStatus.NOT_FOUND, "MQTT is at /mqtt\n")
        elif not _offers(request.headers):
            words = "a WebSocket for MQTT has to offer the subprotocol mqtt\n"
            response = self._refusal(http.HTTPStatus.BAD_REQUEST, words)
        else:
            response = self._protocol.accept(request)
        self._protocol.send_response(response)
        if response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
            self._waiting.cancel()
            super()._opened()

    def _refusal(self, status: http.HTTPStatus, words: str) -> Response:
        return self._protocol.reject(status, words)

    def _frame(self, frame: Frame, connection: Connection) -> None:
        if frame.opcode in (Opcode.BINARY, Opcode.CONT):
            if frame.data:
                connection.receive(bytes(frame.data))
        elif frame.opcode is Opcode.TEXT:
            fault = protocol_error("a text frame; MQTT goes in binary frames")
            connection.end(fault.reason, fault.words)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                TcpSocket.write(self, data)
            else:  # the WebSocket is at its end, in order or for a fault
                TcpSocket.close(self)


def _offers(headers: Headers) -> bool:
    offered = {
        name.strip()
        for line in headers.get_all("Sec-WebSocket-Protocol")
        for name in line.split(",")
    }
    return not offered.isdisjoint(SUBPROTOCOLS)


def port_error(exc: OSError, port: int, use: str) -> OSError:
    """The same error, with the port named."""
    taken = exc.errno == errno.EADDRINUSE
    why = "is taken" if taken else f"can't be used: {exc.strerror}"
    return OSError(exc.errno, f"port {port} {why} ({use})")
