"""All connections of one process, and what those that nobody vouches for may cost.

A stranger is a connection on which no valid token has come yet. Strangers are few, their
requests small and soon whole; one too many takes the place of the one that was there longest.
EMQX's own connections are counted, and otherwise left alone.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

log = logging.getLogger("emqx-gpt.web")

TURNS, PAUSE = 3, 0.002  # so many requests of strangers begin, and so many seconds till the next
SWEEP = 0.5  # seconds between two looks at all connections
SPARE_FILES = 100  # file descriptors that are not for connections


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """Bytes, seconds and counts. Apache and nginx have the like of the first five."""

    head: int = 16 << 10  # request line and headers together
    url: int = 8 << 10
    headers: int = 100
    around: int = 64 << 10  # what stands around the chunks of a body
    head_time: float = 10.0  # from the first byte of a head to its last
    body_time: float = 30.0  # from the end of the head to the last byte of the body
    unread_time: float = 30.0  # answers that nobody takes
    close_time: float = 2.0  # from our last word to the end
    pipelined: int = 20  # requests that wait for their turn on one connection; webhooks: 200
    bodies: int = 64 << 20  # of all bodies on their way together; the oldest gives way
    connections: int = 4_000

    @property
    def strangers(self) -> int:
        return max(1, self.connections // 4)

    @property
    def strangers_of_address(self) -> int:
        return max(1, self.connections // 10)


class Connection(Protocol):
    """What is asked of one; times are those of the event loop."""

    address: str
    trusted: bool

    def idle(self) -> bool:
        """Whether nothing of it is being answered."""

    def on_trusted(self) -> None:
        """A valid token came on it."""

    def give_way(self) -> None:
        """Give up the body that is on its way."""

    def check(self, now: float) -> None:
        """Close it if something takes too long."""

    def drop(self) -> None:
        """Close it, now."""


@dataclass(slots=True)
class Refusals:
    """Counts what is refused and says so once a minute: a flood must not become one of lines."""

    counts: Counter[str] = field(default_factory=Counter)
    told_at: float = -60.0

    def note(self, why: str, address: str, now: float) -> None:
        self.counts[why] += 1
        if now - self.told_at < 60:
            return
        listed = ", ".join(f"{count}x {reason}" for reason, count in self.counts.most_common(5))
        log.warning("connections refused: %s; the last one from %s", listed, address)
        self.counts.clear()
        self.told_at = now


class Connections:
    """Counts them, sees to their times, and makes room."""

    def __init__(self, bounds: ConnectionBounds | None = None) -> None:
        self.bounds = bounds or ConnectionBounds()
        self.refusals = Refusals()
        self._all: dict[Connection, None] = {}
        self._strangers: dict[Connection, None] = {}
        self._of_address: Counter[str] = Counter()
        self._bodies: dict[Connection, int] = {}  # on their way, the oldest first
        self._held = 0
        self._turns: deque[Callable[[], None]] = deque()
        self._pausing = False
        self._sweeping: asyncio.TimerHandle | None = None
        self._most = self.bounds.connections

    def open_files(self) -> None:
        """As many files as this process may have, and no more connections than that."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = self.bounds.connections + SPARE_FILES
        if soft < wanted:
            soft = min(wanted, hard) if hard != resource.RLIM_INFINITY else wanted
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self._most = max(1, min(self.bounds.connections, soft - SPARE_FILES))

    def add(self, one: Connection) -> bool:
        """A new one, a stranger. False: there is no place for it."""
        bounds = self.bounds
        if self._of_address[one.address] >= bounds.strangers_of_address:
            self._make_room(one.address)
        elif len(self._strangers) >= bounds.strangers or len(self._all) >= self._most:
            self._make_room(None)
        if len(self._all) >= self._most:
            self.refuse("no place left", one.address)
            return False
        self._all[one] = self._strangers[one] = None
        self._of_address[one.address] += 1
        if self._sweeping is None:
            self._sweep_later()
        return True

    def trust(self, one: Connection) -> None:
        """A valid token came on it."""
        one.on_trusted()
        self._forget_stranger(one)

    def hold(self, one: Connection, size: int) -> None:
        """So many bytes of the body that is on its way on this one; 0: none is."""
        self._held += size - self._bodies.get(one, 0)
        if size:
            self._bodies[one] = size
        else:
            self._bodies.pop(one, None)
        while self._held > self.bounds.bodies and len(self._bodies) > 1:
            oldest = next(iter(self._bodies))
            self.hold(oldest, 0)
            oldest.give_way()

    def remove(self, one: Connection) -> None:
        self._all.pop(one, None)
        self.hold(one, 0)
        self._forget_stranger(one)

    def in_turn(self, begin: Callable[[], None]) -> None:
        """Begin a stranger's request. A flood of them must leave time for EMQX's, and for the
        thread of the database, which waits for Python's lock."""
        self._turns.append(begin)
        if not self._pausing:
            self._take_turns()

    def _take_turns(self) -> None:
        self._pausing = bool(self._turns)
        if self._pausing:
            asyncio.get_running_loop().call_later(PAUSE, self._take_turns)
        for _ in range(min(TURNS, len(self._turns))):
            self._turns.popleft()()

    def refuse(self, why: str, address: str) -> None:
        """Something was refused; it is told, by and by."""
        self.refusals.note(why, address, asyncio.get_running_loop().time())

    def _forget_stranger(self, one: Connection) -> None:
        if one in self._strangers:
            del self._strangers[one]
            self._of_address[one.address] -= 1
            if not self._of_address[one.address]:
                del self._of_address[one.address]

    def _make_room(self, address: str | None) -> None:
        """The stranger that was there longest goes, first one that waits for nothing."""
        ours = [s for s in self._strangers if address is None or s.address == address]
        if ours:
            victim = next((one for one in ours if one.idle()), ours[0])
            self.remove(victim)
            victim.drop()
            self.refuse("too many connections without a token", victim.address)

    def _sweep_later(self) -> None:
        self._sweeping = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        now = asyncio.get_running_loop().time()
        for one in list(self._all):
            try:
                one.check(now)
            except Exception:  # one that can't be looked after must not end the looking
                log.exception("a connection of %s is closed", one.address)
                self.remove(one)
                one.drop()
        if self._all:
            self._sweep_later()
