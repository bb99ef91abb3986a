"""What the steps of one request's life share."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import tenacity

from service.domain import Claimed
from service.errors import StoreBusy
from service.flows import Flow
from service.llm.attempts import Log
from service.mqtt.templates import Scope

P = ParamSpec("P")
T = TypeVar("T")
LONGEST = 2.0  # seconds between tries while the database can't

log = logging.getLogger("emqx-gpt.answering")


class LostLease(Exception):
    """Another process has this request now; nothing more is done here."""


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed request of a known flow. `scope` is what templates read of its message,
    `captured` the levels of its topic, `log` its calls to models."""

    claimed: Claimed
    flow: Flow
    captured: Mapping[str, str]
    scope: Scope
    log: Log


async def stored(write: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
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


async def fenced(write: Callable[P, Awaitable[bool]], /, *args: P.args, **kwargs: P.kwargs) -> None:
    """The same for a write under a lease. Raises LostLease."""
    if not await stored(write, *args, **kwargs):
        raise LostLease
