"""Which providers may be called now: pauses they asked for, and breakers on those that fail.

A pause (429, 401, exhausted quota) holds every call to a provider until its time. A breaker
opens after failures in a row, of more than one request, and then lets one probe through at a
time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from service.errors import ErrorKind, ModelError
from service.llm.retry import pause

log = logging.getLogger("emqx-gpt.model")

BREAK_AFTER = 5  # passing failures in a row
BREAK_FIRST = 2.0  # seconds
BREAK_CAP = 60.0


@dataclass(slots=True)
class _Breaker:
    failures: int = 0
    who: set[str] = field(default_factory=set)  # whose failures; two are enough
    until: float = 0.0
    error: ModelError | None = None
    probing: bool = False


@dataclass(frozen=True, slots=True)
class BreakerState:
    """A provider that may not be called now, for people. `ok`: it only asked to wait."""

    provider: str
    code: str
    message: str
    seconds: float
    ok: bool = False


class CircuitBreakers:
    """The breakers of all providers in this process. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._gates: dict[str, _Breaker] = {}

    def wait(self, provider: str) -> float:
        """Seconds until this provider may be called; 0 now."""
        gate = self._gates.get(provider)
        if gate is None:
            return 0.0
        left = gate.until - self._clock()
        if left <= 0 and gate.probing:
            return 0.5
        return max(0.0, left)

    def enter(self, provider: str) -> None:
        """A call begins. Behind a breaker that has had its time, it is the probe."""
        gate = self._gates.get(provider)
        if gate is not None and gate.error is not None:
            gate.probing = True

    def succeeded(self, provider: str) -> None:
        """A call got its answer. One that began before a pause does not end the pause."""
        gate = self._gates.get(provider)
        if gate is not None and self._clock() < gate.until:
            gate.failures = 0
            gate.who.clear()
            return
        if gate is not None and gate.error is not None:
            log.warning("provider %s answers again", provider)
        self._gates.pop(provider, None)

    def failed(self, provider: str, error: ModelError, who: str = "") -> None:
        """Note a failed call: a pause, a step towards the breaker, or proof of life.

        `who` is the request: one that fails by itself must not close the gate to all others.
        """
        if error.kind in (ErrorKind.REQUEST, ErrorKind.MODEL):
            # It answered about this question: the provider itself is well.
            self.succeeded(provider)
            return
        gate = self._gates.setdefault(provider, _Breaker())
        seconds = pause(error)
        if seconds is None:
            if self._clock() < gate.until:
                return  # it began before the pause, and says nothing new
            if len(gate.who) < 2:
                gate.who.add(who)
            gate.failures += 1
            if len(gate.who) < 2:
                gate.failures = min(gate.failures, BREAK_AFTER - 1)
            gate.probing = False
            if gate.failures < BREAK_AFTER:
                return
            over = min(gate.failures - BREAK_AFTER, 10)
            seconds = min(BREAK_CAP, BREAK_FIRST * 2**over)
        gate.probing = False
        if gate.error is None:
            log.warning(
                "provider %s is not called for %.1f s: %s", provider, seconds, error.message
            )
        gate.error = error
        gate.until = max(gate.until, self._clock() + seconds)

    def left(self, provider: str) -> None:
        """A call was cancelled: it says nothing about the provider."""
        gate = self._gates.get(provider)
        if gate is not None:
            gate.probing = False

    def last_error(self, provider: str) -> ModelError | None:
        gate = self._gates.get(provider)
        return gate.error if gate else None

    def closed(self, providers: Iterable[str]) -> float:
        """Seconds until the first of these may be called; 0 when one may now."""
        return min((self.wait(provider) for provider in providers), default=0.0)

    def states(self) -> list[BreakerState]:
        """Providers that are paused or broken, for /readyz and the page.

        Once its time is over a provider counts as well until a call says otherwise: who gets
        no traffic while it is red would never find out.
        """
        return [
            BreakerState(name, error.code, error.message, wait, error.kind is ErrorKind.RATE)
            for name, gate in sorted(self._gates.items())
            if (error := gate.error) is not None and (wait := self.wait(name)) > 0
        ]
