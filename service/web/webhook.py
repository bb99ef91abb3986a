"""POST /webhook: one rule output in, 202 once it is committed to disk, or where there is nothing
to keep: a client over its share (it is told), a reading or an answer that nobody waits for.

It never answers anything but 202, 400, 401, 413 and 503, since EMQX drops a message on any
other status, and always within LIMIT. `take` is the one way in: `pipelined` calls it for what
EMQX sends, side by side; the ASGI endpoint for anything else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.answering.intake import Intake
from service.answering.recent import Recents
from service.answering.tool_answers import ToolAnswers
from service.domain import Message
from service.emqx import message as webhook
from service.errors import ApiError, BadRequest, OverShare, TooLarge, Unavailable
from service.operations.metrics import Metrics
from service.web.http import JSON, Tokens, error_response, find, read_body
from service.web.origin import Names, is_json, same_origin

LIMIT = 4.8  # seconds; EMQX waits for ever for a silent webhook
# 202: a client has more than its share, and EMQX would only send the message again.
REFUSED = JSON({"accepted": 0, "duplicates": 0, "refused": 1}, status_code=202)
ACCEPTED = JSON({"accepted": 1, "duplicates": 0}, status_code=202)
IGNORED = JSON({"accepted": 0, "duplicates": 0, "ignored": 1}, status_code=202)
DUPLICATE = JSON({"accepted": 0, "duplicates": 1}, status_code=202)

Headers = Sequence[tuple[bytes, bytes]]

log = logging.getLogger("emqx-gpt.webhook")


def _ready(response: Response) -> asyncio.Future[Response]:
    answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
    answer.set_result(response)
    return answer


class Webhook:
    """The endpoint, also as an ASGI application. `now` gives epoch ms."""

    def __init__(
        self,
        intake: Intake,
        tokens: Tokens,
        metrics: Metrics,
        *,
        max_body: int,
        now: Callable[[], int],
        names: Names = None,
        own_token: bool = False,
        known: Callable[[str], bool] = lambda name: False,
        recents: Recents | None = None,
        address: bool = False,
        tool_answers: ToolAnswers | None = None,
    ) -> None:
        self._tool_answers = tool_answers
        self._address = address  # whether the client's is kept
        self._recents = recents
        self._last_batch: tuple[object, asyncio.Future[Response]] | None = None
        self._known = known  # whether there is such a flow; figures are kept for no others
        self._names = names
        self._own_token = own_token
        self._intake = intake
        self._tokens = tokens
        self._metrics = metrics
        self._max_body = max_body
        self._now = now
        self._warned: dict[str, float] = {}

    def authorized(self, headers: Headers) -> bool:
        """Whether they carry the webhook's token, and nothing that EMQX would not send."""
        try:
            self._check(headers)
        except ApiError:
            return False
        return True

    def _check(self, headers: Headers) -> None:
        """Raises ApiError. A page can't have the token, so with it any Host will do: EMQX calls
        this machine by many names."""
        given = kind = None
        for name, value in headers:
            if name == b"authorization":
                given = value
            elif name == b"content-type":
                kind = value
            elif name in (b"origin", b"sec-fetch-site") and not same_origin(headers, self._names):
                raise BadRequest("this is for EMQX, not for a page of another site", code="origin")
        if given is None and self._own_token:
            raise Unavailable(
                "EMQX does not send the token that was made for it; run: emqx-gpt emqx apply",
                code="not_applied",
                retry_after=2,
            )
        self._tokens.check(given)
        if kind in (None, b"application/json"):  # a rule made by hand may name none
            return
        if not is_json(kind.decode("latin-1")):
            raise BadRequest("the webhook takes application/json only", code="content_type")

    async def take(self, headers: Headers, body: bytes) -> Response:
        """One authorized webhook → its answer, whatever happens."""
        began = time.monotonic()
        try:
            if len(body) > self._max_body:
                raise TooLarge(f"the body has {len(body)} bytes; MAX_BODY is {self._max_body}")
            message = webhook.parse(body, now=self._now(), address=self._address)
            if self._tool_answers is not None and webhook.answers(body):
                return await self._tool_answer(message, self._tool_answers)
            added = await self._intake.accept(message)
        except OverShare as error:
            self._refused(error, headers)  # logged and counted, no more
            return REFUSED
        except Exception as error:
            return self._refused(error, headers)
        self._metrics.webhook_stage.observe(time.monotonic() - began)
        if added.duplicate:
            self._metrics.duplicates.inc()
            return DUPLICATE
        flow = message.flow if message.flow and self._known(message.flow) else ""
        self._metrics.accepted.labels(flow).inc()
        return ACCEPTED

    async def _tool_answer(self, message: Message, tool_answers: ToolAnswers) -> Response:
        """What a device or a person said to a tool call: 202 whether somebody waits for it or
        not, since EMQX would only send it again."""
        self._intake.check_open()
        self._metrics.tool_answers.labels(await tool_answers.hear(message)).inc()
        return ACCEPTED

    def take_reading(self, body: bytes) -> asyncio.Future[Response] | None:
        """The answer to a reading of a window; None for everything else. Readings that are
        written together are answered together: one future is the answer to many."""
        if self._recents is None or not webhook.may_be_reading(body):
            return None
        kept = webhook.reading(body, now=self._now())
        if kept is None:
            return None
        flow = self._recents.known(kept.flow)
        try:
            if len(body) > self._max_body:
                raise TooLarge(f"the body has {len(body)} bytes; MAX_BODY is {self._max_body}")
            done = None if flow is None else self._recents.keep(flow, kept)
        except Exception as error:
            return _ready(self._refused(error, ()))
        if flow is None or done is None:
            self._metrics.refused.labels(code="no_window").inc()
            return _ready(IGNORED)
        if self._last_batch is not None and self._last_batch[0] is done:
            return self._last_batch[1]
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def answered(stored: asyncio.Future[Exception | None]) -> None:
            error = stored.result()
            answer.set_result(ACCEPTED if error is None else self._refused(error, ()))

        done.add_done_callback(answered)
        self._last_batch = (done, answer)
        return answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope["headers"]
        try:
            if scope["method"] != "POST":
                raise BadRequest("the webhook takes POST", code="method")
            self._check(headers)
            if trust := scope.get("trust"):
                trust()
            async with asyncio.timeout(LIMIT):
                body = await read_body(scope, receive, self._max_body)
                kept = self.take_reading(body)
                if kept is None:
                    answer = await self.take(headers, body)
                else:
                    answer = await asyncio.shield(kept)  # it is the answer to others too
        except TimeoutError:
            answer = self._refused(Unavailable("no answer in time"), headers)
        except ApiError as error:
            answer = self._refused(error, headers)
        await answer(scope, receive, send)

    def _refused(self, error: Exception, headers: Headers) -> Response:
        if not isinstance(error, ApiError):
            # Not 500: EMQX would drop the message.
            log.error("an internal error in the webhook", exc_info=error)
            error = Unavailable("an internal error; see the service's log", code="internal")
        self._metrics.refused.labels(error.code).inc()
        now = time.monotonic()
        # One line a minute for each reason: a full backlog would flood the log otherwise.
        if find(headers, b"user-agent") == webhook.PROBE.encode():
            log.debug("a probe of the broker's half was answered %d", error.status)
            return error_response(error)
        if error.status not in (Unavailable.status, OverShare.status):
            self._metrics.refused_for_good += 1  # EMQX drops the message, and counts it
        if now - self._warned.get(error.code, -60.0) >= 60:
            self._warned[error.code] = now
            text = "webhook answered %d: %s"
            log.warning(text, error.status, error.message, extra={"code": error.code})
        return error_response(error)
