"""How fast a model may be asked: learned from what it grants and refuses. Pure.

A server that has had enough says so at once, so a call that was not refused within a moment
counts as granted. While nothing was refused yet, so many calls may be without a verdict as are a
small share of those that were granted: that bounds what is refused when a limit is met. After a
refusal calls go out one by one, until the next refusal shows the rate: granted calls over the time
between two refusals, at both of which nothing was left. Then they keep to that rate, which grows a
little with each granted call, so that it follows a limit that is raised.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

FIRST = 2  # calls without a verdict at the start
SHARE = 0.05  # of the granted calls may be without a verdict
VERDICT = 0.012  # seconds; longer where refusals come later
LATEST_VERDICT = 2.0
BELOW = 0.97  # of the measured rate to begin with
KEEP = 0.85  # of the rate at least: a server that saves no unused calls grants more than it seems
GROWTH = 0.002  # of the rate for each granted call, more after many
GROWTH_ROUGH = 0.02  # while the rate was measured by a few calls only
FEW, MANY = 10, 30
PAUSE = 2.0  # seconds after a refusal that names no time, doubled with each one that follows
LONGEST_PAUSE = 60.0
FASTEST = 1000.0  # calls a second; above it nothing is held back any more
CREDIT = 0.25  # of the time between two calls may be made up for, when one was late


@dataclass(slots=True, eq=False)
class Start:
    """A call that began at `at`. `open`: it has no verdict yet."""

    at: float
    open: bool = True


@dataclass(slots=True)
class Pace:
    """The pace of one model. `now` is monotonic seconds everywhere."""

    rate: float | None = None  # calls a second, once it is known
    probing: bool = False  # a refusal came, and the rate is not known yet
    granted: int = 0  # since the last refusal
    _open: int = 0
    _starts: deque[Start] = field(default_factory=deque)
    _verdict: float = VERDICT
    _refused_at: float | None = None
    _next: float = 0.0
    _rough: bool = False
    _fruitless: int = 0  # refusals in a row, nothing granted between

    def limits(self) -> bool:
        """Whether the model has shown a limit: then requests wait in the inbox."""
        return self.probing or self.rate is not None

    def room(self, now: float) -> int:
        """Calls that may begin now."""
        self._settle(now)
        if self.rate is not None:
            return 1 if now >= self._next else 0
        most = 1 if self.probing else max(FIRST, int(self.granted * SHARE))
        return max(0, most - self._open)

    def ahead(self, now: float, seconds: float) -> int:
        """Calls that may begin now or within so many seconds."""
        if self.rate is None:
            return self.room(now)
        return max(0, int((now + seconds - self._next) * self.rate) + 1)

    def wait(self, now: float) -> float:
        """Seconds until there is room, as far as that is known."""
        if self.room(now) > 0:
            return 0.0
        if self.rate is not None:
            return self._next - now
        oldest = next((start.at for start in self._starts if start.open), now)
        return max(0.001, oldest + self._verdict - now)

    def begin(self, now: float) -> Start:
        start = Start(now)
        self._starts.append(start)
        self._open += 1
        if self.rate is not None:
            self._next = max(self._next, now - CREDIT / self.rate) + 1 / self.rate
        return start

    def done(self, start: Start) -> None:
        """It was granted, or came to nothing that speaks of limits."""
        if start.open:
            start.open = False
            self._open -= 1
            self._grant(start)

    def refused(self, start: Start, now: float) -> float:
        """It was refused for a limit; seconds to leave the model alone if it named none."""
        if start.open:
            start.open = False
            self._open -= 1
        else:
            self.granted -= 1  # it was taken for granted too early
        self._verdict = min(max(self._verdict, 1.5 * (now - start.at)), LATEST_VERDICT)
        if self._refused_at is not None and start.at <= self._refused_at:
            return self._pause()  # it was on its way when the limit showed
        if self._refused_at is None:
            self.probing = True
            self._refused_at, self.granted = now, 0
        elif self.granted > 0:
            self._measure(now - self._refused_at)
            self._refused_at, self.granted, self._fruitless = now, 0, 0
        else:
            self._fruitless += 1
        if self.rate is not None:
            self._next = now + 1 / self.rate
        return self._pause()

    def _pause(self) -> float:
        first = PAUSE if self.rate is None else min(PAUSE, 1.5 / self.rate)
        return min(LONGEST_PAUSE, first * 2.0 ** min(self._fruitless, 10))

    def _measure(self, seconds: float) -> None:
        found = self.granted / max(seconds, 0.001)
        if self.rate is None:
            self._rough = self.granted < FEW
        else:
            self._rough = False
            found = max(found, KEEP * self.rate)
        self.rate, self.probing = BELOW * found, False

    def _settle(self, now: float) -> None:
        """Calls that were not refused in time count as granted."""
        while self._starts and (
            not self._starts[0].open or now - self._starts[0].at >= self._verdict
        ):
            start = self._starts.popleft()
            if start.open:
                start.open = False
                self._open -= 1
                self._grant(start)

    def _grant(self, start: Start) -> None:
        if self._refused_at is not None and start.at <= self._refused_at:
            return
        self.granted += 1
        if self.rate is None:
            return
        growth = GROWTH_ROUGH if self._rough else GROWTH
        self.rate *= 1 + growth * max(1.0, self.granted / MANY) ** 2
        if self.rate > FASTEST:
            self.rate, self.probing, self._refused_at = None, False, None

    def told(self, remaining: int, limit: int | None, reset: float | None, now: float) -> None:
        """The server said how many calls are left, of how many, until when (seconds)."""
        if remaining > 0 or not reset or self.rate is not None:
            return
        self.rate, self.probing = BELOW * max(1, limit or 1) / max(reset, 0.1), False
        self._refused_at, self.granted = now, 0
        self._next = now + 1 / self.rate
