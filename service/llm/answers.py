"""What a model answered, in one piece or in a stream's: text, tool calls, usage; never nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from service.domain import Usage
from service.errors import ErrorKind, ModelError
from service.flows import ModelRef
from service.llm.usage import usage_of


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool the model wants called; `arguments` is JSON text as it came."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model said. `truncated`: it hit its token limit. `reasoning` is for the operator:
    it is never published and never remembered."""

    text: str
    model: str
    usage: Usage = field(default_factory=Usage)
    tool_calls: tuple[ToolCall, ...] = ()
    truncated: bool = False
    reasoning: str = ""


def read(content: bytes, model: ModelRef) -> Completion:
    try:
        document = orjson.loads(content)
        choice = document["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
        reason = choice.get("finish_reason")
        calls = tuple(_tool_call(call) for call in message.get("tool_calls") or ())
        if not isinstance(text, str):
            raise TypeError("content")
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, AttributeError):
        raise garbage() from None
    usage = usage_of(document)
    name = str(document.get("model") or model.model)
    return _checked(text, message.get("refusal"), reason, calls, name, usage)


def garbage() -> ModelError:
    text = "the model's server answered with something that is no completion"
    return ModelError(text, code="model_garbage", kind=ErrorKind.PASSING)


def _tool_call(call: Mapping[str, Any]) -> ToolCall:
    """Some servers leave out the id, or write the arguments as an object."""
    function = call["function"]
    arguments = function.get("arguments") or ""
    if not isinstance(arguments, str):
        arguments = orjson.dumps(arguments).decode()
    return ToolCall(str(call.get("id") or ""), str(function["name"]), arguments)


def _checked(
    text: str,
    refusal: str | None,
    reason: str | None,
    calls: tuple[ToolCall, ...],
    model: str,
    usage: Usage,
) -> Completion:
    """An answer that can't be used is paid for as well."""
    try:
        return _usable(text, refusal, reason, calls, model, usage)
    except ModelError as error:
        error.usage = usage
        raise


def _usable(
    text: str,
    refusal: str | None,
    reason: str | None,
    calls: tuple[ToolCall, ...],
    model: str,
    usage: Usage,
) -> Completion:
    """Cut short, filtered, refused, empty: never an empty reply."""
    if reason == "content_filter":
        raise ModelError(
            "the model's content filter stopped the answer",
            code="model_filtered",
            kind=ErrorKind.REQUEST,
        )
    if not text.strip() and refusal:
        text = refusal
    if not text.strip() and not calls:
        if reason == "length":
            raise ModelError(
                "the model used up max_tokens before it said anything; raise max_tokens",
                code="model_length",
                kind=ErrorKind.REQUEST,
            )
        raise ModelError("the model's answer was empty", code="model_empty", kind=ErrorKind.PASSING)
    return Completion(text, model, usage, calls, truncated=reason == "length")


class Pieces:
    """Gathers a stream's events into what a plain answer would have been."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, list[str]] = {}
        self._reason: str | None = None
        self._usage = Usage()

    def add(self, event: Any) -> str:
        """The text that came with it. Raises ModelError."""
        try:
            self._model = event.get("model") or self._model
            if event.get("usage"):
                self._usage = usage_of(event)
            choices = event.get("choices")
            return self._add(choices[0]) if choices else ""
        except (AttributeError, KeyError, TypeError, IndexError):
            raise garbage() from None

    def _add(self, choice: Mapping[str, Any]) -> str:
        self._reason = choice.get("finish_reason") or self._reason
        delta = choice["delta"]
        for call in delta.get("tool_calls") or ():
            parts = self._calls.setdefault(call["index"], ["", "", ""])
            function = call.get("function") or {}
            for at, piece in enumerate((call.get("id"), *map(function.get, ("name", "arguments")))):
                parts[at] += piece or ""
        if delta.get("refusal"):
            self._refusal.append(delta["refusal"])
        text = delta.get("content") or ""
        if not isinstance(text, str):
            raise TypeError("content")
        self._text.append(text)
        return text

    def completion(self) -> Completion:
        if self._reason is None:
            raise ModelError(
                "the model's stream broke off", code="model_connection", kind=ErrorKind.PASSING
            )
        calls = tuple(ToolCall(*self._calls[index]) for index in sorted(self._calls))
        refusal = "".join(self._refusal) or None
        text = "".join(self._text)
        return _checked(text, refusal, self._reason, calls, self._model, self._usage)
