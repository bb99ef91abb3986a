"""Which models may be called now: pauses they asked for, and breakers on those that fail.

A limit or an outage belongs to one model, a key or an account to its whole provider. A pause
(429, 401, exhausted quota) holds every call that it concerns until its time. A breaker opens
after failures in a row, of more than one request, and then lets one probe through at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from service.errors import ErrorKind, ModelError
from service.flows import ModelRef
from service.llm.retry import RetryPolicy

log = logging.getLogger("emqx-gpt.model")

Where = ModelRef | str  # a model, or a provider by its name


@dataclass(slots=True)
class _Breaker:
    failures: int = 0
    who: set[str] = field(default_factory=set)  # whose failures; two are enough
    until: float = 0.0
    error: ModelError | None = None
    probing: bool = False


@dataclass(frozen=True, slots=True)
class BreakerState:
    """A model or provider that may not be called now, for people. `ok`: it only asked to
    wait."""

    provider: str
    model: str | None
    code: str
    message: str
    seconds: float
    ok: bool = False


class CircuitBreakers:
    """The breakers of this process. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float], policy: RetryPolicy) -> None:
        self._clock = clock
        self._policy = policy
        self._breakers: dict[Where, _Breaker] = {}

    def wait(self, model: ModelRef) -> float:
        """Seconds until this model may be called; 0 now."""
        return max(self._wait(model), self._wait(model.provider)) if self._breakers else 0.0

    def closed(self, models: Iterable[ModelRef]) -> float:
        """Seconds until the first of these may be called; 0 when one may now."""
        return min((self.wait(model) for model in models), default=0.0)

    def last_error(self, model: ModelRef) -> ModelError | None:
        """Why it may not be called; of model and provider what lasts longer."""
        found = [
            (self._wait(where), breaker.error)
            for where in (model, model.provider)
            if (breaker := self._breakers.get(where)) is not None
        ]
        return max(found, key=lambda one: one[0])[1] if found else None

    def enter(self, model: ModelRef) -> None:
        """A call begins. Behind a breaker that has had its time, it is the probe."""
        for where in (model, model.provider):
            breaker = self._breakers.get(where)
            if breaker is not None and breaker.error is not None:
                breaker.probing = True

    def succeeded(self, model: ModelRef) -> None:
        """A call got its answer."""
        if self._breakers:
            self._well(model)
            self._well(model.provider)

    def left(self, model: ModelRef) -> None:
        """A call was cancelled: it says nothing about the model."""
        for where in (model, model.provider):
            if (breaker := self._breakers.get(where)) is not None:
                breaker.probing = False

    def failed(self, model: ModelRef, error: ModelError, who: str = "") -> None:
        """Note a failed call: a pause, a step towards the breaker, or proof of life.

        `who` is the request: one that fails by itself must not close the breaker to all others.
        """
        if error.kind in (ErrorKind.REQUEST, ErrorKind.MODEL):
            self.succeeded(model)  # it answered about this question: it is well
            return
        where: Where = model
        if error.kind is ErrorKind.ACCOUNT:
            where = model.provider
            self.left(model)
        else:
            self._well(model.provider)  # its key works
        breaker = self._breakers.setdefault(where, _Breaker())
        seconds = self._policy.pause(error)
        if seconds is None:
            if self._clock() < breaker.until:
                return  # it began before the pause, and says nothing new
            breaker.failures += 1
            if len(breaker.who) < 2:
                breaker.who.add(who)
            if len(breaker.who) < 2:
                breaker.failures = min(breaker.failures, self._policy.break_after - 1)
            seconds = self._policy.break_for(breaker.failures)
        breaker.probing = False
        if seconds is None:
            return
        if breaker.error is None:
            log.warning("%s is not called for %.1f s: %s", _shown(where), seconds, error.message)
        breaker.error = error
        breaker.until = max(breaker.until, self._clock() + seconds)

    def states(self) -> list[BreakerState]:
        """What is paused or broken, for /readyz and the page.

        Once its time is over it is not listed until a call says otherwise: who gets no traffic
        while it is red would never find out.
        """
        found = []
        for where, breaker in sorted(self._breakers.items(), key=lambda item: str(item[0])):
            wait = self._wait(where)
            if (error := breaker.error) is not None and wait > 0:
                provider, name = where, None
                if isinstance(where, ModelRef):
                    provider, name = where.provider, str(where)
                ok = error.kind is ErrorKind.RATE
                found.append(BreakerState(str(provider), name, error.code, error.message, wait, ok))
        return found

    def _wait(self, where: Where) -> float:
        breaker = self._breakers.get(where)
        if breaker is None:
            return 0.0
        left = breaker.until - self._clock()
        if left <= 0 and breaker.probing:
            return 0.5
        return max(0.0, left)

    def _well(self, where: Where) -> None:
        """A sign of life. One from a call that began before a pause does not end the pause."""
        breaker = self._breakers.get(where)
        if breaker is None:
            return
        if self._clock() < breaker.until:
            breaker.failures = 0
            breaker.who.clear()
            return
        if breaker.error is not None:
            log.warning("%s answers again", _shown(where))
        del self._breakers[where]


def _shown(where: Where) -> str:
    return f"model {where}" if isinstance(where, ModelRef) else f"provider {where}"
