"""What the store hands out, beside the words of `service.domain`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.domain import Attempt, Claimed, Message, Publish, State, Turn, Usage


@dataclass(frozen=True, slots=True)
class Added:
    """What became of an entry; of a duplicate, `id` is that of the one stored before."""

    id: str
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Claims:
    """What a claim brought, and when (ms) the next one may bring more; None: unknown."""

    requests: list[Claimed]
    next_due: int | None


@dataclass(frozen=True, slots=True)
class Memory:
    """What a conversation remembers, oldest first."""

    turns: tuple[Turn, ...] = ()
    cooldown_until: int | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A request came into a state; told after the commit."""

    id: str
    flow: str | None
    conversation: str
    state: State


@dataclass(frozen=True, slots=True)
class Stats:
    """What waits. `counts` is of requests not yet ended, by flow and state."""

    counts: Mapping[tuple[str | None, State], int]
    oldest_at: int | None
    dead: Mapping[State, int]

    @property
    def open(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class Row:
    """A request as people look at it.

    In a list, `message.payload` is cut to its first bytes (`payload_size` tells), and
    `steps` and `outbox` are left out.
    """

    seq: int
    id: str
    flow: str | None
    conversation: str
    ordered: bool
    state: State
    message: Message
    payload_size: int
    accepted_at: int
    deadline: int
    not_before: int
    publish: bool
    claims: int
    tries: int
    attempts: tuple[Attempt, ...] = ()
    steps: tuple[Mapping[str, Any], ...] = ()
    outbox: tuple[Publish, ...] = ()
    outcome: State | None = None
    reply: str | None = None
    model: str | None = None
    usage: Usage = field(default_factory=Usage)
    error_code: str | None = None
    error_message: str | None = None
    delivered: bool | None = None
    answered_at: int | None = None
    ended_at: int | None = None
