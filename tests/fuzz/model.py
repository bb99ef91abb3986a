"""The inbox as it should be: plain Python, one thing at a time, nothing remembered twice.

What `service.inbox` promises in SQL for many processes is said here once more in the simplest
words there are; `test_inbox_model` plays the same moves on both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.domain import Claimed, Ending, Entry, Reservation, State, Turn

OPEN = (State.QUEUED, State.ANSWERING, State.ANSWERED)
DEAD = (State.FAILED, State.EXPIRED)
LEASED = (State.ANSWERING, State.ANSWERED)
COUNTER_LIFE = 2 * 24 * 3600 * 1000  # ms

Pair = tuple[str, str]


@dataclass
class One:
    """A request. `fence` grows with each lease; who holds an older one has lost it."""

    entry: Entry
    number: int
    order_at: int
    deadline: int
    state: State = State.QUEUED
    fence: int = 0
    lease_until: int = 0
    not_before: int = 0
    claims: int = 0
    tries: int = 0
    steps: int = 0
    tokens: int = 0
    outcome: State | None = None
    reply: str | None = None
    error: str | None = None
    delivered: bool | None = None
    ended_at: int | None = None
    held_at: int | None = None

    @property
    def pair(self) -> Pair:
        return self.entry.flow or "", self.entry.conversation

    @property
    def place(self) -> tuple[int, str, int]:
        return self.order_at, self.entry.message.id, self.number

    def seen(self) -> dict[str, Any]:
        """What an operator sees of it."""
        return {
            "state": self.state,
            "claims": self.claims,
            "tries": self.tries,
            "deadline": self.deadline,
            "outcome": self.outcome,
            "reply": self.reply,
            "error": self.error,
            "delivered": self.delivered,
            "ended_at": self.ended_at,
            "held_at": self.held_at,
            "steps": self.steps,
            "tokens": self.tokens,
        }


@dataclass
class Model:
    now: int
    ones: dict[str, One] = field(default_factory=dict)
    turns: dict[Pair, list[Turn]] = field(default_factory=dict)
    counters: dict[tuple[str, int], int] = field(default_factory=dict)
    settling: int = 0
    made: int = 0

    # What comes in

    def add(self, entry: Entry) -> tuple[str, bool]:
        for one in self.ones.values():
            if (one.entry.flow, one.entry.dedupe) == (entry.flow, entry.dedupe):
                return one.entry.id, True
        self.made += 1
        self.ones[entry.id] = One(entry, self.made, entry.message.received_at, entry.deadline)
        return entry.id, False

    def retry(self, id: str, deadline: int) -> bool:
        one = self.ones.get(id)
        if one is None or one.state not in DEAD:
            return False
        behind = [other.order_at + 1 for other in self.queue(one.pair)] if one.entry.ordered else []
        one.order_at = max([self.now, one.order_at, *behind])
        one.state, one.fence, one.deadline = State.QUEUED, one.fence + 1, deadline
        one.claims = one.tries = one.not_before = one.steps = 0
        one.outcome = one.reply = one.error = one.delivered = one.ended_at = one.held_at = None
        return True

    # Who may be claimed

    def queue(self, pair: Pair) -> list[One]:
        """An ordered conversation, the next one first."""
        waiting = (
            one
            for one in self.ones.values()
            if one.entry.ordered and one.pair == pair and one.state is State.QUEUED
        )
        return sorted(waiting, key=lambda one: one.place)

    def due(self, one: One, flows: Iterable[str]) -> bool:
        if one.state is State.ANSWERED:
            return one.lease_until <= self.now
        if one.state is not State.QUEUED:
            return False
        late = one.deadline <= self.now
        if not late and (one.not_before > self.now or one.entry.flow not in flows):
            return False
        if not one.entry.ordered:
            return True
        active = any(
            other.pair == one.pair and other.entry.ordered and other.state in LEASED
            for other in self.ones.values()
        )
        settled = late or self.settling <= self.now
        return settled and not active and self.queue(one.pair)[0] is one

    def claim(self, taken: Claimed, until: int) -> One:
        one = self.ones[taken.id]
        if one.state is State.QUEUED:
            one.state = State.ANSWERING
        one.fence, one.claims, one.lease_until = one.fence + 1, one.claims + 1, until
        return one

    # What the holder of a lease writes

    def holds(self, lease: Claimed, *states: State) -> One | None:
        one = self.ones.get(lease.id)
        if one is None or one.fence != lease.fence or one.state not in states:
            return None
        return one

    def answer(self, lease: Claimed, answer: Ending) -> bool:
        one = self.holds(lease, State.ANSWERING)
        if one is None:
            return bool(self.holds(lease, State.ANSWERED, *(set(State) - set(OPEN))))
        if answer.forget:
            self.turns.pop(one.pair, None)
        if answer.turn is not None:
            kept = [*self.turns.get(one.pair, []), answer.turn][-answer.keep_turns :]
            self.turns[one.pair] = kept if answer.keep_turns else []
        one.claims, one.outcome, one.reply = 0, answer.outcome, answer.text
        one.error = answer.error_code
        one.tokens = (lease.usage + answer.usage).total_tokens
        one.state = State.ANSWERED if answer.outbox else answer.outcome
        one.ended_at = None if answer.outbox else self.now
        return True

    def finish(self, lease: Claimed, delivered: bool | None, held: tuple[int, int] | None) -> bool:
        one = self.holds(lease, State.ANSWERED)
        if one is None:
            return bool(self.holds(lease, *(set(State) - set(OPEN))))
        one.state = one.outcome or State.DONE
        one.delivered, one.ended_at = delivered, self.now
        if held is not None:
            one.held_at = held[0]
        if one.state is State.DONE:
            one.error = None
        return True

    def reschedule(self, lease: Claimed, at: int, error: str | None, *, count: bool) -> bool:
        one = self.holds(lease, *LEASED)
        if one is None:
            return bool(self.holds(lease, State.QUEUED))
        one.claims = 0
        if error is not None and one.outcome in (None, State.DONE):
            one.error = error
        if one.state is State.ANSWERED:
            one.lease_until = max(1, at)
        else:
            one.state, one.not_before = State.QUEUED, max(1, at)
            one.tries = lease.tries + count
        return True

    def checkpoint(self, lease: Claimed, steps: int, tokens: int) -> bool:
        one = self.holds(lease, State.ANSWERING)
        if one is not None:
            one.steps, one.tokens = steps, lease.usage.total_tokens + tokens
        return one is not None

    def heartbeat(self, lease: Claimed, until: int) -> bool:
        one = self.holds(lease, *LEASED)
        if one is not None:
            one.lease_until = until
        return one is not None

    def release(self, lease: Claimed) -> None:
        one = self.holds(lease, *LEASED)
        if one is None:
            return
        one.claims = max(0, lease.claims - 1)
        if one.state is State.ANSWERED:
            one.lease_until = 0
        else:
            one.state = State.QUEUED

    def reap(self, *, all_leases: bool) -> int:
        found = [
            one
            for one in self.ones.values()
            if one.state is State.ANSWERING and (all_leases or one.lease_until <= self.now)
        ]
        for one in found:
            one.state, one.fence = State.QUEUED, one.fence + 1
        for one in self.ones.values():
            if all_leases and one.state is State.ANSWERED:
                one.fence, one.lease_until = one.fence + 1, 0
        return len(found)

    # Replies that found nobody

    def take_held(self, lease_ms: int) -> list[str]:
        found = [
            one for one in self.ones.values() if one.held_at is not None and one.held_at <= self.now
        ]
        for one in found:
            one.held_at = self.now + lease_ms
        return sorted(one.entry.id for one in found)

    def note_held(
        self, id: str, lease_until: int, delivered: bool | None, again_at: int | None
    ) -> None:
        one = self.ones.get(id)
        if one is not None and one.held_at == lease_until:
            one.delivered, one.held_at = delivered, again_at

    # Limits, and clearing up

    def reserve(self, wanted: Sequence[Reservation]) -> str | None:
        after = dict(self.counters)
        for one in wanted:
            slot = (one.key, one.window)
            after[slot] = after.get(slot, 0) + one.amount
            if after[slot] > one.limit:
                return one.key
        self.counters = after
        return None

    def settle(self, key: str, window: int, delta: int) -> None:
        if (key, window) in self.counters:
            self.counters[key, window] = max(0, self.counters[key, window] + delta)

    def purge(self, before: int) -> int:
        gone = [
            one.entry.id
            for one in self.ones.values()
            if one.ended_at is not None and one.ended_at < before
        ]
        for id in gone:
            del self.ones[id]
        for pair, turns in self.turns.items():
            self.turns[pair] = [turn for turn in turns if turn.at >= before]
        self.counters = {
            slot: amount
            for slot, amount in self.counters.items()
            if slot[1] >= self.now - COUNTER_LIFE
        }
        return len(gone)
