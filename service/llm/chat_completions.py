"""Chat Completions, as each server wants it: a question → the request's body, and what comes
back → an answer. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from service.errors import ErrorKind, ModelError
from service.flows import ModelRef
from service.llm import failures
from service.llm.answers import MAX_ANSWER, Gathered, Tools, garbage, size_of
from service.llm.growing_text import GrowingText
from service.llm.providers import Dialect, Schemas
from service.llm.tool_calls import sendable_arguments, short_id
from service.llm.usage import usage_of

LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
PATH = "chat/completions"
# What a reasoning model says beside its calls, and wants to see again with their results.
ECHO = ("reasoning_content", "reasoning", "reasoning_details", "extra_content")

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask. `options` are optional fields of Chat Completions, `timeout` is in seconds, in
    total. `cap` is the longest answer where nobody set `max_tokens`. `turns`: so many exchanges
    of memory stand after the instructions, and may go.

    An assistant message may carry `echo`, {"model", "fields"}: what that model wants back.
    """

    model: ModelRef
    messages: tuple[Message, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    cap: int | None = None
    timeout: float = 60.0
    turns: int = 0

    @property
    def tools(self) -> Tools:
        named = (tool["function"] for tool in self.options.get("tools") or ())
        return {tool["name"]: tool.get("parameters") or {} for tool in named}

    def without_turns(self, count: int) -> tuple[Message, ...]:
        """The messages less the oldest exchanges."""
        at = 1 if self.messages and self.messages[0]["role"] == "system" else 0
        return self.messages[:at] + self.messages[at + 2 * count :]


def body(question: Question, dialect: Dialect, *, stream: bool) -> dict[str, Any]:
    """The request. Without usage in a stream no limit of tokens would hold."""
    made: dict[str, Any] = {"model": question.model.model, "messages": question.messages}
    made |= question.options
    if (most := longest(question, dialect)) is not None:
        made[dialect.max_tokens] = most
    made["stream"] = stream
    if stream and dialect.stream_usage:
        made["stream_options"] = {"include_usage": True}
    if "tools" in made:
        made["tools"] = [_tool(tool) for tool in made["tools"]]
    note = bind_to_schema(made, dialect)
    made["messages"] = _messages(question, dialect, note)
    for name in dialect.without:
        made.pop(name, None)
    return made


def longest(question: Question, dialect: Dialect) -> int | None:
    """The longest answer that is asked for, in tokens; None: nothing is said of it, or `options`
    say it."""
    if question.max_tokens is not None or question.cap is None:
        return question.max_tokens
    if any(name in question.options for name in LIMITS):
        return None
    return question.cap if dialect.most is None else min(question.cap, dialect.most)


def bind_to_schema(made: dict[str, Any], dialect: Dialect) -> str:
    """Bring `response_format` to what the server knows; what the instructions must say then."""
    wanted = made.get("response_format")
    if not isinstance(wanted, Mapping) or wanted.get("type") != "json_schema":
        return ""
    bound = wanted["json_schema"]
    if dialect.schemas is Schemas.STRICT:
        made["response_format"] = {
            **wanted,
            "json_schema": {**bound, "schema": typed(bound["schema"])},
        }
        return ""
    if dialect.schemas is Schemas.JSON:
        made["response_format"] = {"type": "json_object"}
    else:
        del made["response_format"]
    schema = orjson.dumps(bound["schema"]).decode()
    return f"Answer with one JSON document alone, which fits this JSON Schema:\n{schema}"


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if not isinstance(function, Mapping) or "parameters" not in function:
        return dict(tool)
    return {**tool, "function": {**function, "parameters": typed(function["parameters"])}}


_TYPES = ((bool, "boolean"), (str, "string"), (int, "integer"), (float, "number"))


def typed(schema: Any) -> Any:
    """A JSON Schema with `type` beside each `enum`: some servers refuse one without."""
    if isinstance(schema, list):
        return [typed(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    made = {key: value if key == "enum" else typed(value) for key, value in schema.items()}
    values = schema.get("enum")
    if isinstance(values, list) and values and "type" not in schema:
        kinds = {next((name for kind, name in _TYPES if isinstance(v, kind)), "") for v in values}
        if len(kinds) == 1 and "" not in kinds:
            made["type"] = kinds.pop()
    return made


def _messages(question: Question, dialect: Dialect, note: str) -> list[Message]:
    model = str(question.model)
    made = [_sent(message, model, dialect) for message in question.messages]
    system = ""
    if made and made[0]["role"] == "system":
        if not note and dialect.system:
            return made
        system = str(made.pop(0)["content"])
    instructions = "\n\n".join(part for part in (system, note) if part)
    if not instructions:
        return made
    if dialect.system:
        return [{"role": "system", "content": instructions}, *made]
    for at, message in enumerate(made):
        if message["role"] == "user":
            made[at] = {**message, "content": _before(instructions, message["content"])}
            break
    return made


def _before(instructions: str, content: Any) -> Any:
    if isinstance(content, str):
        return f"{instructions}\n\n{content}"
    return [{"type": "text", "text": instructions}, *content]


def _sent(message: Message, model: str, dialect: Dialect) -> Message:
    """A message of a tool round as this server takes it; others stay as they are."""
    if message["role"] == "tool" and dialect.tool_id:
        return {**message, "tool_call_id": short_id(message["tool_call_id"], dialect.tool_id)}
    if "tool_calls" not in message and "echo" not in message:
        return message
    made = {key: value for key, value in message.items() if key != "echo"}
    echo = message.get("echo") or {}
    same = echo.get("model") == model
    if same:
        kept = {name: echo["fields"][name] for name in ECHO if name in echo["fields"]}
        made |= {name: value for name, value in kept.items() if name not in dialect.without}
    made["tool_calls"] = [_call(call, dialect, same) for call in message["tool_calls"]]
    return made


def _call(call: Mapping[str, Any], dialect: Dialect, same: bool) -> dict[str, Any]:
    made = {key: value for key, value in call.items() if key != "extra_content" or same}
    function = call["function"]
    made["function"] = {**function, "arguments": sendable_arguments(function["arguments"])}
    if dialect.tool_id:
        made["id"] = short_id(call["id"], dialect.tool_id)
    return made


class IncomingAnswer:
    """Gathers an answer, whole or in a stream's events; `_add` knows the API."""

    def __init__(self, question: Question, most: int = MAX_ANSWER) -> None:
        self._question = question
        self._gathered = Gathered(question.model, question.tools, most)

    @property
    def restarted(self) -> bool:
        return self._gathered.restarted

    def add(self, event: Any) -> str:
        """The text that came with it. Raises ModelError."""
        try:
            return self._add(event)
        except (AttributeError, KeyError, TypeError, IndexError, RecursionError):
            raise garbage() from None

    def _add(self, event: Any) -> str:
        raise NotImplementedError


class ChatAnswer(IncomingAnswer):
    """An answer of Chat Completions."""

    def __init__(self, question: Question, most: int = MAX_ANSWER) -> None:
        super().__init__(question, most)
        self._begun = False
        self._echo: dict[str, Any] = {}  # Grown of text, or what came

    def _add(self, event: Any) -> str:
        gathered = self._gathered
        gathered.restarted = False
        raise_error(event, self._question.model)
        gathered.model = only_text(event.get("model")) or gathered.model
        if event.get("usage"):
            gathered.usage = usage_of(event)
        choices = event.get("choices")
        if not choices:
            return ""
        self._begun = True
        choice = choices[0]
        raise_error(choice, self._question.model)
        gathered.finish = only_text(choice.get("finish_reason")) or gathered.finish
        if choice.get("message"):  # all of it
            gathered.finish = gathered.finish or "stop"
        delta = choice.get("delta") or choice.get("message")
        if delta is None:
            return ""  # Azure: what its filter found, after the end
        for call in delta.get("tool_calls") or ():
            gathered.count(gathered.calls.add(call))
        if delta.get("function_call"):
            gathered.count(gathered.calls.add(delta["function_call"]))
        if refusal := only_text(delta.get("refusal")):
            gathered.count(size_of(refusal))
            gathered.refusal += refusal
        self._reasoning(delta)
        return gathered.say(delta.get("content"))

    def _reasoning(self, delta: Mapping[str, Any]) -> None:
        for name in ECHO:
            if value := delta.get(name):
                self._keep(name, value)
        said = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(said, str) and said:
            self._gathered.think(said)

    def _keep(self, name: str, value: Any) -> None:
        """For the echo: texts and lists go on; anything else replaces what was there."""
        kept = self._echo.get(name)
        if isinstance(value, str):
            if not isinstance(kept, GrowingText):
                kept = self._echo[name] = GrowingText()
            kept.add(value)
            return
        self._gathered.count(len(orjson.dumps(value, default=str)))
        if isinstance(value, list) and isinstance(kept, list):
            kept.extend(value)
        else:
            self._echo[name] = [*value] if isinstance(value, list) else value

    def rest(self) -> str:
        """The text that became certain with the end."""
        return self._gathered.rest()

    def completion(self) -> Any:
        """Raises ModelError."""
        if not self._begun:
            raise garbage()
        if self._gathered.finish is None:
            raise ModelError(
                "the model's stream broke off", code="model_connection", kind=ErrorKind.PASSING
            )
        self._gathered.echo = {
            name: kept.text if isinstance(kept, GrowingText) else kept
            for name, kept in self._echo.items()
        }
        return self._gathered.completion()


def only_text(value: Any) -> str:
    """Where only text has a meaning, all else is as if it were not there."""
    return value if isinstance(value, str) else ""


def raise_error(part: Mapping[str, Any], model: ModelRef) -> None:
    """Some servers say what went wrong inside of a 200. Raises ModelError."""
    base = part.get("base_resp") or {}  # MiniMax
    if part.get("error") or base.get("status_code"):
        raise failures.failure(200, part, {}, model)
