"""uvicorn's HTTP protocol, but webhooks of one connection do not wait for each other.

uvicorn answers the pipelined requests of a connection in turn, so that as many would share a
commit as EMQX has connections. Here each POST /webhook is taken in hand as soon as it is
read; answers leave in the order of the requests, and those that are ready together in one
write. Everything else, and what does not look like EMQX's own requests, goes uvicorn's way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Take = Callable[[Sequence[tuple[bytes, bytes]], bytes], Coroutine[Any, Any, Response]]
"""(headers, body) → the answer, some time within the webhook's limit."""

IN_HAND = 200  # webhooks of one connection; more are left unread
HELD = 4 << 20  # bytes of their bodies, likewise
BYTES = 1 << 20  # bodies up to here; larger ones go uvicorn's way, with its bounds


class _Busy:
    """Stands for a request in hand, so that uvicorn queues what comes behind it."""

    response_complete = False
    keep_alive = True
    disconnected = False
    message_event = asyncio.Event()


class Pipelined(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, take: Take, path: bytes = b"/webhook", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._take = take
        self._path = path
        self._body: bytearray | None = None  # of the webhook that is being read
        self._answers: deque[tuple[asyncio.Task[Response], int]] = deque()
        self._held = 0  # bytes of the bodies in hand
        self._closing = False

    def on_headers_complete(self) -> None:
        if self._is_plain_webhook():
            self._body = bytearray()
            return
        if self._answers:
            self.cycle = _Busy()  # type: ignore[assignment]
        super().on_headers_complete()

    def _is_plain_webhook(self) -> bool:
        if self.url != self._path or self.parser.get_method() != b"POST":
            return False
        if self.pipeline or (self.cycle is not None and not self.cycle.response_complete):
            return False
        if self.expect_100_continue or not self.parser.should_keep_alive():
            return False
        for name, value in self.headers:
            if name == b"content-length":
                return len(value) < 8 and int(value) <= BYTES
        return False

    def on_body(self, body: bytes) -> None:
        if self._body is None:
            super().on_body(body)
        else:
            self._body += body

    def on_message_complete(self) -> None:
        if self._body is None:
            super().on_message_complete()
            return
        body, self._body = bytes(self._body), None
        answer = self.loop.create_task(self._take(self.headers, body))
        self._answers.append((answer, len(body)))
        self._held += len(body)
        self.server_state.total_requests += 1
        answer.add_done_callback(self._answered)
        if len(self._answers) >= IN_HAND or self._held >= HELD:
            self.flow.pause_reading()

    def _answered(self, answer: asyncio.Task[Response]) -> None:
        answers = self._answers
        if not answers or answers[0][0] is not answer:
            return  # written together with the one that it waits for
        ready = []
        while answers and answers[0][0].done():
            done, size = answers.popleft()
            ready.append(_written(done.result()))
            self._held -= size
        if self.transport.is_closing():
            return
        self.transport.write(b"".join(ready))
        if len(answers) < IN_HAND // 2 and self._held < HELD // 2:
            self.flow.resume_reading()
        if answers:
            return
        if self._closing:
            self.transport.close()
        elif self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def shutdown(self) -> None:
        if self._answers:
            self._closing = True
        else:
            super().shutdown()


def _written(answer: Response) -> bytes:
    status = answer.status_code
    lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
    lines += [name + b": " + value for name, value in answer.raw_headers]
    return b"\r\n".join([*lines, b"", bytes(answer.body)])
