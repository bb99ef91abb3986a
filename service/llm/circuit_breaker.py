"""Which models may be called now: pauses they asked for, and breakers on those that fail.

A limit or an outage belongs to one model, a key or an account to its whole provider. A pause
(429, 401, exhausted quota) holds every call that it concerns until its time. A breaker opens
after failures in a row, of more than one request, and then lets one probe through at a time.
How fast a model that is well may be asked is in `pace`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from service.errors import ErrorKind, ModelError
from service.flows import ModelRef
from service.llm.pace import Pace, Start
from service.llm.rate_limits import Granted
from service.llm.retry import RetryPolicy

log = logging.getLogger("emqx-gpt.model")

Where = ModelRef | str  # a model, or a provider by its name
HELD = 2.0  # seconds that a paused provider is said to need; then it is looked at again
PATIENCE = 1.0  # seconds that a request waits for its turn here, and not in the inbox


@dataclass(slots=True)
class _Breaker:
    failures: int = 0
    who: set[str] = field(default_factory=set)  # whose failures; two are enough
    until: float = 0.0
    error: ModelError | None = None
    probing: bool = False


@dataclass(frozen=True, slots=True)
class BreakerState:
    """A model or provider that may not be called now, for people. `ok`: it only asked to wait,
    or it is one model and others answer."""

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
        self._held: frozenset[str] = frozenset()
        self._paces: dict[ModelRef, Pace] = {}
        self._queues: dict[ModelRef, deque[asyncio.Event]] = {}

    def wait(self, model: ModelRef) -> float:
        """Seconds until this model may be called; 0 now."""
        paused = self._paused(model)
        pace = self._paces.get(model)
        if paused > 0 or pace is None or not pace.limits():
            return paused
        return pace.wait(self._clock())

    def blocked_for(self, models: Iterable[ModelRef]) -> float:
        """Seconds until the first of these may be called; 0 when one may now."""
        return min((self.wait(model) for model in models), default=0.0)

    def room(self, models: Iterable[ModelRef]) -> float:
        """How many requests may be taken up for these models now; infinite where none of them
        has shown a limit."""
        most = 0.0
        for model in models:
            if self._paused(model) <= 0:
                pace = self._paces.get(model)
                if pace is None or not pace.limits():
                    return math.inf
                waiting = len(self._queues.get(model) or ())
                most = max(most, pace.ahead(self._clock(), PATIENCE / 4) - waiting)
        return most

    def last_error(self, model: ModelRef) -> ModelError | None:
        """Why it may not be called; of model and provider what lasts longer."""
        found = [
            (self._wait(where), breaker.error)
            for where in (model, model.provider)
            if (breaker := self._breakers.get(where)) is not None
        ]
        return max(found, key=lambda one: one[0])[1] if found else None

    async def slot(self, model: ModelRef, ends: float) -> Start | None:
        """Wait for this model's next turn, in order, and begin a call. None: not before `ends`
        (monotonic), or so late that the request had better wait in the inbox."""
        queue = self._queues.setdefault(model, deque())
        if not queue and self.wait(model) <= 0 and self._pace(model).room(self._clock()) > 0:
            return self.enter(model)
        me = asyncio.Event()
        queue.append(me)
        try:
            while True:
                if queue[0] is me:
                    waiting = self.wait(model)
                    if waiting > PATIENCE or self._paused(model) > 0 or self._clock() >= ends:
                        return None
                    if self._pace(model).room(self._clock()) > 0:
                        return self.enter(model)
                    waiting = self._pace(model).wait(self._clock())
                    me.clear()
                    try:
                        async with asyncio.timeout(min(waiting, ends - self._clock())):
                            await me.wait()
                    except TimeoutError:
                        pass
                else:
                    await me.wait()
        finally:
            queue.remove(me)
            self._wake(model)

    def _wake(self, model: ModelRef) -> None:
        if queue := self._queues.get(model):
            queue[0].set()

    def enter(self, model: ModelRef) -> Start:
        """A call begins. Behind a breaker that has had its time, it is the probe."""
        for where in (model, model.provider):
            breaker = self._breakers.get(where)
            if breaker is not None and breaker.error is not None:
                breaker.probing = True
        return self._pace(model).begin(self._clock())

    def succeeded(self, model: ModelRef, start: Start | None = None) -> None:
        """A call got its answer."""
        self._done(model, start)
        if self._breakers:
            self._well(model)
            self._well(model.provider)
        self._wake(model)

    def abandoned(self, model: ModelRef, start: Start | None = None) -> None:
        """A call was cancelled: it says nothing about the model."""
        self._done(model, start)
        self._probed(model)
        self._wake(model)

    def _probed(self, model: ModelRef) -> None:
        for where in (model, model.provider):
            if (breaker := self._breakers.get(where)) is not None:
                breaker.probing = False

    def granted(self, model: ModelRef, granted: Granted) -> None:
        """What a model's server says of its limits."""
        now = self._clock()
        self._pace(model).told(granted.remaining, granted.limit, granted.reset, now)

    def failed(
        self, model: ModelRef, error: ModelError, who: str = "", start: Start | None = None
    ) -> None:
        """Note a failed call: a pause, a step towards the breaker, or proof of life.

        `who` asked: one alone who fails must not open the breaker for all others.
        """
        if error.kind in (ErrorKind.REQUEST, ErrorKind.MODEL, ErrorKind.ANSWER):
            self.succeeded(model, start)  # it answered about this question: it is well
            return
        seconds = self._policy.pause(error)
        if error.kind is ErrorKind.RATE and start is not None:
            unnamed = self._pace(model).refused(start, self._clock())
            seconds = unnamed if error.retry_after is None else seconds
        else:
            self._done(model, start)
        self._failed(model, error, seconds, who)
        self._wake(model)

    def _failed(self, model: ModelRef, error: ModelError, seconds: float | None, who: str) -> None:
        where: Where = model
        if error.kind is ErrorKind.ACCOUNT:
            where = model.provider
            self._probed(model)
        else:
            self._well(model.provider)  # its key works
        breaker = self._breakers.setdefault(where, _Breaker())
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
            log.warning("%s is not called for %.1f s: %s", _shown(where), seconds, error.ours)
        breaker.error = error
        breaker.until = max(breaker.until, self._clock() + seconds)

    def broken(self, model: ModelRef) -> bool:
        """Whether it, or its provider, failed and has not answered since. One that only asked to
        wait is well."""
        return any(
            breaker.error is not None and breaker.error.kind is not ErrorKind.RATE
            for where in (model, model.provider)
            if (breaker := self._breakers.get(where)) is not None
        )

    def states(self) -> list[BreakerState]:
        """What is paused or broken, for /readyz.

        Once its time is over it is not listed until a call says otherwise: who gets no traffic
        while it is red would never find out.
        """
        others = any(self._paused(model) <= 0 for model in self._paces)
        found = []
        for where, breaker in sorted(self._breakers.items(), key=lambda item: str(item[0])):
            wait = self._wait(where)
            if (error := breaker.error) is not None and wait > 0:
                provider, name = where, None
                if isinstance(where, ModelRef):
                    provider, name = where.provider, str(where)
                ok = error.kind is ErrorKind.RATE or (name is not None and others)
                found.append(BreakerState(str(provider), name, error.code, error.message, wait, ok))
        return found

    def _done(self, model: ModelRef, start: Start | None) -> None:
        if start is not None:
            self._pace(model).done(start, self._clock())

    def _pace(self, model: ModelRef) -> Pace:
        pace = self._paces.get(model)
        if pace is None:
            pace = self._paces[model] = Pace()
        return pace

    def _paused(self, model: ModelRef) -> float:
        return (
            max(self._wait(model), self._wait(model.provider))
            if self._breakers or self._held
            else 0.0
        )

    def forget(self, providers: Collection[str]) -> None:
        """Another server, or another key, stands behind these: what the one before did counts no
        more. How fast its models may be asked is learned anew by asking."""
        for where in list(self._breakers):
            if (where.provider if isinstance(where, ModelRef) else where) in providers:
                del self._breakers[where]
        for model in self._queues:
            if model.provider in providers:
                self._wake(model)

    def pause(self, providers: frozenset[str]) -> None:
        """These are not called until they are left out of it: a person paused them."""
        self._held = providers

    def _wait(self, where: Where) -> float:
        if where in self._held:
            return HELD
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
