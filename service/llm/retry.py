"""Error and attempt → again when, or give up. Pure: a policy whose methods return decisions.

Two rings. Inside one durable attempt `ask` repeats what is over in seconds; between
durable attempts the request goes back to the inbox with a growing distance, until its
deadline or MAX_ATTEMPTS. A limit or a lack of money pauses the calls that it concerns.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import ErrorKind, ModelError


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The request ends `failed` with this code."""

    code: str


@dataclass(frozen=True, slots=True)
class Later:
    """Back to the inbox until `delay` seconds from now. `counts`: it was a real attempt."""

    delay: float
    counts: bool = True


Decision = GiveUp | Later


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The figures of all retries and breakers, in seconds where nothing else is said."""

    inner_attempts: int = 3
    inner_first: float = 0.25
    inner_cap: float = 5.0  # a longer wait leaves the inner ring
    outer_first: float = 1.0
    outer_cap: float = 120.0
    retry_after_cap: float = 300.0
    account_pause: float = 30.0  # between looks at a provider whose key or quota is out
    break_after: int = 5  # passing failures in a row
    break_first: float = 2.0
    break_cap: float = 60.0

    def repeats(self, error: BaseException | None, attempt: int) -> bool:
        """May the call be repeated within this attempt? `attempt` calls were made."""
        if not isinstance(error, ModelError):
            return False
        if error.kind is ErrorKind.ANSWER:  # it was paid for
            return attempt == 1
        if error.kind is not ErrorKind.PASSING or attempt >= self.inner_attempts:
            return False
        return (error.retry_after or 0) <= self.inner_cap

    def inner_delay(self, attempt: int, retry_after: float | None, jitter: float) -> float:
        """Before the repetition after `attempt` (1 is the first); `jitter` is 0..1."""
        backoff = min(self.inner_cap, self.inner_first * 2.0 ** (attempt - 1))
        return max(backoff * (0.5 + jitter / 2), min(retry_after or 0.0, self.inner_cap))

    def outer_delay(self, tries: int, jitter: float) -> float:
        """Before durable attempt `tries` + 1."""
        exponent = min(max(tries - 1, 0), 16)
        return float(min(self.outer_cap, self.outer_first * 2**exponent) * (0.75 + jitter / 2))

    def pause(self, error: ModelError) -> float | None:
        """For how long nothing should call what this error speaks of, or None."""
        if error.kind is ErrorKind.RATE:
            return min(max(error.retry_after or 2.0, 0.1), self.retry_after_cap)
        if error.kind is ErrorKind.ACCOUNT:
            return self.account_pause
        return None

    def break_for(self, failures: int) -> float | None:
        """For how long the breaker opens after so many failures in a row; None: not at all."""
        if failures < self.break_after:
            return None
        return min(self.break_cap, self.break_first * 2.0 ** min(failures - self.break_after, 10))

    def decide(
        self, error: ModelError, *, tries: int, max_attempts: int, jitter: float, left: float
    ) -> Decision:
        """After a durable attempt failed in `error`; `tries` counts it; `left` is to the
        deadline."""
        if error.kind in (ErrorKind.REQUEST, ErrorKind.MODEL, ErrorKind.ANSWER):
            return GiveUp(error.code)
        wait = self.pause(error)
        if wait is not None:
            # Waiting for a provider is no failure of this request: only the deadline ends it.
            return Later(min(wait, left), counts=False) if left > 0 else GiveUp(error.code)
        if tries >= max_attempts:
            return GiveUp(error.code)
        again = min(error.retry_after or 0.0, self.retry_after_cap)
        delay = max(self.outer_delay(tries, jitter), again)
        return Later(delay) if delay < left else GiveUp(error.code)


USUAL = RetryPolicy()
