"""uvicorn's HTTP protocol with bounds: sizes, times and one way to read a request.

What breaks them is answered in its turn, like any other request; nothing behind it is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httptools
from starlette.responses import Response
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import ApiError
from service.web.connections import Connections
from service.web.http import error_response

PIECE = 16 << 10  # bytes that are looked at before bounds are
PIECE_OF_STRANGER = 2 << 10  # likewise; the smallest request has 26 bytes
BUFFER, BUFFER_OF_STRANGER = 1 << 20, 16 << 10  # bytes that the kernel holds for us
THROWN_AWAY = 128 << 10  # bytes of a stranger; more stay unread until the connection is closed
GARBAGE = "this is not HTTP/1.1"


class Refused(ApiError):
    """What came is answered with this, and nothing after it is read."""

    def __init__(self, message: str, *, code: str = "bad_request", status: int = 400) -> None:
        super().__init__(message, code=code)
        self.status = status


class _Transport:
    """A transport that takes words for who is gone: uvloop raises, before it says so."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            with contextlib.suppress(RuntimeError):  # closed, and not even `is_closing` knows it
                self._transport.write(data)

    def write_eof(self) -> None:
        if self._transport.is_closing():
            return
        try:
            self._transport.write_eof()
        except (OSError, RuntimeError):  # reset by the other side, and nobody has told us yet
            self._transport.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Flow(FlowControl):
    """Reads on only when there is room for what comes; uvicorn asks for it without looking."""

    def __init__(self, transport: asyncio.Transport, room: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._room = room

    def pause_reading(self) -> None:
        if not self._transport.is_closing():
            super().pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused and not self._transport.is_closing() and self._room():
            super().resume_reading()


class Bounded(HttpToolsProtocol):
    """One connection. Times are those of the event loop."""

    def __init__(self, *args: Any, connections: Connections, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.address = ""
        self.trusted = False
        self._among = connections
        self._bounds = connections.bounds
        self._read_at = 0.0
        self._half_closed = False
        self._closed_by: float | None = None
        self._last_word: bytes | None = None  # written once all before it is answered
        self._unread: tuple[int, float] | None = None  # bytes that nobody takes, and since when
        self._rest = b""  # read of the kernel, and not looked at yet: there is no room
        self._thrown_away = 0  # bytes that came after our last word
        self._feeding = False
        self._head = 0  # bytes of the head that is being read
        self._head_since: float | None = None
        self._around = 0  # bytes that came with the body and are none of it
        self._body_since: float | None = None
        self._body_size = 0  # bytes of it that have come
        self._running: Any = None  # the last of uvicorn's cycles that was begun

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Transport(transport))  # type: ignore[arg-type]
        self._receive_buffer(BUFFER_OF_STRANGER)
        self.flow = _Flow(transport, self._room)
        self._read_at = self.loop.time()
        self.address = self.client[0] if self.client else ""
        if not self._among.add(self):
            self.drop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._among.remove(self)
        if (running := self._running) is not None and not running.response_complete:
            # uvicorn tells only the request that was read last.
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._read_at = self.loop.time()
        if self._half_closed or self._last_word is not None:
            self._thrown_away += len(data)
            if self._thrown_away > THROWN_AWAY and not self.trusted:
                self.flow.pause_reading()
            return
        self._unset_keepalive_if_required()
        self._rest += data
        if not self._take_rest():
            self.flow.pause_reading()

    def _room(self) -> bool:
        """Whether to read on; what was read already comes first."""
        if self._half_closed:
            return True
        return not self.flow.write_paused and self._take_rest()

    def _take_rest(self) -> bool:
        """Look at what was read, as long as there is room. Whether all of it was."""
        if self._feeding:
            return False
        self._feeding, data, at = True, self._rest, 0
        try:
            while at < len(data) and self._last_word is None and not self._full():
                at = self._take(data, at)
        finally:
            self._feeding = False
        self._rest = data[at:] if self._last_word is None else b""
        return not self._rest and not self._full()

    def _take(self, data: bytes, at: int) -> int:
        """Look at a piece of what was read, from `at` on; where it ends."""
        end = at + (PIECE if self.trusted else PIECE_OF_STRANGER)
        self._feed(data[at:end])
        return end

    def _full(self) -> bool:
        """Whether what comes next has to wait: as much as there may be is in hand."""
        if not self.trusted and not Bounded.idle(self):
            # One at a time. Of its body a little is read: a login is a stranger's too.
            return self._body_since is None or len(self._running.body) >= PIECE_OF_STRANGER
        return len(self.pipeline) >= self._bounds.pipelined

    def _feed(self, data: bytes) -> None:
        if self._head_since is not None:
            self._head += len(data)
        elif self._body_since is not None:
            self._around += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # It is answered as what it is without: a request. What follows might be anything.
            self._last_word = b""
            if self.idle():
                self._say_last_word()
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, Refused) else Refused(GARBAGE))
        else:
            if self._head > self._bounds.head:
                self._refuse(_too_large("bytes of request line and headers", self._bounds.head))
            elif self._body_since is not None and self._around > self._bounds.around:
                self._refuse(Refused("more bytes around the body than in it"))
            elif self._body_since is not None:
                self._among.hold(self, self._body_size)

    def pause_writing(self) -> None:
        """Who does not take answers gets no more of them."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_on()

    def _read_on(self) -> None:
        self.flow.resume_reading()

    # One request

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head, self._head_since = 0, self._read_at

    def on_url(self, url: bytes) -> None:
        most = self._bounds.url
        if len(self.url) + len(url) > most:
            why = f"the URL has more than {most} bytes"
            raise Refused(why, code="url_too_long", status=414)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._body_since is not None:
            raise Refused("no trailers are taken")
        super().on_header(name, value)
        if len(self.headers) > self._bounds.headers:
            raise _too_large("headers", self._bounds.headers)

    def on_headers_complete(self) -> None:
        length = self._length_of_body()
        self._head, self._head_since = 0, None
        self._body_since = self._read_at if length else None
        self._around = self._body_size = 0
        self._begin(length)

    def _begin(self, length: int) -> None:
        """A request begins; its body has so many bytes (-1: it comes in chunks)."""
        trust = functools.partial(self._among.trust, self)
        self.scope["trust"] = trust  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()

    def _length_of_body(self) -> int:
        """Bytes; -1: it comes in chunks. Said once, like the host: or else two readers may see
        two requests."""
        length, said, hosts = 0, 0, 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                if not value.isdigit() or len(value) > 18:
                    raise Refused("Content-Length is no number")
                length, said = int(value), said + 1
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked":
                    raise Refused("Transfer-Encoding is not chunked")
                length, said = -1, said + 1
        old = self.parser.get_http_version() == "1.0"
        if length and self.parser.should_upgrade():
            raise Refused("a request with a body can't ask for another protocol (Upgrade)")
        if said > 1 or (old and length < 0):
            raise Refused("send one Content-Length, or chunked")
        if hosts > 1 or (not hosts and not old):
            raise Refused("send one Host header")
        return length

    def on_body(self, body: bytes) -> None:
        self._around -= len(body)
        if not self.cycle.response_complete:  # else nobody keeps it
            self._body_size += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._body_came()
        super().on_message_complete()

    def _body_came(self) -> None:
        """Whole, or not any more."""
        self._body_since = None
        self._among.hold(self, 0)

    def on_trusted(self) -> None:
        """A valid token came: as much may be under way as EMQX likes."""
        self.trusted = True
        self._receive_buffer(BUFFER)

    def _receive_buffer(self, size: int) -> None:
        sock = self.transport.get_extra_info("socket")
        if sock is not None and not self.transport.is_closing():
            with contextlib.suppress(OSError):  # gone already
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        start = functools.partial(super()._start_asgi_task, cycle, app)
        if self.trusted:
            start()
        else:
            self._among.in_turn(start)

    def on_response_complete(self) -> None:
        # Who waits for "100 Continue" does not send the body any more; a stranger need not.
        unwanted = self.expect_100_continue or not self.trusted
        cut = self._body_since is not None and not self.pipeline and unwanted
        super().on_response_complete()
        if self.transport.is_closing() or not self.idle():
            return
        if cut and self._last_word is None:
            # Answered before its body had come: nobody wants the rest of it.
            self._running.body.clear()
            self._last_word = b""
        if self._last_word is not None:
            self._say_last_word()

    def idle(self) -> bool:
        """Whether nothing of it is being answered."""
        answered = self._running is None or self._running.response_complete
        return answered and not self.pipeline

    # The end

    def _refuse(self, refused: Refused) -> None:
        self._among.refuse(str(refused), self.address)
        answer = error_response(refused)
        answer.headers["connection"] = "close"
        if refused.status == 503:
            answer.headers["retry-after"] = "1"
        self._rest = b""
        self._last_word = written(answer)
        if self._body_since is not None:
            self._give_up_body()
        if self.idle():
            self._say_last_word()

    def _give_up_body(self) -> None:
        """The request whose body is being read gets no other answer than the last word."""
        cycle = self.cycle
        self._body_came()
        if cycle.response_started:
            self.drop()
            return
        if self.pipeline:
            self.pipeline.popleft()  # it never began
        cycle.disconnected = cycle.response_complete = True
        cycle.message_event.set()

    def _say_last_word(self) -> None:
        """And close our half. Closed whole at once, the kernel would throw the word away with
        what the other side still sends."""
        if self._half_closed or self.transport.is_closing():
            return
        self._closed_by = self.loop.time() + self._bounds.close_time
        self.transport.write(self._last_word or b"")
        self._close_half()

    def _close_half(self) -> None:
        self._half_closed = True
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.transport.write_eof()

    def give_way(self) -> None:
        """Its body is the oldest of too many that are on their way."""
        why = "too many bodies at once are on their way"
        self._refuse(Refused(why, code="unavailable", status=503))

    def check(self, now: float) -> None:
        """Close it if something takes too long."""
        bounds = self._bounds
        if self._rest:
            pass  # it is we who do not read on
        elif self._head_since is not None and now - self._head_since > bounds.head_time:
            self._head_since = None
            self._refuse_slow("head", 408)
        elif self._body_since is not None and now - self._body_since > bounds.body_time:
            self._refuse_slow("body", 408)
        elif self._closed_by is not None and now > self._closed_by:
            self.drop()
        self._check_unread(now)

    def _refuse_slow(self, part: str, status: int) -> None:
        why = f"the request's {part} did not come whole"
        self._refuse(Refused(why, code="too_slow", status=status))

    def _check_unread(self, now: float) -> None:
        size = self.transport.get_write_buffer_size()
        if not size:
            self._unread = None
        elif self._unread is None or size < self._unread[0]:
            self._unread = (size, now)
        elif now - self._unread[1] > self._bounds.unread_time:
            self._among.refuse("answers that nobody reads", self.address)
            self.drop()

    def drop(self) -> None:
        """Close it, now."""
        self._half_closed = True
        self.transport.abort()


def _too_large(what: str, most: int) -> Refused:
    return Refused(f"more {what} than {most}", code="headers_too_large", status=431)


def written(answer: Response) -> bytes:
    """A whole answer as it goes over the wire."""
    status = answer.status_code
    lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
    lines += [name + b": " + value for name, value in answer.raw_headers]
    return b"\r\n".join([*lines, b"", bytes(answer.body)])
