"""POST /webhook: one rule output in, 202 once it is committed to disk.

A raw ASGI endpoint: this is the one hot path. It never answers anything but 202, 400, 401,
413 and 503, since EMQX drops a message on any other status, and always within LIMIT.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from starlette.types import Receive, Scope, Send

from service.answering.intake import Intake
from service.emqx import message as webhook
from service.errors import ApiError, BadRequest, StoreBusy, TooLarge, Unavailable
from service.operations.metrics import Metrics
from service.web.http import JSON, Tokens, error_response, find, read_body

LIMIT = 4.8  # seconds; EMQX waits for ever for a silent webhook
_HEADERS = [(b"content-type", b"application/json")]
_ACCEPTED = b'{"accepted":1,"duplicates":0}'
_DUPLICATE = b'{"accepted":0,"duplicates":1}'

_WHOLE = b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
_ACCEPTED_RESPONSE = _WHOLE % (len(_ACCEPTED), _ACCEPTED)
_DUPLICATE_RESPONSE = _WHOLE % (len(_DUPLICATE), _DUPLICATE)

log = logging.getLogger("emqx-gpt.webhook")


def _answer(body: bytes) -> tuple[dict[str, object], dict[str, object]]:
    headers = [*_HEADERS, (b"content-length", str(len(body)).encode())]
    start = {"type": "http.response.start", "status": 202, "headers": headers}
    return start, {"type": "http.response.body", "body": body}


class Webhook:
    """The endpoint as an ASGI application."""

    def __init__(
        self,
        intake: Intake,
        tokens: Tokens,
        metrics: Metrics,
        *,
        max_body: int,
        now: Callable[[], int],
    ) -> None:
        self._intake = intake
        self._tokens = tokens
        self._metrics = metrics
        self._max_body = max_body
        self._now = now
        self._warned: dict[str, float] = {}
        self._stage = metrics.stage.labels("webhook")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(LIMIT):
                duplicate = await self._take(scope, receive)
        except TimeoutError:
            await self._refuse(Unavailable("the database is too slow now"), scope, receive, send)
            return
        except ApiError as error:
            await self._refuse(error, scope, receive, send)
            return
        except Exception:
            # A fault of ours must not make EMQX drop the message, as a 500 would.
            log.exception("a fault of this program in the webhook")
            fault = Unavailable("internal fault; see the log", code="internal")
            await self._refuse(fault, scope, receive, send)
            return
        self._stage.observe(time.monotonic() - began)
        start, body = _answer(_DUPLICATE if duplicate else _ACCEPTED)
        await send(start)
        await send(body)

    def take(self, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> asyncio.Future[bytes]:
        """One webhook → its whole response, for the protocol that reads them side by side."""
        began = time.monotonic()
        response: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        try:
            self._tokens.check(find(headers, b"authorization"))
            if len(body) > self._max_body:
                raise TooLarge(f"the body has {len(body)} bytes; MAX_BODY is {self._max_body}")
            message = webhook.parse(body, now=self._now())
            adding = self._intake.taking(message)
        except Exception as error:
            response.set_result(self._refusal(error, headers))
            return response

        def stored(done: asyncio.Future[Any]) -> None:
            if response.done():
                return
            error = done.exception()
            if error is not None:
                response.set_result(self._refusal(error, headers))
                return
            self._stage.observe(time.monotonic() - began)
            if done.result().duplicate:
                self._metrics.duplicates.inc()
                response.set_result(_DUPLICATE_RESPONSE)
            else:
                self._metrics.accepted.labels(message.flow or "").inc()
                response.set_result(_ACCEPTED_RESPONSE)

        adding.add_done_callback(stored)
        return response

    def _refusal(self, error: BaseException, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
        if isinstance(error, StoreBusy):
            error = Unavailable(error.message, code=error.code, retry_after=2)
        if not isinstance(error, ApiError):
            log.error("a fault of this program in the webhook", exc_info=error)
            error = Unavailable("internal fault; see the log", code="internal")
        answer = self._note(error, headers)
        lines = [b"HTTP/1.1 %d %s" % (answer.status_code, b"Refused")]
        lines += [name + b": " + value for name, value in answer.raw_headers]
        return b"\r\n".join([*lines, b"", bytes(answer.body)])

    async def _take(self, scope: Scope, receive: Receive) -> bool:
        if scope["method"] != "POST":
            raise BadRequest("the webhook takes POST", code="method")
        self._tokens.check(find(scope["headers"], b"authorization"))
        body = await read_body(scope, receive, self._max_body)
        message = webhook.parse(body, now=self._now())
        added = await self._intake.accept(message)
        if added.duplicate:
            self._metrics.duplicates.inc()
        else:
            self._metrics.accepted.labels(message.flow or "").inc()
        return added.duplicate

    async def _refuse(self, error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        await self._note(error, scope["headers"])(scope, receive, send)

    def _note(self, error: ApiError, headers: Sequence[tuple[bytes, bytes]]) -> JSON:
        self._metrics.refused.labels(error.code).inc()
        now = time.monotonic()
        # One line a minute for each reason: a full backlog would flood the log otherwise.
        if find(headers, b"user-agent") == webhook.PROBE.encode():
            log.debug("a probe of the broker's half was answered %d", error.status)
        elif now - self._warned.get(error.code, -60.0) >= 60:
            self._warned[error.code] = now
            log.warning("webhook answered %d: %s", error.status, error.message)
        return error_response(error)
