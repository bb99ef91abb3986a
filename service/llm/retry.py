"""Error and attempt → again when, or give up. Pure: policy as functions that return decisions.

Two rings. Inside one durable attempt tenacity repeats what is over in seconds; between
durable attempts the request goes back to the inbox with a growing distance, until its
deadline or MAX_ATTEMPTS. A provider that says "wait" or "no money" pauses all calls to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from service.errors import ErrorKind, ModelError

T = TypeVar("T")

INNER_ATTEMPTS = 3
INNER_FIRST = 0.25  # seconds
INNER_CAP = 5.0  # seconds; a longer Retry-After leaves the inner ring
RETRY_AFTER_CAP = 300.0  # seconds
ACCOUNT_PAUSE = 30.0  # seconds between looks at a provider whose key or quota is out
OUTER_FIRST = 1.0
OUTER_CAP = 120.0


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The request ends `failed` with this code."""

    code: str


@dataclass(frozen=True, slots=True)
class Reschedule:
    """Back to the inbox until `delay` seconds from now. `counts`: it was a real attempt."""

    delay: float
    counts: bool = True


Decision = GiveUp | Reschedule


def repeat_inside(error: BaseException) -> bool:
    """May tenacity repeat the call within this attempt?"""
    if not isinstance(error, ModelError) or error.kind is not ErrorKind.PASSING:
        return False
    return (error.retry_after or 0) <= INNER_CAP


def inner_delay(attempt: int, retry_after: float | None, jitter: float) -> float:
    """Seconds before inner repetition `attempt` (1 is the first); `jitter` is 0..1."""
    backoff = min(INNER_CAP, INNER_FIRST * 2.0 ** (attempt - 1)) * (0.5 + jitter / 2)
    return max(backoff, min(retry_after or 0.0, INNER_CAP))


def outer_delay(tries: int, jitter: float) -> float:
    """Seconds before durable attempt `tries` + 1."""
    exponent = min(max(tries - 1, 0), 16)
    return float(min(OUTER_CAP, OUTER_FIRST * 2**exponent) * (0.75 + jitter / 2))


def pause(error: ModelError) -> float | None:
    """Seconds for which nothing should call this error's provider, or None."""
    if error.kind is ErrorKind.RATE:
        return min(max(error.retry_after or 2.0, 0.1), RETRY_AFTER_CAP)
    if error.kind is ErrorKind.ACCOUNT:
        return ACCOUNT_PAUSE
    return None


def decide(
    error: ModelError, *, tries: int, max_attempts: int, jitter: float, left: float
) -> Decision:
    """After a durable attempt failed in `error`; `tries` counts it; `left` is s to deadline."""
    if error.kind in (ErrorKind.REQUEST, ErrorKind.MODEL):
        return GiveUp(error.code)
    wait = pause(error)
    if wait is not None:
        # Waiting for a provider is no failure of this request: only the deadline ends it.
        return Reschedule(min(wait, left), counts=False) if left > 0 else GiveUp(error.code)
    if tries >= max_attempts:
        return GiveUp(error.code)
    delay = max(outer_delay(tries, jitter), min(error.retry_after or 0.0, RETRY_AFTER_CAP))
    return Reschedule(delay) if delay < left else GiveUp(error.code)


async def with_retries(
    call: Callable[[], Awaitable[T]], rounds: Callable[[], tenacity.AsyncRetrying]
) -> T:
    """`call` under tenacity's `rounds`, which are made only where its first try failed.

    Setting tenacity up costs as much CPU as the small writes and calls it stands around.
    """
    failed: list[Exception] = []
    try:
        return await call()
    except Exception as error:
        failed.append(error)

    async def again() -> T:
        if failed:
            raise failed.pop()
        return await call()

    return await rounds()(again)
