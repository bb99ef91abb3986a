"""What the steps of one request's life share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import tenacity

from service.answering.remote import NO_TOOLS, Remote
from service.domain import Claimed, State
from service.errors import StoreBusy
from service.flows import Flow
from service.llm.attempts import Log
from service.mqtt import traceparent
from service.mqtt.templates import Scope
from service.operations.spans import NOBODY, Spans

P = ParamSpec("P")
T = TypeVar("T")
LONGEST = 2.0  # seconds between tries while the database can't

Key = tuple[int, int]
"""(seq, fence): one claim of one request."""

log = logging.getLogger("emqx-gpt.answering")


class LostLease(Exception):
    """Another process has this request now; nothing more is done here."""


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed request of a known flow. `scope` is what templates read of its message,
    `captured` the levels of its topic, `log` its calls to models, `spans` tell who traces, `remote`
    are the tools of MCP servers that it may call."""

    claimed: Claimed
    flow: Flow
    captured: Mapping[str, str]
    scope: Scope
    log: Log
    spans: Spans = NOBODY
    remote: Remote = NO_TOOLS


@dataclass(frozen=True, slots=True)
class RunningRequest:
    """A request in hand, and the task that is its life."""

    claimed: Claimed
    task: asyncio.Task[None]


def size_of(claimed: Claimed) -> int:
    """What it holds of memory, roughly, in bytes."""
    return (
        len(claimed.message.payload)
        + sum(len(turn.user) + len(turn.assistant) for turn in claimed.turns)
        + sum(len(publish.payload) for publish in claimed.outbox)
    )


class InHand:
    """The requests in this process's hands. Each holds a place among the model calls until
    its reply is stored. `wake` tells the worker that there may be something to do; what is
    let go does so only while the worker waits for it (`full`)."""

    def __init__(self, wake: asyncio.Event) -> None:
        self.wake = wake
        self.full = False
        self.running: dict[Key, RunningRequest] = {}
        self.asking: set[Key] = set()
        self.bytes = 0
        """What all of them hold: payloads, memory and replies."""

    def take(self, claimed: Claimed, task: asyncio.Task[None]) -> None:
        self.running[claimed.seq, claimed.fence] = RunningRequest(claimed, task)
        self.bytes += size_of(claimed)
        if claimed.state is not State.ANSWERED:
            self.asking.add((claimed.seq, claimed.fence))

    def free_place(self, claimed: Claimed) -> None:
        self.asking.discard((claimed.seq, claimed.fence))
        if self.full:
            self.wake.set()

    def let_go(self, claimed: Claimed) -> None:
        if self.running.pop((claimed.seq, claimed.fence), None) is not None:
            self.bytes -= size_of(claimed)
        self.free_place(claimed)


async def retry_while_busy(
    write: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """`write`, and again while the database is busy: what a model was paid for is not thrown
    away. A request whose lease is lost meanwhile is cancelled."""
    try:
        return await write(*args, **kwargs)
    except StoreBusy as error:
        log.warning("waiting for the database: %s", error)
    # Only now: to set up tenacity costs 35 µs of CPU, a large part of the write itself.
    again = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(StoreBusy),
        wait=tenacity.wait_random_exponential(0.1, LONGEST, min=0.05),
        reraise=True,
    )
    return await again(write, *args, **kwargs)


async def under_lease(
    write: Callable[P, Awaitable[bool]], /, *args: P.args, **kwargs: P.kwargs
) -> None:
    """The same for a write under a lease. Raises LostLease."""
    if not await retry_while_busy(write, *args, **kwargs):
        raise LostLease


def about(claimed: Claimed, **more: object) -> dict[str, object]:
    """The fields of a log line about this request (LOG_FORMAT=json)."""
    found = {"request": claimed.id, "flow": claimed.flow, **more}
    properties = claimed.message.user_properties
    if properties and "trace_id" not in found and (up := traceparent.read(properties)) is not None:
        found["trace_id"] = up.trace
    return found
