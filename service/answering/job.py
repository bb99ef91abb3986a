"""What the steps of answering one request share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from service.flows import Flow, ModelRef
from service.model import Attempt, Claimed, Usage
from service.template import Scope


class LostLease(Exception):
    """Somebody else has this request now; nothing more is done here."""


@dataclass(slots=True)
class Log:
    """The model calls of request `id`, as they happened. `now` gives epoch ms."""

    id: str
    now: Callable[[], int]
    attempts: list[Attempt] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)

    def add(self, began: int, model: ModelRef, result: str, message: str = "") -> None:
        took = max(0, self.now() - began)
        self.attempts.append(Attempt(began, took, str(model), result, message))


@dataclass(slots=True)
class Job:
    """A claimed request, its flow, and what templates may read of it: the wake word is cut
    from it once the message is understood."""

    claimed: Claimed
    flow: Flow
    scope: Scope
    captured: Mapping[str, str]
    log: Log
