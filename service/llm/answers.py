"""What a model answered, whichever API and server it came from: never nothing, never half."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.domain import Usage
from service.errors import ErrorKind, ModelError
from service.flows import ModelRef
from service.llm import tool_calls
from service.llm.contents import content_of, thinks
from service.llm.growing_text import GrowingText
from service.llm.markup import Separator
from service.llm.tool_calls import Calls, ToolCall

__all__ = ["Completion", "Gathered", "ToolCall", "garbage"]

Tools = Mapping[str, Mapping[str, Any]]
"""The JSON Schema of each tool's arguments, by its name."""

MAX_ANSWER = 1_000_000
"""Bytes of one answer in UTF-8: its text, its reasoning and its tool calls together."""
_FILTERED = ("content_filter", "safety", "recitation", "sensitive", "prohibited_content")
_FAILED = (
    *("error", "network_error", "insufficient_system_resource", "abort", "aborted"),
    *("malformed_function_call", "failed", "cancelled", "model_error"),
)


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model said. `truncated`: it hit its token limit. `reasoning` is for the operator
    alone. `echo` goes back with the tool calls, to the model that it came from. `turns`: so many
    of the remembered exchanges fit its context, after `dropped` of them went. `asked`: the model
    as flows.toml calls it.
    """

    text: str
    model: str
    usage: Usage = field(default_factory=Usage)
    tool_calls: tuple[ToolCall, ...] = ()
    truncated: bool = False
    reasoning: str = ""
    echo: Mapping[str, Any] = field(default_factory=dict)
    dropped: int = 0
    turns: int | None = None
    asked: str = ""


def garbage(text: str = "something that is no completion") -> ModelError:
    return ModelError(
        f"the model's server answered with {text}", code="model_garbage", kind=ErrorKind.PASSING
    )


def too_large() -> ModelError:
    """It was paid for, and is not asked for again."""
    text = "the model's answer is larger than MAX_ANSWER; a smaller max_tokens keeps it shorter"
    return _unusable("model_answer_too_large", text)


def size_of(text: str) -> int:
    """Bytes in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _unusable(code: str, text: str) -> ModelError:
    return ModelError(text, code=code, kind=ErrorKind.ANSWER)


class Gathered:
    """One answer as it is gathered, from one piece or many. `restarted`: what `say` handed out
    before turned out to be none of the answer.
    """

    def __init__(self, model: ModelRef, tools: Tools, most: int = MAX_ANSWER) -> None:
        self.model = self.asked = str(model)
        self.calls = Calls()
        self.usage = Usage()
        self.finish: str | None = None
        self.refusal = ""
        self.reasoning = GrowingText()
        self.echo: dict[str, Any] = {}
        self.restarted = False
        self._tools = tools
        self._most, self._size = most, 0
        self._separator = Separator(inside=thinks(model.model))

    def say(self, content: Any) -> str:
        """A message's or delta's content came; the text that is certain now. Raises TypeError."""
        parts = content_of(content)
        self.count(size_of(parts.text))
        if parts.reasoning:
            self.think(parts.reasoning)
        text = self._separator.feed(parts.text)
        self.restarted = self._separator.restarted
        return text

    def think(self, text: str) -> None:
        """Reasoning that came in a field of its own."""
        self.count(size_of(text))
        self._separator.sure()
        self.reasoning.add(text)

    def count(self, size: int) -> None:
        """So many bytes more. Raises ModelError if they are too many."""
        self._size += size
        if self._size > self._most:
            raise too_large()

    def rest(self) -> str:
        """The text that became certain with the end."""
        text = self._separator.end(cut=(self.finish or "").lower() == "length")
        self.restarted = self._separator.restarted
        return text

    def completion(self) -> Completion:
        """The whole. Raises ModelError: one that can't be used is paid for as well."""
        try:
            return self._completion()
        except ModelError as error:
            error.usage = self.usage
            raise

    def _completion(self) -> Completion:
        finish = (self.finish or "").lower()
        self.rest()
        found = self._separator.separated
        text, calls = found.text, self.calls.all()
        if found.calls and not calls:
            calls = self._written(found.calls)
        elif not calls and (calls := tool_calls.calls_as_answer(text, self._tools)):
            text = ""
        if any(not call.name for call in calls):
            raise garbage()
        if calls and not self._tools:
            calls = ()
            if not text.strip():
                raise _unusable("model_no_tools", "the model calls tools, and there are none")
        if finish in _FILTERED:
            raise ModelError(
                "the model's content filter stopped the answer",
                code="model_filtered",
                kind=ErrorKind.REQUEST,
            )
        if finish in _FAILED:
            raise ModelError(
                f"the model broke off ({clean_word(finish)})",
                code="model_broke_off",
                kind=ErrorKind.PASSING,
            )
        if not text.strip() and not calls:
            text = self.refusal or self._blank(finish)
        reasoning = "\n".join(part for part in (self.reasoning.text, found.reasoning) if part)
        return Completion(
            text.strip(),
            self.model,
            self.usage,
            calls,
            truncated=finish == "length",
            reasoning=reasoning,
            echo=self.echo,
            asked=self.asked,
        )

    def _written(self, texts: tuple[str, ...]) -> tuple[ToolCall, ...]:
        """Calls that the server handed over as text."""
        calls = tool_calls.calls_in(texts, self._tools) if self._tools else ()
        if calls is None:
            raise _unusable(
                "model_tool_text",
                "the model's server hands tool calls over as text, and this one can't be read: "
                "start it with the tool-call parser of its model",
            )
        return calls

    def _blank(self, finish: str) -> str:
        if finish == "length":
            raise ModelError(
                "the model used up max_tokens before it said anything; raise max_tokens",
                code="model_length",
                kind=ErrorKind.REQUEST,
            )
        raise _unusable("model_empty", "the model's answer was empty")


def clean_word(text: str) -> str:
    return "".join(char for char in text if char.isalnum() or char == "_")[:40]
