"""POST /ask/{flow}: a question over HTTP, with the same inbox and the same answer as over MQTT."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import orjson
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.answering.intake import Intake, new_id
from service.domain import State
from service.errors import BadRequest, Mismatch, NotFound
from service.flows import Catalogue, Flow
from service.mqtt import traceparent
from service.mqtt.traceparent import Properties
from service.operations.events import Delta, Hub, Listener
from service.operations.insights import Insights
from service.web.http import JSON, json_object

LONGEST = 300.0  # seconds a caller may wait
LOOK = 1.0  # seconds between looks: another process on the same database may answer
PING = 15.0  # seconds between comments that keep proxies from closing a silent stream
STATUS = {State.DONE: 200, State.IGNORED: 200, State.FAILED: 502, State.EXPIRED: 504}


class _Stream(EventSourceResponse):
    """Server-sent events; `stack` is closed when they end, whoever ends them."""

    def __init__(
        self, events: AsyncIterator[ServerSentEvent], id: str, stack: contextlib.ExitStack
    ) -> None:
        headers = {"cache-control": "no-cache", "location": f"/requests/{id}"}
        super().__init__(
            events, headers=headers, sep="\n", ping=PING, ping_message_factory=_still_waiting
        )
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._stack:
            await super().__call__(scope, receive, send)


@dataclass(frozen=True, slots=True)
class _Ask:
    flow: Flow
    text: str
    topic: str
    conversation: str | None
    publish: bool
    named: bool = False  # the caller chose the topic
    trace: Properties = ()


class Ask:
    """The endpoint."""

    def __init__(
        self,
        flows: Catalogue,
        intake: Intake,
        hub: Hub,
        insights: Insights,
        *,
        max_body: int,
        now: Callable[[], int],
    ) -> None:
        self._now = now
        self._flows = flows
        self._intake = intake
        self._hub = hub
        self._insights = insights
        self._max_body = max_body

    async def __call__(self, request: Request) -> Response:
        flow = self._flows.flows.get(request.path_params["flow"])
        if flow is None:
            known = ", ".join(self._flows.flows)
            raise NotFound(f"no flow {request.path_params['flow']!r}; there are: {known}")
        if flow.collect is not None:
            said = f"flow {flow.name} collects messages, and asks about many at once"
            raise BadRequest(f"{said}: publish them to its topic", code="collects")
        id = new_id(self._now())
        ask = _read(flow, await json_object(request, self._max_body), id)
        ask = replace(ask, trace=_trace(request))
        key = request.headers.get("idempotency-key")
        if "text/event-stream" in request.headers.get("accept", ""):
            return await self._stream(ask, key, id)
        seconds = _wait(request.headers.get("prefer", ""))
        with self._hub.listen(id) as listener:
            added = await self._store(ask, key, id)
            state = await self._end(added, listener, seconds) if seconds > 0 else None
        location = {"location": f"/requests/{added}"}
        if state is None:
            body = {"id": added, "status": f"/requests/{added}"}
            return JSON(body, status_code=202, headers=location)
        return JSON(*await self._outcome(added), headers=location)

    async def _store(self, ask: _Ask, key: str | None, id: str) -> str:
        added = await self._intake.ask(
            ask.flow,
            ask.text,
            topic=ask.topic,
            conversation=ask.conversation,
            publish=ask.publish,
            key=key,
            id=id,
            trace=ask.trace,
        )
        if key is not None and added.duplicate:
            await self._same(ask, added.id)
        return added.id

    async def _same(self, ask: _Ask, id: str) -> None:
        """Raises Mismatch if the key was used for another question."""
        row = await self._insights.row(id)
        text = ask.text.encode("utf-8", "surrogatepass")
        same = (text, ask.publish) == (row.message.payload, row.publish)
        if ask.conversation is not None:
            same = same and ask.conversation == row.conversation
        if ask.named:
            same = same and ask.topic == row.message.topic
        if not same:
            raise Mismatch("this Idempotency-Key was used for another question")

    async def _end(self, id: str, listener: Listener, seconds: float) -> State | None:
        """Wait until the request has its reply or its end; None after `seconds`."""
        ends = asyncio.get_running_loop().time() + seconds
        while True:
            state = await self._insights.answered(id)
            left = ends - asyncio.get_running_loop().time()
            if state is not None or left <= 0 or listener.closed:
                return state
            await listener.get(min(left, LOOK))

    async def _outcome(self, id: str) -> tuple[Any, int]:
        shown = await self._insights.request(id)
        state = State(shown["outcome"] or shown["state"])
        if shown["reply"] is None and shown["error"] is not None:
            code = shown["error"]["code"]
            status = 429 if code == "limit" else STATUS[state]
            if status != 200:
                return {"id": id, "error": shown["error"]}, status
        return _reply(shown), 200

    async def _stream(self, ask: _Ask, key: str | None, id: str) -> Response:
        with contextlib.ExitStack() as stack:
            # Listening begins before the request is stored, so that no piece is missed.
            listener = stack.enter_context(self._hub.listen(id, pieces=True))
            added = await self._store(ask, key, id)
            return _Stream(self._events(added, listener), added, stack.pop_all())

    async def _events(self, id: str, listener: Listener) -> AsyncIterator[ServerSentEvent]:
        run = None
        while True:
            news = await listener.get(LOOK)
            if isinstance(news, Delta):
                if run is not None and news.run != run:
                    yield _event({"restart": True})
                run = news.run
                yield _event({"delta": news.text.encode("utf-8", "replace").decode()})
            elif listener.closed:
                return
            elif await self._insights.answered(id) is not None:
                break
        body, status = await self._outcome(id)
        yield _event({"reply": body} if status == 200 else body)
        yield ServerSentEvent("[DONE]")


def _trace(request: Request) -> Properties:
    """Where its trace came from, as a message would carry it."""
    named = (traceparent.PARENT, traceparent.STATE)
    found = traceparent.read((name, request.headers.get(name, "")) for name in named)
    return found.properties() if found is not None else ()


def _event(document: Any) -> ServerSentEvent:
    return ServerSentEvent(orjson.dumps(document).decode())


def _still_waiting() -> ServerSentEvent:
    return ServerSentEvent(comment="waiting")


def _reply(shown: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": shown["id"],
        "conversation": shown["conversation"],
        "state": shown["outcome"] or shown["state"],
        "text": shown["reply"],
        "model": shown["model"],
        "usage": shown["usage"],
    }


def _read(flow: Flow, body: Any, id: str) -> _Ask:
    unknown = set(body) - {"text", "topic", "conversation", "publish"}
    if unknown:
        raise BadRequest(f"unknown field {sorted(unknown)[0]!r}", code="bad_field")
    text, topic = body.get("text"), body.get("topic")
    conversation, publish = body.get("conversation"), body.get("publish", False)
    if not isinstance(text, str) or not text:
        raise BadRequest('"text" is missing: the question, as a string', code="no_text")
    if topic is not None and (not isinstance(topic, str) or flow.match(topic) is None):
        filters = ", ".join(pattern.filter for pattern in flow.request)
        raise BadRequest(f'"topic" must match one of: {filters}', code="bad_topic")
    if conversation is not None and (
        not isinstance(conversation, str) or not 1 <= len(conversation) <= 200
    ):
        raise BadRequest('"conversation" is a string of 1 to 200 characters', code="bad_field")
    if not isinstance(publish, bool):
        raise BadRequest('"publish" is true or false', code="bad_field")
    named = topic is not None
    if topic is None:
        topic = flow.topic_for(conversation or id)
    return _Ask(flow, text, topic, conversation, publish, named)


def _wait(prefer: str) -> float:
    found = re.search(r"\bwait=(\d{1,6})", prefer)
    return min(float(found[1]), LONGEST) if found else 0.0
