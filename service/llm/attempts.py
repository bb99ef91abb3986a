"""The model calls of one request, as they happened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from service.domain import Attempt, Usage
from service.flows import ModelRef


@dataclass(slots=True)
class Log:
    """The model calls of one request, as they happened, and what the models thought beside
    their answers. `who`: the conversation; one alone that fails must not close a model to all
    others. `now` gives epoch ms."""

    who: str
    now: Callable[[], int]
    flow: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    reasoning: list[str] = field(default_factory=list)

    def add(self, began: int, model: ModelRef, result: str, message: str = "") -> None:
        took = max(0, self.now() - began)
        self.attempts.append(Attempt(began, took, str(model), result, message))
