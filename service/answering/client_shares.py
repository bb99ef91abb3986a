"""What one client may take of what all share: its turn among those who wait, and its part of the
backlog. Counted in each process for what came through it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from service.answering import reply as replies
from service.answering.job import Job
from service.answering.publisher import Publisher
from service.domain import Claimed, Entry, State
from service.flows import Flow
from service.inbox import Change
from service.llm.attempts import Log
from service.mqtt.templates import Scope

STEP = 1_000  # ms that each request moves its client's next turn on
FURTHEST = 60_000  # ms; nobody waits longer behind those who came later
LEAST = 100  # requests of one client that may always wait
PART = 10  # else a client may have such a part of the backlog, once half of it is taken
KNOWN = 100_000  # clients whose turns are remembered
EVERY = 1_000  # ms between two words to a client that it sends too much
TOO_MUCH = "too many of your messages wait already"


class Turns:
    """Start-time fair queueing: the first request of a client has the turn `now`, each other one
    a step after the one before. A client with many behind it lets those with few go first, and
    whoever is alone is as fast as there is room."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def next(self, client: str, now: int) -> int:
        """The turn (ms) of a request that came now."""
        last = self._last.pop(client, now - STEP)
        turn = min(max(now, last + STEP), now + FURTHEST)
        if len(self._last) >= KNOWN:
            del self._last[next(iter(self._last))]
        self._last[client] = turn
        return turn


class Shares:
    """Who has how many requests in the inbox that have not ended."""

    def __init__(self, max_backlog: int) -> None:
        self._half = max_backlog // 2
        self._most = max(LEAST, max_backlog // PART)
        self._client_of: dict[str, str] = {}
        self._open: Counter[str] = Counter()

    def over(self, client: str, backlog: int) -> bool:
        """Whether this client has its part, while others need the room."""
        return backlog >= self._half and self._open[client] >= self._most

    def stored(self, id: str, client: str) -> None:
        self._client_of[id] = client
        self._open[client] += 1

    def changed(self, changes: Sequence[Change]) -> None:
        """Requests came into a state."""
        for change in changes:
            if change.state.ended and (client := self._client_of.pop(change.id, None)) is not None:
                self._open[client] -= 1
                if self._open[client] <= 0:
                    del self._open[client]


class ShareRefusals:
    """Tells a client that its messages are not taken, now and then."""

    def __init__(self, publisher: Publisher, now: Callable[[], int]) -> None:
        self._publisher = publisher
        self._now = now
        self._told: dict[str, int] = {}

    def tell(self, flow: Flow, entry: Entry, client: str) -> None:
        now = self._now()
        if now - self._told.pop(client, -EVERY) < EVERY:
            self._told[client] = now
            return
        if len(self._told) >= KNOWN:
            self._told.clear()
        self._told[client] = now
        captured = flow.match(entry.message.topic) or {}
        claimed = Claimed(
            0, 0, entry.id, flow.name, entry.conversation, entry.ordered, State.QUEUED,
            entry.message, entry.accepted_at, entry.deadline,
        )  # fmt: skip
        log = Log("", self._now, flow.name)
        job = Job(claimed, flow, captured, Scope(entry.message, captured), log)
        for publish in replies.failure(job, "limit", TOO_MUCH):
            self._publisher.post(publish, of=entry.id)
