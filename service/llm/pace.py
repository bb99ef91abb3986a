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
STALE = 60.0  # seconds that a count without an end is believed
VERDICT = 0.012  # seconds; longer where answers or refusals take longer
SLOW_VERDICT = 0.03  # for answers: how long a refusal takes is not known by a slow one
LATEST_VERDICT = 2.0
BELOW = 0.97  # of the measured rate to begin with
KEEP = 0.85  # of the rate at least: a server that saves no unused calls grants more than it seems
GROWTH = 0.002  # of the rate for each granted call, more after many
GROWTH_ROUGH = 0.02  # while the rate was measured by a few calls only
FEW, MANY = 10, 30
PAUSE = 2.0  # seconds after a refusal that names no time, doubled with each one that follows
LONGEST_PAUSE = 60.0
FASTEST = 1000.0  # calls a second; above it nothing is held back any more
FIRST_TOLD = 8  # likewise where the server tells what is left
NEAR = 20.0  # calls left, from which on requests wait in the inbox
MISLED = 3  # refusals in a row in spite of what was told
CREDIT = 0.25  # of the time between two calls may be made up for, when one was late


@dataclass(slots=True, eq=False)
class Start:
    """A call that began at `at`. `open`: it has no verdict yet."""

    at: float
    open: bool = True


@dataclass(slots=True)
class Bucket:
    """Calls that a server said are left, and come back at so many a second."""

    left: float
    refill: float
    size: float
    at: float

    def now(self, now: float) -> float:
        return min(self.size, self.left + self.refill * (now - self.at))

    def take(self, now: float) -> None:
        self.left, self.at = self.now(now) - 1, now


@dataclass(slots=True)
class Pace:
    """The pace of one model. `now` is monotonic seconds everywhere."""

    rate: float | None = None  # calls a second, once it is known
    probing: bool = False  # a refusal came, and the rate is not known yet
    granted: int = 0  # since the last refusal
    _open: int = 0
    _starts: deque[Start] = field(default_factory=deque)
    _verdict: float = VERDICT
    _refusals_take: float = 0.0
    _refused_at: float | None = None
    _next: float = 0.0
    _rough: bool = False
    _fruitless: int = 0  # refusals in a row, nothing granted between
    _bucket: Bucket | None = None  # as the server tells it
    _granted_then: int = 0
    _distrusted: bool = False  # what it tells is not what it grants

    def forget_stale(self, now: float) -> None:
        """A server that says there are none left, and never when there will be: no longer than
        most limits last."""
        bucket = self._bucket
        if bucket is not None and not bucket.refill and now - bucket.at >= STALE:
            self._bucket = None

    def limits(self) -> bool:
        """Whether the model has shown a limit: then requests wait in the inbox."""
        few = self._bucket is not None and self._bucket.left < NEAR
        return few or self.probing or self.rate is not None

    def room(self, now: float) -> int:
        """Calls that may begin now."""
        self._settle(now)
        self.forget_stale(now)
        if self.rate is not None:
            return 1 if now >= self._next else 0
        most = 1 if self.probing else max(FIRST, int(self.granted * SHARE))
        if self._bucket is not None:
            return max(0, min(max(most, FIRST_TOLD) - self._open, int(self._bucket.now(now))))
        return max(0, most - self._open)

    def ahead(self, now: float, seconds: float) -> int:
        """Calls that may begin now or within so many seconds."""
        if self.rate is None:
            told = self._bucket.now(now + seconds) if self._bucket is not None else 0
            return int(told) if told else self.room(now)
        return max(0, int((now + seconds - self._next) * self.rate) + 1)

    def wait(self, now: float) -> float:
        """Seconds until there is room, as far as that is known."""
        if self.room(now) > 0:
            return 0.0
        if self.rate is not None:
            return self._next - now
        if self._bucket is not None and self._bucket.now(now) < 1 and self._bucket.refill:
            return max(0.001, (1 - self._bucket.now(now)) / self._bucket.refill)
        if self._bucket is not None and self._bucket.now(now) < 1:
            return max(0.001, self._bucket.at + STALE - now)
        oldest = next((start.at for start in self._starts if start.open), now)
        return max(0.001, oldest + self._verdict - now)

    def begin(self, now: float) -> Start:
        start = Start(now)
        self._starts.append(start)
        self._open += 1
        if self._bucket is not None:
            self._bucket.take(now)
        if self.rate is not None:
            self._next = max(self._next, now - CREDIT / self.rate) + 1 / self.rate
        return start

    def done(self, start: Start, now: float) -> None:
        """It was granted, or came to nothing that speaks of limits."""
        took = min(1.5 * (now - start.at), SLOW_VERDICT)
        self._verdict = max(VERDICT, self._refusals_take, (3 * self._verdict + took) / 4)
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
        self._refusals_take = min(max(self._refusals_take, 1.5 * (now - start.at)), LATEST_VERDICT)
        self._verdict = max(self._verdict, self._refusals_take)
        if self._bucket is not None:
            if self._bucket.refill and self._told_wrong(start, now):
                return min(PAUSE, 1 / self._bucket.refill)
            self._bucket, self._distrusted = None, True
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

    def _told_wrong(self, start: Start, now: float) -> bool:
        """A refusal in spite of what the server told: nothing is left. False: once too often."""
        if self._bucket is None:
            return False
        self._bucket.left, self._bucket.at = 0.0, now
        if self._refused_at is None or start.at > self._refused_at:
            self._fruitless = 0 if self.granted > self._granted_then else self._fruitless + 1
            self._granted_then, self._refused_at = self.granted, now
        return self._fruitless < MISLED

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
        """The server said how many calls are left, of how many, and in how many seconds all of
        them are there again: its bucket, which is kept here from now on."""
        if self._distrusted:
            return
        used = max(0, (limit or 0) - remaining)
        refill = used / reset if reset else 0.0
        left: float = remaining - max(0, self._open - 1)  # of the others it may not know yet
        if self._bucket is not None and self._open > 1:
            left = min(left, self._bucket.now(now))  # what is said late may be of before
        self._bucket = Bucket(max(0.0, left), refill or self._refill(), float(limit or left), now)

    def _refill(self) -> float:
        return self._bucket.refill if self._bucket is not None else 0.0
