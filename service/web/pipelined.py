"""Webhooks of one connection do not wait for each other, and EMQX's connections are not broken.

EMQX loses a message when a connection breaks just as it sends on it, so a connection on which
webhooks came is never closed for being idle, and closed at the end of the process in the way that
can't reset: half, once it is quiet, and whole when EMQX has closed its half.

uvicorn answers the pipelined requests of a connection in turn, so that as many would share a
commit as EMQX has connections. Here each POST /webhook is taken in hand as soon as it is
read; answers leave in the order of the requests, and those that are ready together in one
write. Everything else, and what does not look like EMQX's own requests, goes uvicorn's way.

EMQX writes the same head again and again. One that was parsed and let in is known by its bytes:
the same bytes mean the same, and are not parsed twice (ADR 5).
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import Any

from starlette.responses import Response

from service.web.bounded import PIECE, Bounded, written
from service.web.webhook import Headers, Webhook

IN_HAND = 200  # webhooks of one connection; more are left unread
HELD = 4 << 20  # bytes of their bodies, likewise
END_OF_HEAD = b"\r\n\r\n"
HEAD = 2048  # bytes of a head that is kept to be known again
HEADS = 256  # of one connection: they differ in their Content-Length only
QUIET = 0.2  # seconds without a request before a connection is closed
LONGEST = 2.0  # seconds to wait for that
KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


class _Busy:
    """Stands for a request in hand, so that uvicorn queues what comes behind it."""

    response_complete = False
    keep_alive = True
    disconnected = False
    message_event = asyncio.Event()


class Pipelined(Bounded):
    """One connection."""

    def __init__(
        self, *args: Any, webhook: Webhook, max_body: int, path: bytes = b"/webhook", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._webhook = webhook
        self._max_body = max_body
        self._path = path
        self._of_emqx = False  # an authorized webhook came this way
        self._shut_by: float | None = None  # time of the loop: closed then, quiet or not
        self._body: bytearray | None = None  # of the webhook that is being read
        self._length = 0  # bytes that it will have
        self._heads: dict[bytes, tuple[int, Headers]] = {}  # known: bytes of body, headers
        self._answers: deque[tuple[asyncio.Future[Response], int]] = deque()
        self._held = 0  # bytes of the bodies in hand

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # What is never closed for being idle must end by itself when the other side is gone.
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in KEEPALIVE:
                sock.setsockopt(socket.IPPROTO_TCP, name, value)

    # One webhook

    def _begin(self, length: int) -> None:
        if self._is_plain_webhook(length) and self._webhook.authorized(self.headers):
            if not self._of_emqx:
                self._of_emqx = True
                self._among.trust(self)
            self._body, self._length = bytearray(), length
            return
        if self._answers:
            self.cycle = _Busy()  # type: ignore[assignment]
        super()._begin(length)

    def _is_plain_webhook(self, length: int) -> bool:
        if self.url != self._path or self.parser.get_method() != b"POST":
            return False
        if not self._at_rest():
            return False
        if self.expect_100_continue or not self.parser.should_keep_alive():
            return False
        return 0 < length <= self._max_body

    def _at_rest(self) -> bool:
        """Whether uvicorn has nothing to answer here."""
        return not self.pipeline and (self.cycle is None or self.cycle.response_complete)

    def _take(self, data: bytes, at: int) -> int:
        """In pieces that end where a head or a body ends, to know the next head again."""
        if not self._of_emqx or self._head_since is not None:
            return super()._take(data, at)
        if self._body is not None:
            end = min(at + PIECE, at + self._length - len(self._body))
            self._feed(data[at:end])
            return end
        start = data.find(END_OF_HEAD, at, at + HEAD) + len(END_OF_HEAD)
        if start < len(END_OF_HEAD) or self._body_since is not None or not self._at_rest():
            return super()._take(data, at)
        head = data[at:start]
        known = self._heads.get(head)
        if known is not None and start + known[0] <= len(data):
            length, headers = known
            self._take_in_hand(headers, data[start : start + length])
            return start + length
        self._feed(head)
        if known is None and self._body is not None and not self._body:
            if len(self._heads) >= HEADS:
                self._heads.clear()
            self._heads[head] = self._length, self.headers
        return start

    def on_body(self, body: bytes) -> None:
        if self._body is None:
            super().on_body(body)
        else:
            self._around -= len(body)
            self._body += body
            self._body_size += len(body)

    def on_message_complete(self) -> None:
        if self._body is None:
            super().on_message_complete()
            return
        body, self._body = bytes(self._body), None
        self._body_came()
        self._take_in_hand(self.headers, body)

    def _take_in_hand(self, headers: Headers, body: bytes) -> None:
        answer = self._webhook.take_reading(body)
        if answer is None:
            answer = self.loop.create_task(self._webhook.take(headers, body))
        told = bool(self._answers) and self._answers[-1][0] is answer
        self._answers.append((answer, len(body)))
        self._held += len(body)
        self.server_state.total_requests += 1
        if not told:
            answer.add_done_callback(self._answered)

    def _answered(self, answer: asyncio.Future[Response]) -> None:
        answers = self._answers
        if not answers or answers[0][0] is not answer:
            return  # written together with the one that it waits for
        ready: list[bytes] = []
        last: Response | None = None
        while answers and answers[0][0].done():
            done, size = answers.popleft()
            response = done.result()  # mostly the same one
            ready.append(ready[-1] if response is last else written(response))
            last = response
            self._held -= size
        if self.transport.is_closing():
            return
        self.transport.write(b"".join(ready))
        self._read_on()
        if answers:
            return
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._last_word is not None:
            self._say_last_word()
        elif self._shut_by is not None:
            self._half_close_when_quiet()
        else:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _full(self) -> bool:
        return len(self._answers) >= IN_HAND or self._held >= HELD or super()._full()

    def _read_on(self) -> None:
        if len(self._answers) < IN_HAND // 2 and self._held < HELD // 2:
            super()._read_on()

    def idle(self) -> bool:
        return not self._answers and super().idle()

    def _refuse_slow(self, part: str, status: int) -> None:
        """EMQX keeps its message on a 503."""
        super()._refuse_slow(part, status if self._body is None else 503)

    def _give_up_body(self) -> None:
        if self._body is None:
            super()._give_up_body()
        self._body = None
        self._body_came()

    # The end

    def timeout_keep_alive_handler(self) -> None:
        if not self._of_emqx:
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        if self.cycle is not None and not self._of_emqx:
            super().shutdown()
            return
        self._shut_by = self.loop.time() + LONGEST
        self._half_close_when_quiet()

    def _half_close_when_quiet(self) -> None:
        """Our FIN, when no request is likely to be on its way. What comes all the same is read
        and thrown away: unread, the kernel would answer it with a reset."""
        if self._answers or self._half_closed or self.transport.is_closing():
            return
        now = self.loop.time()
        if now < min(self._read_at + QUIET, self._shut_by or 0.0):
            self.loop.call_later(QUIET / 4, self._half_close_when_quiet)
            return
        self._close_half()
