"""What the fake model can answer: texts, tool calls, refusals, late or never.

A step is an async callable that plays itself on an Exchange. All but `Gate` are stateless,
so one step may be scripted several times.
"""

import asyncio
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from tests.fakes.model_wire import Exchange, Step, text_of

SERVER_ERROR = {
    "error": {
        "message": "The server had an error while processing your request. Sorry about that!",
        "type": "server_error",
        "param": None,
        "code": "server_error",
    }
}
Usage = tuple[int, int]


def named(name: str, step: Step) -> Step:
    async def play(exchange: Exchange) -> None:
        exchange.call.outcome = name
        await step(exchange)

    return play


def _counted(body: Mapping[str, Any], said: str) -> Usage:
    asked = sum(len(text_of(message.get("content"))) for message in body.get("messages") or [])
    return math.ceil(asked / 4), math.ceil(len(said) / 4)


@dataclass(frozen=True)
class Completion:
    """A complete answer, plain or streamed as the request wants it."""

    text: str | None
    finish: str = "stop"
    calls: tuple[dict[str, Any], ...] = ()
    refusal: str | None = None
    usage: Usage | bool = True  # True: counted; False: left out, as some servers do
    pace: float = 0  # seconds before each piece of a stream
    cut_after: int | None = None  # pieces of the stream before the connection ends
    cut_once: asyncio.Event | None = None  # not before this: the client has them, say
    error_after: int | None = None  # pieces of the stream before an error event

    async def __call__(self, exchange: Exchange) -> None:
        body = exchange.call.body
        if not body.get("stream"):
            await exchange.answer(200, orjson.dumps(self.whole(body, exchange.number)))
            return
        await exchange.start_stream()
        head = self._envelope(body, exchange.number, "chat.completion.chunk")
        await exchange.event(_chunk(head, {"role": "assistant", "content": ""}))
        for at, delta in enumerate(self._deltas()):
            if at == self.cut_after:
                if self.cut_once is not None:
                    await exchange.pause(self.cut_once)
                await exchange.close()
                return
            if at == self.error_after:
                await exchange.event(orjson.dumps(SERVER_ERROR))
                await exchange.end_stream()
                return
            if self.pace:
                await exchange.pause(self.pace)
            await exchange.event(_chunk(head, delta))
        if self.cut_after is not None:
            await exchange.close()
            return
        await exchange.event(_chunk(head, {}, self.finish))
        if (body.get("stream_options") or {}).get("include_usage") and self.usage:
            await exchange.event(orjson.dumps({**head, "choices": [], "usage": self._usage(body)}))
        await exchange.end_stream()

    def whole(self, body: Mapping[str, Any], number: int) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": self.text,
            "refusal": self.refusal,
        }
        if self.calls:
            message["tool_calls"] = list(self.calls)
        answer = self._envelope(body, number, "chat.completion")
        answer["choices"] = [{"index": 0, "message": message, "finish_reason": self.finish}]
        if self.usage:
            answer["usage"] = self._usage(body)
        return answer

    def _envelope(self, body: Mapping[str, Any], number: int, kind: str) -> dict[str, Any]:
        model = body.get("model", "")
        created = int(time.time())
        return {"id": f"chatcmpl-{number}", "object": kind, "created": created, "model": model}

    def _usage(self, body: Mapping[str, Any]) -> dict[str, int]:
        counted = self.usage
        asked, said = counted if isinstance(counted, tuple) else _counted(body, self.text or "")
        return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}

    def _deltas(self) -> list[dict[str, Any]]:
        if self.refusal:
            return [{"refusal": piece} for piece in _pieces(self.refusal)]
        deltas: list[dict[str, Any]] = [{"content": piece} for piece in _pieces(self.text or "")]
        for at, call in enumerate(self.calls):
            function = call["function"]
            whole = function["arguments"]
            middle = len(whole) // 2
            head = {**call, "index": at, "function": {**function, "arguments": whole[:middle]}}
            rest = {"index": at, "function": {"arguments": whole[middle:]}}
            deltas += [{"tool_calls": [head]}, {"tool_calls": [rest]}]
        return deltas


def _pieces(text: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", text)


def _chunk(head: dict[str, Any], delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return orjson.dumps({**head, "choices": [choice]})


def ok(text: str, *, usage: Usage | bool = True, pace: float = 0) -> Step:
    """A good answer. `usage` (prompt, completion) instead of the counted one, or False."""
    return named("ok", Completion(text, usage=usage, pace=pace))


async def _echo(exchange: Exchange) -> None:
    exchange.call.outcome = "echo"
    await Completion(f"echo: {exchange.call.text}")(exchange)


def echo() -> Step:
    """What the fake does by itself: "echo: " and the last user text."""
    return _echo


def empty() -> Step:
    """An answer without content."""
    return named("empty", Completion(""))


def length(text: str) -> Step:
    """An answer that max_tokens cut off."""
    return named("length", Completion(text, "length"))


def filtered(text: str = "") -> Step:
    """An answer that the content filter stopped."""
    return named("filtered", Completion(text, "content_filter"))


def refusal(text: str) -> Step:
    """The model declines, in the field that OpenAI has for it."""
    return named("refusal", Completion(None, refusal=text))


def tool_calls(calls: Sequence[tuple[str, Any] | dict[str, Any]], text: str | None = None) -> Step:
    """Calls as (name, arguments); arguments as a string go out as they are, broken or not."""
    made = []
    for at, call in enumerate(calls):
        if isinstance(call, dict):
            made.append(call)
            continue
        name, given = call
        written = given if isinstance(given, str) else orjson.dumps(given).decode()
        function = {"name": name, "arguments": written}
        made.append({"id": f"call_{at}_{name}", "type": "function", "function": function})
    return named("tool_calls", Completion(text, "tool_calls", tuple(made)))


def delay(seconds: float, then: Step | None = None) -> Step:
    """Nothing for a while, then the next step (echo)."""

    async def play(exchange: Exchange) -> None:
        exchange.call.outcome = "delay"
        await exchange.pause(seconds)
        await (then or _echo)(exchange)

    return play


def hang(then: Step | None = None) -> Step:
    """Nothing until `FakeModel.release()` (then: echo) or `stop()` (then: a reset)."""

    async def play(exchange: Exchange) -> None:
        exchange.call.outcome = "hang"
        await exchange.pause(exchange.released)
        await (then or _echo)(exchange)

    return play


class Gate:
    """A step that holds calls until the test lets them go."""

    def __init__(self, then: Step | None = None) -> None:
        self.then = then
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    def release(self) -> None:
        self.opened.set()

    async def __call__(self, exchange: Exchange) -> None:
        exchange.call.outcome = "gate"
        self.reached.set()
        await exchange.pause(self.opened)
        await (self.then or _echo)(exchange)


def gate(then: Step | None = None) -> Gate:
    """Wait for `.release()`; `.reached` is set when a call stands before it."""
    return Gate(then)
