"""The words of the domain as frozen values: message, request, reply, publish.

Times are milliseconds since the epoch unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple


class State(StrEnum):
    """Where a request is; the last four are ends."""

    QUEUED = "queued"
    ANSWERING = "answering"
    ANSWERED = "answered"  # how it ends is stored, and not yet published
    WAITING = "waiting"  # for a device's answer or a person's word, in nobody's hands
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"
    IGNORED = "ignored"

    @property
    def ended(self) -> bool:
        return self in ENDS

    @classmethod
    def parse(cls, text: str) -> State:
        """Raises ValueError that lists what there is."""
        try:
            return cls(text)
        except ValueError:
            raise ValueError(f"no state {text!r}; one of {', '.join(cls)}") from None


ENDS = frozenset({State.DONE, State.FAILED, State.EXPIRED, State.IGNORED})


@dataclass(frozen=True, slots=True)
class Message:
    """One published MQTT message as EMQX's rule reported it.

    `payload` is the bytes as far as EMQX kept them. `expiry` is MQTT 5's
    Message-Expiry-Interval in seconds. `received_at` is EMQX's clock. `peerhost` is kept only
    where CLIENT_IDENTITY asks for it: the client's address, of IPv6 its network.
    """

    id: str
    topic: str
    payload: bytes
    received_at: int
    flow: str | None = None
    clientid: str | None = None
    username: str | None = None
    peerhost: str | None = None
    qos: int = 0
    retained: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None
    content_type: str | None = None
    expiry: int | None = None
    user_properties: tuple[tuple[str, str], ...] = ()


class Reading(NamedTuple):
    """One message of a window (`recent` of a flow): when EMQX received it, and its text.

    `topic` is kept where a window has messages of several topics.
    """

    at: int
    text: str
    topic: str = ""


@dataclass(frozen=True, slots=True)
class Publish:
    """One message to hand to EMQX. `expiry` in seconds; text properties only."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    content_type: str | None = None
    correlation: bytes | None = None
    expiry: int | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    response_topic: str | None = None


class Ear(StrEnum):
    """What a wait listens for."""

    CONFIRM = "confirm"  # a person's yes or no
    ANSWER = "answer"  # the device's answer to a command
    VERIFY = "verify"  # what the device says that it did


@dataclass(frozen=True, slots=True)
class Wait:
    """What a tool call waits for, on the plain topic `topic`, until then (ms).

    `rule` says which messages are meant, in words that need no flow: who hears one may know
    another flows.toml. `answer` is what came, without a PIN; of `verify` the latest that came.
    `closed_at`: nothing more counts. `late` counts what came afterwards, `noted` says why the
    latest message that did not count did not. `heard` is the id of the message that counted: EMQX
    may bring it again.
    """

    call_id: str
    ear: Ear
    topic: str
    until: int
    rule: Mapping[str, Any]
    answer: bytes | None = None
    answered_at: int | None = None
    closed_at: int | None = None
    by: str = ""
    tries: int = 0
    late: int = 0
    noted: str = ""
    heard: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them. `cached_tokens` and `cache_write_tokens` are parts of
    `prompt_tokens`. `cost` is US dollars, None where no price is known."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    tier: str = ""
    cost: float | None = None

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        costs = [cost for cost in (self.cost, other.cost) if cost is not None]
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            other.tier or self.tier,
            sum(costs) if costs else None,
        )


NO_USAGE = Usage()
NO_TRACE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Batch:
    """How many messages of a conversation become one request: those of `every` ms, at most
    `messages` of them and `size` bytes together."""

    every: int
    messages: int
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A new request, ready to be stored (intake makes it).

    `resolved` False: no flow that this process knows fits; then `conversation` is "" and
    `ordered` False, and a process that knows the flow resolves it later. `publish` False
    keeps the reply in the inbox (POST /ask without publish). Who has the earlier `turn` (ms) is
    asked first; 0: `accepted_at`. `batch`: it waits for more of its kind (`collect`).
    """

    id: str
    flow: str | None
    dedupe: str
    conversation: str
    ordered: bool
    message: Message
    accepted_at: int
    deadline: int
    publish: bool = True
    resolved: bool = True
    turn: int = 0
    batch: Batch | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call to a model and what came of it. `result` is "ok" or an error code."""

    at: int
    took_ms: int
    model: str
    result: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange of a conversation's memory; or a summary of those before, in `assistant`."""

    user: str
    assistant: str
    at: int
    tokens: int = 0
    summary: bool = False


@dataclass(frozen=True, slots=True)
class Claimed:
    """A request under a lease. (`seq`, `fence`) is the lease: writes carry both.

    `state` is ANSWERING (to be asked) or ANSWERED (its `outbox` waits to be published).
    `claims` counts how often it was claimed since its last step forward, this time included;
    `tries` the durable attempts that failed before. `steps` is what a tool flow stored of its
    earlier rounds.
    `turns` (oldest first) and `cooldown_until` (ms) are what its conversation remembers;
    `usage` is what the claims before this one took, `trace` when they were and what they waited
    for. `error_code` is that of the answer that waits to be published, or of the last failure.
    """

    seq: int
    fence: int
    id: str
    flow: str | None
    conversation: str
    ordered: bool
    state: State
    message: Message
    accepted_at: int
    deadline: int
    publish: bool = True
    claims: int = 1
    tries: int = 0
    attempts: tuple[Attempt, ...] = ()
    steps: tuple[Mapping[str, Any], ...] = ()
    outbox: tuple[Publish, ...] = ()
    outcome: State | None = None
    turns: tuple[Turn, ...] = ()
    cooldown_until: int | None = None
    usage: Usage = NO_USAGE
    trace: Mapping[str, Any] = field(default_factory=dict)
    error_code: str | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a request ends, whichever way, stored before anything is published.

    With an empty `outbox` it ends at once in `outcome`; else it is `answered` until the
    outbox is published: the pieces of the reply, then the status. `turn` enters the
    conversation's memory in the same transaction.
    """

    outcome: State
    outbox: tuple[Publish, ...] = ()
    text: str | None = None
    model: str | None = None
    reasoning: str | None = None
    usage: Usage = field(default_factory=Usage)
    error_code: str | None = None
    error_message: str | None = None
    turn: Turn | None = None
    keep_turns: int = 0
    keep_summary: bool = False  # beside them, the oldest one
    crowded: bool = False  # the memory was too long for the model
    attempts: tuple[Attempt, ...] = ()
    cooldown_until: int | None = None
    value: str | None = None  # that it was asked about, of a flow with on_change
    forget: bool = False
    batch: Batch | None = None  # what its flow collects: those that it took end with it
    trace: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spent:
    """How far a budget of today is used. `unit` is tokens or dollars; `flow` "" is all flows."""

    unit: str
    flow: str
    used: float
    limit: float


@dataclass(frozen=True, slots=True)
class Reservation:
    """`amount` of `key` in the window that starts at `window` (ms), within `limit`."""

    key: str
    window: int
    amount: int
    limit: int
