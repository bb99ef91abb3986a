"""A round of tool calls while it is carried out, and what carries it out and stores it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from service.answering.job import Job
from service.domain import Claimed, Ear, Publish, Reservation, Usage, Wait
from service.emqx.publish_api import Result
from service.inbox import Close

COMMITTED, REFUSED, UNKNOWN, MISMATCH = "committed", "refused", "unknown", "mismatch"
Kept = dict[str, Any]
"""What is stored of a call's stage."""


class Sender(Protocol):
    """What carries out calls: the publisher, or what stands in for it in a replay."""

    async def send(self, message: Publish, *, once: bool = False) -> Result:
        """Publish a command."""

    async def deliver(self, outbox: Sequence[Publish]) -> list[Result]:
        """Publish what is no command."""

    async def retained(self, topic: str) -> bytes | None:
        """The retained message of a topic. Raises BrokerError."""

    def told_instead(self, call: Mapping[str, Any]) -> str | None:
        """What the model is told of this call without it being carried out; None: do it."""


class Store(Protocol):
    """Where stages are stored: the inbox, or nowhere, in a replay."""

    async def checkpoint(
        self,
        claimed: Claimed,
        steps: Sequence[Mapping[str, Any]],
        usage: Usage,
        *,
        begun: Sequence[Wait] = (),
        closed: Sequence[Close] = (),
    ) -> bool:
        """False: another process has the request now."""

    async def waits_of(self, seq: int) -> list[Wait]:
        """What the request waits for, or waited for."""

    async def reserve(self, wanted: Sequence[Reservation]) -> str | None:
        """None if all of it is granted."""

    async def settle(self, key: str, window: int, delta: int) -> None:
        """Change what was taken."""


@dataclass(frozen=True, slots=True)
class Asleep:
    """Until then (ms), or until one of these has its answer."""

    until: int
    ears: tuple[tuple[str, Ear], ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """What the model is told of a call, and what became of it; None: nothing was to be done.
    `unsettled`: nobody knows, it may not be repeated, and a person has to say."""

    text: str
    outcome: str | None = None
    unsettled: bool = False


@dataclass(slots=True)
class Round:
    """A stored round of calls while it is carried out. `kept` has each call's stage, `waits` what
    was known of its waits when this process took it up, `ears` all that it ever listened with."""

    job: Job
    before: Sequence[Mapping[str, Any]]
    step: Mapping[str, Any]
    resumed: bool
    waits: Mapping[tuple[str, Ear], Wait] = field(default_factory=dict)
    kept: list[Kept] = field(default_factory=list)
    ears: set[tuple[str, Ear]] = field(default_factory=set)

    @property
    def steps(self) -> list[Mapping[str, Any]]:
        """All rounds as they are stored, this one with what is known of it by now."""
        stages = {"stages": [dict(one) for one in self.kept]} if any(self.kept) else {}
        return [*self.before, {**self.step, **stages}]

    @property
    def closed(self) -> list[Close]:
        """What nothing more counts for, when the round is over."""
        return [Close(call_id, ear, "over") for call_id, ear in sorted(self.ears)]


def stage_of(done: Done) -> Kept:
    found: Kept = {"result": done.text}
    if done.outcome is not None:
        found["outcome"] = done.outcome
    if done.unsettled:
        found["unsettled"] = True
    return found


def done_before(kept: Kept) -> Done:
    return Done(kept["result"], kept.get("outcome"), kept.get("unsettled", False))
