"""Writes that wait for the database: what a model was paid for is not thrown away."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import tenacity

from service.errors import StoreBusy
from service.llm.retry import with_retries

T = TypeVar("T")
LONGEST = 2.0  # seconds between tries

log = logging.getLogger("emqx-gpt.answering")


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Call again while the database can't now. Whose lease is lost meanwhile is cancelled."""
    return await with_retries(call, _rounds)


def _rounds() -> tenacity.AsyncRetrying:
    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(StoreBusy),
        wait=tenacity.wait_random_exponential(0.1, LONGEST, min=0.05),
        before_sleep=_first,
        reraise=True,
    )


def _first(state: tenacity.RetryCallState) -> None:
    if state.attempt_number == 1:
        error = state.outcome.exception() if state.outcome else None
        log.warning("waiting for the database: %s", error)
