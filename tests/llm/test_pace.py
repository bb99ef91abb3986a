"""The pace against limits as servers keep them, in simulated time."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from service.llm.pace import Pace, Start


@dataclass
class Bucket:
    """So many calls a second; unused ones are saved, up to `size`."""

    rate: float
    size: float
    left: float = 0.0
    at: float = 0.0

    def __post_init__(self) -> None:
        self.left = self.size

    def refuses(self, now: float) -> float | None:
        """Seconds until it would not, or None."""
        self.left = min(self.size, self.left + (now - self.at) * self.rate)
        self.at = now
        if self.left < 1:
            return (1 - self.left) / self.rate
        self.left -= 1
        return None


@dataclass
class Window:
    """So many calls in each span of seconds."""

    count: int
    span: float
    number: int = -1
    used: int = 0

    def refuses(self, now: float) -> float | None:
        if int(now // self.span) != self.number:
            self.number, self.used = int(now // self.span), 0
        if self.used >= self.count:
            return (self.number + 1) * self.span - now
        self.used += 1
        return None


class Free:
    """No limit."""

    def refuses(self, now: float) -> float | None:
        return None


@dataclass
class Played:
    granted: int
    refused: int
    seconds: float

    @property
    def share(self) -> float:
        return self.refused / (self.granted + self.refused)


def play(
    server: Bucket | Window | Free,
    questions: int,
    *,
    takes: float,
    says_when: bool = False,
    until: float = 1e9,
    places: int = 256,
    pace: Pace | None = None,
) -> Played:
    """Ask so many questions that each take a while; a refusal comes at once."""
    pace, luck, order = pace or Pace(), random.Random(7), itertools.count()
    played = Played(0, 0, 0.0)
    left, in_flight, paused = questions, 0, 0.0
    events: list[tuple[float, int, Start | None, float | None]] = [(0.0, next(order), None, None)]
    while events and played.granted < questions:
        now, _, start, refused = heapq.heappop(events)
        if now > until:
            break
        played.seconds = now
        if start is not None and refused is None:
            pace.done(start, now)
            in_flight, played.granted = in_flight - 1, played.granted + 1
        elif start is not None and refused is not None:
            unnamed = pace.refused(start, now)
            paused = max(paused, now + (refused if says_when else unnamed))
            in_flight, left, played.refused = in_flight - 1, left + 1, played.refused + 1
        while left > 0 and in_flight < places and now >= paused and pace.room(now) > 0:
            begun, left, in_flight = pace.begin(now), left - 1, in_flight + 1
            wait = server.refuses(now + 0.002)
            ends = now + (takes if wait is None else 0.005)
            heapq.heappush(events, (ends, next(order), begun, wait))
        if left > 0 and in_flight < places:
            late = luck.random() * (0.05 if pace.limits() else 0.001)  # a worker has other work
            again = max(paused - now, pace.wait(now), 0.001) + late
            heapq.heappush(events, (now + again, next(order), None, None))
    return played


SERVERS = [
    pytest.param(lambda: Bucket(1, 60), 1.0, id="60 a minute, saved up"),
    pytest.param(lambda: Bucket(10, 10), 10.0, id="10 a second"),
    pytest.param(lambda: Bucket(8.3, 100), 8.3, id="500 a minute"),
]


@pytest.mark.parametrize("says_when", [False, True], ids=["silent", "retry-after"])
@pytest.mark.parametrize("takes", [0.005, 2.0])
@pytest.mark.parametrize(("server", "rate"), SERVERS)
def test_what_is_granted_is_used_and_little_is_refused(
    server: Callable[[], Bucket], rate: float, takes: float, says_when: bool
) -> None:
    made = server()
    played = play(made, 300, takes=takes, says_when=says_when)
    assert played.granted == 300
    assert played.share < 0.05
    possible = made.size + rate * (played.seconds - takes)
    assert 300 / possible > (0.9 if says_when else 0.75)


def test_the_minute_after_a_limit_showed() -> None:
    """300 questions at 60 a minute, looked at after 92 s."""
    played = play(Bucket(1, 60), 300, takes=0.02, until=92)
    assert played.share < 0.05
    assert played.granted > 0.9 * (60 + 92)


@pytest.mark.parametrize("takes", [0.005, 2.0])
def test_a_window_that_says_when_it_ends(takes: float) -> None:
    played = play(Window(60, 60), 300, takes=takes, says_when=True)
    assert played.share < 0.05
    assert played.seconds < 400  # 240 and the rest of a window at best


def test_a_window_that_says_nothing_is_still_found() -> None:
    played = play(Window(60, 60), 300, takes=0.02)
    assert played.share < 0.1
    assert played.seconds < 600


@pytest.mark.parametrize(("takes", "best"), [(0.005, 0.1), (0.05, 0.4), (2.0, 8.0)])
def test_a_model_without_a_limit_is_soon_asked_as_fast_as_it_can(takes: float, best: float) -> None:
    played = play(Free(), 1000, takes=takes)
    assert played.refused == 0
    assert played.seconds < best + 3


def test_a_limit_that_is_raised_is_followed() -> None:
    pace = Pace()
    play(Bucket(1, 60), 120, takes=0.02, pace=pace)
    assert pace.rate == pytest.approx(1.0, rel=0.3)
    play(Free(), 400, takes=0.02, pace=pace)
    assert not pace.limits()


def test_what_a_server_says_of_its_limits_comes_before_its_refusal() -> None:
    pace = Pace()
    for _ in range(3):
        pace.done(pace.begin(1.0), 1.0)
    assert not pace.limits()
    pace.told(remaining=0, limit=60, reset=60.0, now=1.0)
    assert pace.limits()
    assert pace.room(1.0) == 0
    assert pace.wait(1.0) == pytest.approx(1.0, abs=0.1)


def test_none_left_and_no_word_of_more_is_believed_for_a_minute() -> None:
    pace = Pace()
    pace.told(0, None, None, 100.0)
    assert pace.room(101.0) == 0
    assert 58 < pace.wait(101.0) <= 60
    assert pace.room(161.0) > 0
    assert pace.wait(161.0) == 0.0
