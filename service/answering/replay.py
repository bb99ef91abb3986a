"""Ask stored requests again and compare: nothing is published, stored or remembered.

Tools are not carried out: a command counts as done, and a look-up is told what it was told then.
MCP servers are asked which tools they have; a call of one is told what the same call was told then.
The topic of a call is made and its arguments are checked as always, so what a flow refuses is
refused here too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from service.answering import prompt, readings, shape
from service.answering.job import Job
from service.answering.remote import NoServers, Remote, Servers
from service.answering.tool_loop import ToolLoop
from service.domain import Claimed, Message, Publish, State, Turn, Usage
from service.emqx.publish_api import Result as Published
from service.errors import BudgetError, MessageError, ModelError
from service.flows import Catalogue, Flow, ModelRef
from service.inbox import Filter, Inbox, Row
from service.llm.ask import Asker
from service.llm.attempts import Log
from service.mcp.offer import OfferedTool
from service.mcp.results import Result
from service.mqtt.templates import Scope

PATIENCE = 120.0  # seconds in which all calls for one request have to end
CALL = tuple[str, Any]
"""A tool's name and its arguments."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a model said to a request. `code`: why there is no text; `valid`: whether it fits the
    flow's schema, None without one. `seconds` are of the model calls alone."""

    text: str | None
    model: str | None
    code: str | None = None
    message: str | None = None
    calls: tuple[CALL, ...] = ()
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    valid: bool | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """A request as it was answered, and as it is now. `memory`: what of the conversation was
    told again: "none", "as sent" (STORE_PROMPTS) or "as stored" (from its earlier requests)."""

    row: Row
    before: Said
    after: Said
    memory: str

    @property
    def same_text(self) -> bool:
        return (self.before.text or "").split() == (self.after.text or "").split()

    @property
    def same_calls(self) -> bool:
        return self.before.calls == self.after.calls

    def as_json(self) -> dict[str, Any]:
        """For programs and pages."""
        return {
            "id": self.row.id,
            "flow": self.row.flow,
            "conversation": self.row.conversation,
            "topic": self.row.message.topic,
            "question": self.row.message.payload.decode("utf-8", "replace"),
            "memory": self.memory,
            "same_text": self.same_text,
            "same_calls": self.same_calls,
            "before": _shown(self.before),
            "after": _shown(self.after),
        }


def _shown(said: Said) -> dict[str, Any]:
    return {
        "text": said.text,
        "model": said.model,
        "error": None if said.code is None else {"code": said.code, "message": said.message},
        "calls": [{"name": name, "arguments": arguments} for name, arguments in said.calls],
        "tokens": said.usage.total_tokens,
        "cost": said.usage.cost,
        "seconds": round(said.seconds, 3),
        "valid": said.valid,
    }


class _Silence:
    """Stands where the publisher and the inbox stand: nothing leaves, nothing is kept."""

    def __init__(
        self, known: Mapping[str, str], calls: Mapping[str, str], servers: Servers
    ) -> None:
        self._known = known  # what a topic's retained message was, as it was told then
        self._calls = calls  # likewise what a call of an MCP tool was told
        self._servers = servers
        self.steps: Sequence[Mapping[str, Any]] = ()

    async def send(self, message: Publish, *, once: bool = False) -> Published:
        return True

    async def retained(self, topic: str) -> bytes | None:
        told = self._known.get(topic)
        return None if told is None else told.encode("utf-8", "replace")

    async def offered(self, names: Sequence[str]) -> list[OfferedTool]:
        return await self._servers.offered(names)

    async def call(self, tool: OfferedTool, arguments: Mapping[str, Any], timeout: float) -> Result:
        told = self._calls.get(_call_key(tool.name, arguments))
        if told is None:
            told = "nothing is known: it is not asked here" if tool.read_only else "done"
        return Result(told)

    async def checkpoint(
        self, claimed: Claimed, steps: Sequence[Mapping[str, Any]], usage: Usage
    ) -> bool:
        self.steps = tuple(steps)
        return True


