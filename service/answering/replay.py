"""Ask stored requests again and compare: nothing is published, stored or remembered.

Tools are not carried out: a call is told what it was told then, and a command of which nothing is
known counts as done. MCP servers are asked which tools they have, and no more.
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

from service.answering import prompt, reply_text
from service.answering.job import Job
from service.answering.prompt_data import later
from service.answering.remote import NoServers, ToolServers
from service.answering.tool_loop import ToolLoop
from service.domain import Claimed, Message, Publish, Reservation, State, Turn, Usage, Wait
from service.emqx.publish_api import Result as Published
from service.errors import BudgetError, MessageError, ModelError
from service.flows import Catalogue, Flow, ModelRef
from service.inbox import Close, Filter, Inbox, Row
from service.llm.asker import Asker
from service.llm.attempts import Log
from service.mcp.offer import OfferedTool
from service.mcp.result_text import Result

PATIENCE = 120.0  # seconds in which all calls for one request have to end
CALL = tuple[str, Any]
"""A tool's name and its arguments."""


@dataclass(frozen=True, slots=True)
class ReplayAnswer:
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
    before: ReplayAnswer
    after: ReplayAnswer
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


def _shown(said: ReplayAnswer) -> dict[str, Any]:
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

    def __init__(self, flow: Flow, told: Mapping[str, str], servers: ToolServers) -> None:
        lookups = (tool.name for tool in flow.tools if tool.topic is None)
        self._lookups = dict.fromkeys(lookups, "there is no retained message")
        self._told = told  # what each call was told then
        self._servers = servers
        self.steps: Sequence[Mapping[str, Any]] = ()

    def told_instead(self, call: Mapping[str, Any]) -> str | None:
        told = self._told.get(_key(call))
        if told is None:
            why = self._lookups.get(call["name"])
            return f"nothing is known: {why}" if why is not None else "done"
        return told

    async def send(self, message: Publish, *, once: bool = False) -> Published:
        raise AssertionError("a replay sends nothing")

    async def deliver(self, outbox: Sequence[Publish]) -> list[Published]:
        raise AssertionError("a replay asks nobody")

    async def retained(self, topic: str) -> bytes | None:
        raise AssertionError("a replay looks at nothing")

    async def offered(self, names: Sequence[str]) -> list[OfferedTool]:
        offered = await self._servers.offered(names)
        read_only = (tool.name for tool in offered if tool.read_only)
        self._lookups |= dict.fromkeys(read_only, "it is not asked here")
        return offered

    async def call(self, tool: OfferedTool, arguments: Mapping[str, Any], timeout: float) -> Result:
        raise AssertionError("a replay calls nothing")

    async def checkpoint(
        self,
        claimed: Claimed,
        steps: Sequence[Mapping[str, Any]],
        usage: Usage,
        *,
        begun: Sequence[Wait] = (),
        closed: Sequence[Close] = (),
    ) -> bool:
        self.steps = tuple(steps)
        return True

    async def waits_of(self, seq: int) -> list[Wait]:
        return []

    async def settle(self, key: str, window: int, delta: int) -> None:
        """Nothing was taken."""

    async def reserve(self, wanted: Sequence[Reservation]) -> str | None:
        return None


class Replayer:
    """Asks again. `now` gives epoch ms."""

    def __init__(
        self,
        flows: Catalogue,
        asker: Asker,
        *,
        now: Callable[[], int],
        servers: ToolServers | None = None,
    ) -> None:
        self._servers = servers or NoServers()
        self._flows = flows
        self._asker = asker
        self._now = now

    def pinned(self) -> AbstractContextManager[None]:
        """Within it the flows stay the same for the calling task."""
        return self._flows.pinned()

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
        told = dict(_told(row))
        many = [row.message]
        if flow.collect is not None:
            many += await store.collected(row.seq)
        after = await self.ask(
            flow, row.message, row.conversation, turns=turns, told=told, messages=many
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
        messages: Sequence[Message] = (),
    ) -> ReplayAnswer:
        """What the flow's model says to a message, or with `collect` to many."""
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
        silence = _Silence(flow, told or {}, self._servers)
        began = time.monotonic()
        text, model, code, why, valid = None, None, None, None, None
        try:
            tables = later(flow, messages or [message])
            asked = prompt.understand(flow, message, captured, tables)
            job = Job(claimed, flow, captured, asked.scope, log)
            question = list(prompt.compose(flow, asked, turns))
            loop = ToolLoop(silence, self._asker, silence, now=self._now, servers=silence)
            completion = (await loop.run(job, question, None)).completion
            text, _ = reply_text.said(flow, completion.text)
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
        return ReplayAnswer(text, model, code, why, made, log.usage, seconds, valid)

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
        captured = flow.match(message.topic) or {}
        asked = prompt.understand(flow, message, captured, later(flow, [message]))
    except (prompt.Ignored, MessageError):
        return None
    if row.reply is None or flow.history is None or flow.history.resets(asked.text):
        return None
    return Turn(asked.text, row.reply, row.ended_at or row.accepted_at)


def _before(row: Row, flow: Flow) -> ReplayAnswer:
    """As it was answered then."""
    failed = row.error_code is not None and row.reply is None
    valid = None
    if flow.schema is not None and row.reply is not None:
        valid = prompt.check_schema(row.reply, flow.schema)[0] is None
    return ReplayAnswer(
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


def _key(call: Mapping[str, Any]) -> str:
    """Two calls with the same name and arguments are told the same."""
    arguments = _loaded(call["arguments"])
    return orjson.dumps([call["name"], arguments], option=orjson.OPT_SORT_KEYS).decode()


def _told(row: Row) -> Iterator[tuple[str, str]]:
    """What each call was told then: of a command that failed that it failed."""
    for step in row.steps:
        for call, result in zip(step["calls"], step.get("results") or (), strict=False):
            yield _key(call), result
