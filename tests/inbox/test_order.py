"""Whatever two processes do, and whenever they die: in order, one at a time, none lost."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.domain import Claimed, Entry, State
from service.inbox import Inbox
from tests.inbox.make import LEASE, Clock, answer, ended, entry

_games = itertools.count()
OPEN = (State.QUEUED, State.ANSWERING, State.ANSWERED)

conversation = st.sampled_from(["a", "b", "c"])
process = st.sampled_from([0, 1])
pick = st.integers(0, 5)
moves = st.one_of(
    st.tuples(st.just("add"), process, conversation, st.integers(0, 30)),
    st.tuples(st.just("claim"), process, st.integers(1, 4), st.none()),
    st.tuples(st.just("reply"), process, pick, st.booleans()),
    st.tuples(st.just("finish"), process, pick, st.booleans()),
    st.tuples(st.just("again"), process, pick, st.integers(0, 2 * LEASE)),
    st.tuples(st.just("release"), process, pick, st.none()),
    st.tuples(st.just("heartbeat"), process, pick, st.none()),
    st.tuples(st.just("reap"), process, st.none(), st.none()),
    st.tuples(st.just("time"), process, st.integers(1, 2 * LEASE), st.none()),
)


@dataclass
class Game:
    """Two processes on one flow. A claim stays in `held` even when its lease is long lost."""

    stores: Sequence[Inbox]
    clock: Clock
    flow: str = field(default_factory=lambda: f"flow{next(_games)}")
    entries: dict[str, Entry] = field(default_factory=dict)
    held: list[Claimed] = field(default_factory=list)
    fresh: list[Claimed] = field(default_factory=list)
    wins: Counter[str] = field(default_factory=Counter)

    def key(self, id: str) -> tuple[int, str]:
        message = self.entries[id].message
        return message.received_at, message.id

    async def move(self, kind: str, who: int, what: Any, how: Any) -> None:
        store = self.stores[who]
        if kind == "add":
            one = entry(what, flow=self.flow, message={"received_at": how})
            self.entries[one.id] = one
            await store.add(one)
        elif kind == "claim":
            taken = (await store.claim([self.flow], what, str(who), LEASE)).requests
            self.held += taken
            self.fresh += [c for c in taken if c.state is State.ANSWERING]
        elif kind == "reap":
            await store.reap()
        elif kind == "time":
            self.clock.pass_(what)
        elif self.held:
            await self.write(kind, store, self.held[what % len(self.held)], how)

    async def write(self, kind: str, store: Inbox, claimed: Claimed, how: Any) -> None:
        if kind == "reply":
            await store.save_ending(claimed, answer() if how else ended())
        elif kind == "finish":
            await store.finish(claimed, delivered=True)
        elif kind == "again":
            await store.reschedule(claimed, at=self.clock.now + how)
        elif kind == "release":
            await store.release([claimed])
        else:
            await store.heartbeat([claimed], self.clock.now + LEASE)

    async def states(self) -> dict[str, State]:
        return {r.id: r.state for r in await self.stores[0].requests(flow=self.flow, limit=500)}

    async def round(self, chunk: Sequence[tuple[Any, ...]]) -> None:
        """Moves at the same time; then look whether all is as it must be."""
        before = set(self.entries)
        self.fresh.clear()
        await asyncio.gather(*(self.move(*move) for move in chunk))
        states = await self.states()
        assert set(states) == set(self.entries), "accepted, but not there"
        active = Counter(
            self.entries[id].conversation
            for id, state in states.items()
            if state in (State.ANSWERING, State.ANSWERED)
        )
        assert all(count == 1 for count in active.values()), "two at once"
        for claimed in self.fresh:
            passed = [
                id
                for id in before
                if self.entries[id].conversation == claimed.conversation
                and self.key(id) < self.key(claimed.id)
                and states[id] in OPEN
            ]
            assert not passed, "an older one was passed"

    async def play_out(self) -> None:
        """Both go on as workers do, until all has ended."""
        for _ in range(200):
            self.clock.pass_(LEASE)
            await asyncio.gather(*(store.reap() for store in self.stores))
            await self.round([("claim", 0, 5, None), ("claim", 1, 5, None)])
            current, self.held = self.held, []
            for claimed in current:
                store = self.stores[claimed.seq % 2]
                if claimed.state is State.ANSWERED or await store.save_ending(claimed, answer()):
                    await store.finish(claimed, delivered=True)
            if not any(state in OPEN for state in (await self.states()).values()):
                return
        raise AssertionError(f"never ended: {await self.states()}")


async def test_random_interleavings(store: Inbox, other: Inbox, clock: Clock) -> None:
    loop = asyncio.get_running_loop()

    async def game(chunks: list[list[tuple[Any, ...]]]) -> None:
        playing = Game((store, other), clock)
        for chunk in chunks:
            await playing.round(chunk)
        await playing.play_out()

    @settings(
        max_examples=40,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(st.lists(moves, min_size=1, max_size=6), min_size=3, max_size=12))
    def games(chunks: list[list[tuple[Any, ...]]]) -> None:
        asyncio.run_coroutine_threadsafe(game(chunks), loop).result()

    await loop.run_in_executor(None, games)