class Replayer:
    """Asks again. `now` gives epoch ms."""

    def __init__(
        self,
        flows: Catalogue,
        asker: Asker,
        *,
        now: Callable[[], int],
        servers: Servers | None = None,
    ) -> None:
        self._servers = servers or NoServers()
        self._flows = flows
        self._asker = asker
        self._now = now

    def held(self) -> AbstractContextManager[None]:
        """Within it the flows stay the same for the calling task."""
        return self._flows.held()

    @property
    def providers(self) -> Sequence[str]:
        """Their names."""
        return list(self._flows.providers)

    def flow_of(self, name: str | None, model: ModelRef | None = None) -> Flow | None:
        """The flow, with another model in the place of its own and its fallbacks."""
        flow = self._flows.flows.get(name or "")
        if flow is not None and model is not None:
            flow = replace(flow, model=model, fallback=())
        return flow

    async def again(self, store: Inbox, row: Row, flow: Flow) -> Compared:
        """A stored request, whole, by this flow. Raises StoreError."""
        turns, memory = await self._memory(store, row, flow)
        told, calls = dict(_told(row, flow)), dict(_called(row, flow))
        after = await self.ask(
            flow, row.message, row.conversation, turns=turns, told=told, calls=calls
        )
        return Compared(row, _before(row, flow), after, memory)

    async def ask(
        self,
        flow: Flow,
        message: Message,
        conversation: str = "",
        *,
        turns: Sequence[Turn] = (),
        told: Mapping[str, str] | None = None,
        calls: Mapping[str, str] | None = None,
    ) -> Said:
        """What the flow's model says to a message."""
        message = flow.readable(message)
        captured = flow.match(message.topic) or {}
        now = self._now()
        claimed = Claimed(
            seq=0,
            fence=0,
            id=message.id,
            flow=flow.name,
            conversation=conversation,
            ordered=False,
            state=State.ANSWERING,
            message=message,
            accepted_at=now,
            deadline=now + int(PATIENCE * 1000),
            publish=False,
        )
        log = Log(f"{flow.name}/{conversation}", self._now, flow.name)
        silence = _Silence(told or {}, calls or {}, self._servers)
        began = time.monotonic()
        text, model, code, why, valid = None, None, None, None, None
        try:
            recent = readings.NOT_KEPT if flow.recent is not None else None
            asked = prompt.understand(flow, message, captured, recent)
            job = Job(claimed, flow, captured, asked.scope, log)
            messages = list(prompt.compose(flow, asked, turns))
            loop = ToolLoop(silence, self._asker, silence, now=self._now, servers=silence)
            completion = await loop.run(job, messages, None)
            text, _ = shape.said(flow, completion.text)
            model, valid = completion.model, None if flow.schema is None else True
        except prompt.Ignored as ignored:
            code, why = ignored.reason, "not meant for the model"
        except (MessageError, ModelError) as error:
            code, why = error.code, error.message
            valid = False if code == "model_schema" else None
        except BudgetError as over:
            code, why = "limit", over.message
        made = tuple(_calls(silence.steps))
        seconds = time.monotonic() - began
        return Said(text, model, code, why, made, log.usage, seconds, valid)

    async def _memory(self, store: Inbox, row: Row, flow: Flow) -> tuple[list[Turn], str]:
        """What the conversation remembered then, as near as it can be known."""
        if flow.history is None:
            return [], "none"
        sent = row.trace.get("prompt")
        if sent:
            told = [one for one in sent if one["role"] in ("user", "assistant")][:-1]
            pairs = zip(told[::2], told[1::2], strict=False)
            turns = [Turn(one["content"], two["content"], row.accepted_at) for one, two in pairs]
            return turns, "as sent"
        wanted = Filter(State.DONE, flow=row.flow, conversation=row.conversation)
        most = max(1, flow.history.messages // 2)
        page = await store.find(wanted, limit=most, before=row.seq, whole=True)
        turns = [turn for one in reversed(page.rows) if (turn := _turn(flow, one)) is not None]
        return prompt.remembered(flow, turns, row.accepted_at), "as stored"


def _turn(flow: Flow, row: Row) -> Turn | None:
    message = flow.readable(row.message)
    try:
        recent = readings.NOT_KEPT if flow.recent is not None else None
        asked = prompt.understand(flow, message, flow.match(message.topic) or {}, recent)
    except (prompt.Ignored, MessageError):
        return None
    if row.reply is None or flow.history is None or flow.history.resets(asked.text):
        return None
    return Turn(asked.text, row.reply, row.ended_at or row.accepted_at)


def _before(row: Row, flow: Flow) -> Said:
    """As it was answered then."""
    failed = row.error_code is not None and row.reply is None
    valid = None
    if flow.schema is not None and row.reply is not None:
        valid = prompt.check_schema(row.reply, flow.schema)[0] is None
    return Said(
        row.reply,
        row.model,
        row.error_code if failed else None,
        row.error_message if failed else None,
        tuple(_calls(row.steps)),
        row.usage,
        sum(attempt.took_ms for attempt in row.attempts) / 1000,
        valid,
    )


def _calls(steps: Sequence[Mapping[str, Any]]) -> Iterator[CALL]:
    for step in steps:
        for call in step["calls"]:
            yield str(call["name"]), _loaded(call["arguments"])


def _loaded(text: str) -> Any:
    try:
        return orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return text


def _told(row: Row, flow: Flow) -> Iterator[tuple[str, str]]:
    """What each look-up found then, by its topic."""
    captured = flow.match(row.message.topic) or {}
    for step in row.steps:
        for call, result in zip(step["calls"], step.get("results") or (), strict=False):
            tool = next((one for one in flow.tools if one.name == call["name"]), None)
            arguments = _loaded(call["arguments"])
            if tool is None or tool.read is None or not isinstance(arguments, dict):
                continue
            if result.startswith(("error:", "nothing is known:")):
                continue
            try:
                yield tool.read.render_topic(Scope(row.message, captured, arguments)), result
            except MessageError:
                continue


def _called(row: Row, flow: Flow) -> Iterator[tuple[str, str]]:
    """What each call of an MCP tool was told then."""
    remote = Remote(names=flow.tools_from)
    for step in row.steps:
        for call, result in zip(step["calls"], step.get("results") or (), strict=False):
            if remote.meant(call["name"]) and not result.startswith("unknown:"):
                yield _call_key(call["name"], _loaded(call["arguments"])), result


def _call_key(name: str, arguments: Any) -> str:
    return name + orjson.dumps(arguments, option=orjson.OPT_SORT_KEYS, default=str).decode()
