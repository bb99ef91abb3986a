"""The model calls of one request, as they happened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from service.domain import Attempt, Usage
from service.flows import ModelRef

KEPT = 100_000  # bytes of a prompt that are kept for people
NOTICED = 5  # ms; a shorter wait is none


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call to a model, for who traces. Times in epoch ms; `answered_by` is the model by its
    server's own word."""

    model: ModelRef
    began: int
    ended: int
    result: str
    usage: Usage
    max_tokens: int | None = None
    stream: bool = False
    answered_by: str = ""


@dataclass(slots=True)
class Log:
    """The model calls of one request, as they happened, and what the models thought beside
    their answers. `who`: the conversation; one alone that fails must not close a model to all
    others. `now` gives epoch ms. `first` is when the first piece of an answer came that
    somebody wanted piece by piece."""

    who: str
    now: Callable[[], int]
    flow: str = ""
    heard: Callable[[ModelCall], None] | None = None
    attempts: list[Attempt] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    reasoning: list[str] = field(default_factory=list)
    first: int | None = None
    collected: int | None = None  # messages that it is asked about together
    _begun: int = 0
    _waits: list[tuple[int, int]] = field(default_factory=list)
    _prompt: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._begun = self.now()

    def add(self, began: int, model: ModelRef, result: str, message: str = "") -> None:
        took = max(0, self.now() - began)
        self.attempts.append(Attempt(began, took, str(model), result, message))

    def first_after(self) -> int | None:
        """How long after the call that it answers the first piece came, ms."""
        if self.first is None:
            return None
        began = [one.at for one in self.attempts if one.at <= self.first]
        return self.first - began[-1] if began else None

    def waited(self, since: int, until: int) -> None:
        """It stood in line for its model, which grants so much at a time."""
        if until - since >= NOTICED:
            self._waits.append((since, until))

    def prompted(self, messages: Sequence[Mapping[str, Any]], *, keep: bool) -> None:
        """The prompt: its hash, and with `keep` itself."""
        try:
            blob = orjson.dumps(messages)
        except TypeError:  # lone surrogates
            blob = json.dumps(messages).encode()
        self._prompt = {"hash": hashlib.blake2b(blob, digest_size=8).hexdigest()}
        if keep:
            self._prompt["prompt"] = _readable(messages)

    def trace(self, later: tuple[int, str] | None = None) -> dict[str, Any]:
        """What is kept of this run: `later` is when it is tried again, and why."""
        run: dict[str, Any] = {"begun": self._begun}
        if self.first is not None:
            run["first"] = self.first
        if self._waits:
            run["waits"] = self._waits
        if later is not None:
            run["later"] = later
        many = {} if self.collected is None else {"collected": self.collected}
        return {**self._prompt, **many, "run": run}


def _readable(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Roles and texts; of a picture only that there was one. The end is cut off beyond KEPT."""
    found: list[dict[str, Any]] = []
    left = KEPT
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            parts = [str(part.get("text") or f"({part.get('type')})") for part in content]
            content = "\n".join(parts)
        text = str(content or "")[:left]
        left -= len(text)
        found.append({"role": message.get("role"), "content": text})
    return found
