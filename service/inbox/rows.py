"""What the inbox hands out, typed; how rows of `requests` are read.

A field of `Claimed` or `Row` is read from the column of its name. So a new column is named
in `sql_tables`, in a step of `migrations`, and as a field here; where it is written, once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import func

from service.domain import Attempt, Claimed, Message, Publish, State, Turn, Usage
from service.inbox import codec
from service.inbox.sql_tables import requests


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
class Notice:
    """What another process committed. `wake`: there may be something to claim."""

    origin: str
    wake: bool
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class BacklogStats:
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
    `steps`, `outbox`, `reasoning` and `trace` are left out.
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
    reasoning: str | None = None
    usage: Usage = field(default_factory=Usage)
    error_code: str | None = None
    error_message: str | None = None
    delivered: bool | None = None
    answered_at: int | None = None
    ended_at: int | None = None
    held_at: int | None = None
    held_until: int | None = None
    trace: Mapping[str, Any] = field(default_factory=dict)


_r = requests.c
_PREVIEW = 400  # bytes of a payload in a list
_READ: Mapping[str, Callable[[Any], Any]] = {
    "state": State,
    "outcome": codec.state_in,
    "attempts": codec.attempts_in,
    "steps": codec.steps_in,
    "not_before": lambda at: max(0, at),  # what waits for its turn waits for no time
    "outbox": codec.outbox_in,
    "reply": codec.text_in,
    "trace": codec.trace_in,
    "reasoning": codec.text_in,
}
"""Columns whose value is not what the field holds."""


def _columns(record: type, *without: str) -> list[Any]:
    names = [one.name for one in fields(record) if one.name not in without]
    return [_r[name] for name in names if name in _r]


_USAGE = ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "cost")
_usage = tuple(_r[name] for name in _USAGE)
claimed_columns = (*_columns(Claimed), *_usage, _r.payload)
_size = func.length(_r.payload).label("payload_size")
full_columns = (*_columns(Row), *_usage, _r.payload, _size)
listed_columns = (
    *_columns(Row, "steps", "outbox", "reasoning", "trace"),
    *_usage,
    func.coalesce(func.substr(_r.payload, 1, _PREVIEW), b"").label("payload"),
    _size,
)


def _fields(row: Any) -> dict[str, Any]:
    found: dict[str, Any] = row._asdict()
    for name, read in _READ.items():
        if name in found:
            found[name] = read(found[name])
    blob, payload = found["message"], found.pop("payload")
    found["message"] = codec.message_in(blob, payload or b"")  # substr of nothing: NULL
    names = codec.names_in(blob, found["flow"], found["conversation"])
    found["flow"], found["conversation"] = names
    told, said, cached, written, cost = (found.pop(name) for name in _USAGE)
    found["usage"] = Usage(told or 0, said or 0, cached or 0, written or 0, cost=cost)
    return found


def to_claimed(row: Any, memory: Memory | None = None) -> Claimed:
    known = memory or Memory()
    return Claimed(turns=known.turns, cooldown_until=known.cooldown_until, **_fields(row))


def to_row(row: Any) -> Row:
    return Row(**_fields(row))
