"""Any moves of two processes: the inbox does exactly what the simple model of it does."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from service.domain import Claimed, Ending, Publish, Reservation, State, Turn, Usage
from service.inbox import Inbox
from service.inbox.held import HeldReply
from service.inbox.rows import Row
from tests.fuzz.model import Model
from tests.fuzz.scale import times
from tests.inbox.conftest import changes as changes
from tests.inbox.conftest import clock, kind, migrated, opened, other, postgres, shared, store, url
from tests.inbox.make import DAY, LEASE, Clock, entry

__all__ = ("clock", "kind", "migrated", "opened", "other", "postgres", "shared", "store", "url")

T = TypeVar("T")
ALL = 100
"""More than there are: a claim of this many leaves nothing that is due."""

_games = itertools.count()
process = st.sampled_from([0, 1])
pick = st.integers(0, 9)
wait = st.sampled_from([0, 1, LEASE // 2, LEASE, 2 * LEASE])
outcome = st.sampled_from([State.DONE, State.DONE, State.FAILED, State.EXPIRED, State.IGNORED])
LETTER = Publish("chatgpt/response/u1", b"hi")


def seen(row: Row) -> dict[str, Any]:
    return {
        "state": row.state,
        "claims": row.claims,
        "tries": row.tries,
        "deadline": row.deadline,
        "outcome": row.outcome,
        "reply": row.reply,
        "error": row.error_code,
        "delivered": row.delivered,
        "ended_at": row.ended_at,
        "held_at": row.held_at,
        "steps": len(row.steps),
        "tokens": row.usage.total_tokens,
    }


class Moves(RuleBasedStateMachine):
    """Each rule does one thing to both, and compares what they say of it."""

    stores: Sequence[Inbox]
    clock: Clock
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        game = next(_games)
        self.flows = (f"chat{game}", f"alarm{game}")
        self.clock.pass_(3 * DAY)
        self.do(self.clear(self.stores[0]))
        self.model = Model(self.clock.now)
        self.leases: list[Claimed] = []
        self.taken: list[HeldReply] = []

    @staticmethod
    async def clear(store: Inbox) -> None:
        """A game that failed leaves requests; by now all of them are too late."""
        await store.reap(all_leases=True)
        while left := (await store.claim([], ALL, "", LEASE)).requests:
            for lease in left:
                await store.save_ending(lease, Ending(State.EXPIRED))
                await store.finish(lease, delivered=None)
        await store.purge(1 << 60)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def lease(self, which: int) -> Claimed:
        return self.leases[-1 - which % len(self.leases)]

    def some_id(self, which: int) -> str:
        known = list(self.model.ones)
        return known[which % len(known)] if known else "nobody"

    # What comes in

    @rule(
        who=process,
        flow=st.sampled_from([0, 0, 1]),
        conversation=st.sampled_from(["a", "b", ""]),
        sent=st.integers(0, 9),
        same=st.one_of(st.none(), st.none(), st.integers(0, 3)),
        lives=st.sampled_from([1, LEASE, DAY, DAY]),
    )
    def add(
        self, who: int, flow: int, conversation: str, sent: int, same: int | None, lives: int
    ) -> None:
        one = entry(
            conversation,
            flow=self.flows[flow],
            ordered=flow == 0,
            message={"received_at": self.clock.now + sent},
            accepted_at=self.clock.now,
            deadline=self.clock.now + lives,
            **({} if same is None else {"dedupe": f"same{same}"}),
        )
        added = self.do(self.stores[who].add(one))
        assert (added.id, added.duplicate) == self.model.add(one)

    @rule(who=process, which=pick, lives=st.sampled_from([LEASE, DAY]))
    def retry(self, who: int, which: int, lives: int) -> None:
        id, deadline = self.some_id(which), self.clock.now + lives
        assert self.do(self.stores[who].retry(id, deadline)) == self.model.retry(id, deadline)

    # Leases

    @rule(who=process, limit=st.sampled_from([1, 2, ALL]), of=st.sampled_from([1, 2, 3]))
    def claim(self, who: int, limit: int, of: int) -> None:
        flows = [flow for bit, flow in enumerate(self.flows) if of >> bit & 1]
        due = {id for id, one in self.model.ones.items() if self.model.due(one, flows)}
        claims = self.do(self.stores[who].claim(flows, limit, str(who), LEASE))
        ids = [claimed.id for claimed in claims.requests]
        assert len(ids) == len(set(ids)) <= limit
        assert set(ids) <= due, "not due, not its turn, or held by another"
        if limit == ALL:
            assert set(ids) == due, "due, and left where it was"
        for claimed in claims.requests:
            one = self.model.claim(claimed, self.clock.now + LEASE)
            assert claimed.state is one.state
            assert (claimed.fence, claimed.claims) == (one.fence, one.claims)
            assert (claimed.tries, len(claimed.steps)) == (one.tries, one.steps)
            assert claimed.usage.total_tokens == one.tokens
            if claimed.state is State.ANSWERING:
                assert list(claimed.turns) == self.model.turns.get(one.pair, [])
            self.leases.append(claimed)

    @precondition(lambda self: self.leases)
    @rule(
        who=process,
        which=pick,
        how=outcome,
        publishes=st.booleans(),
        learns=st.one_of(st.none(), st.integers(0, 3)),
        forgets=st.booleans(),
        tokens=st.integers(0, 9),
    )
    def reply(
        self,
        who: int,
        which: int,
        how: State,
        publishes: bool,
        learns: int | None,
        forgets: bool,
        tokens: int,
    ) -> None:
        lease = self.lease(which)
        turn = None if learns is None else Turn(f"q{self.clock.now}", "a", at=self.clock.now)
        answer = Ending(
            how,
            (LETTER,) if publishes else (),
            f"reply {tokens}",
            usage=Usage(completion_tokens=tokens),
            error_code=None if how is State.DONE else "model_failed",
            turn=turn,
            keep_turns=learns or 0,
            forget=forgets,
        )
        got = self.do(self.stores[who].save_ending(lease, answer))
        assert got == self.model.answer(lease, answer)

    @precondition(lambda self: self.leases)
    @rule(who=process, which=pick, delivered=st.sampled_from([True, False, None]), held=wait)
    def finish(self, who: int, which: int, delivered: bool | None, held: int) -> None:
        lease, now = self.lease(which), self.clock.now
        again = (now + held, now + DAY) if delivered is False and held else None
        got = self.do(self.stores[who].finish(lease, delivered=delivered, held=again))
        assert got == self.model.finish(lease, delivered, again)

    @precondition(lambda self: self.leases)
    @rule(
        who=process,
        which=pick,
        after=wait,
        count=st.booleans(),
        error=st.sampled_from([None, "rate_limited"]),
    )
    def reschedule(self, who: int, which: int, after: int, count: bool, error: str | None) -> None:
        lease, at = self.lease(which), self.clock.now + after
        got = self.do(self.stores[who].reschedule(lease, at=at, count=count, error_code=error))
        assert got == self.model.reschedule(lease, at, error, count=count)

    @precondition(lambda self: self.leases)
    @rule(who=process, which=pick, rounds=st.integers(1, 3), tokens=st.integers(0, 9))
    def checkpoint(self, who: int, which: int, rounds: int, tokens: int) -> None:
        lease, usage = self.lease(which), Usage(prompt_tokens=tokens)
        steps = [{"role": "tool", "content": "on"}] * rounds
        got = self.do(self.stores[who].checkpoint(lease, steps, usage))
        assert got == self.model.checkpoint(lease, rounds, tokens)

    @precondition(lambda self: self.leases)
    @rule(who=process, which=pick, longer=wait)
    def heartbeat(self, who: int, which: int, longer: int) -> None:
        lease, until = self.lease(which), self.clock.now + longer
        lost = self.do(self.stores[who].heartbeat([lease], until))
        kept = self.model.heartbeat(lease, until)
        assert lost == (set() if kept else {(lease.seq, lease.fence)})

    @precondition(lambda self: self.leases)
    @rule(who=process, which=pick)
    def release(self, who: int, which: int) -> None:
        self.do(self.stores[who].release([self.lease(which)]))
        self.model.release(self.lease(which))

    @rule(who=process, start=st.sampled_from([False, False, True]))
    def reap(self, who: int, start: bool) -> None:
        got = self.do(self.stores[who].reap(all_leases=start))
        assert got == self.model.reap(all_leases=start)

    # Replies that found nobody

    @rule(who=process)
    def take_held(self, who: int) -> None:
        taken = self.do(self.stores[who].take_held(ALL, LEASE))
        assert sorted(reply.id for reply in taken.replies) == self.model.take_held(LEASE)
        times_left = [one.held_at for one in self.model.ones.values() if one.held_at is not None]
        assert taken.next_at == min(times_left, default=None)
        self.taken += taken.replies

    @precondition(lambda self: self.taken)
    @rule(
        who=process,
        which=pick,
        delivered=st.sampled_from([True, False]),
        after=st.one_of(st.none(), wait),
    )
    def note_held(self, who: int, which: int, delivered: bool, after: int | None) -> None:
        reply = self.taken[-1 - which % len(self.taken)]
        again = None if after is None else self.clock.now + after
        self.do(self.stores[who].note_held(reply, delivered, again))
        self.model.note_held(reply.id, reply.lease_until, delivered, again)

    # Memory, limits, time

    @rule(who=process, flow=st.sampled_from([0, 1]), conversation=st.sampled_from(["a", "b", ""]))
    def forget(self, who: int, flow: int, conversation: str) -> None:
        gone = self.do(self.stores[who].forget(self.flows[flow], conversation))
        assert gone == len(self.model.turns.pop((self.flows[flow], conversation), []))

    @rule(
        who=process,
        wanted=st.lists(
            st.tuples(st.sampled_from("xyz"), st.integers(0, 1), st.integers(0, 6)), max_size=3
        ),
    )
    def reserve(self, who: int, wanted: list[tuple[str, int, int]]) -> None:
        order = [
            Reservation(self.flows[0] + key, self.clock.now // DAY * DAY + window, amount, 10)
            for key, window, amount in wanted
        ]
        assert self.do(self.stores[who].reserve(order)) == self.model.reserve(order)

    @rule(who=process, key=st.sampled_from("xyz"), delta=st.integers(-12, 6))
    def settle(self, who: int, key: str, delta: int) -> None:
        name, window = self.flows[0] + key, self.clock.now // DAY * DAY
        self.do(self.stores[who].settle(name, window, delta))
        self.model.settle(name, window, delta)

    @rule(who=process, wait=st.sampled_from([1, LEASE]))
    def pause_ordered(self, who: int, wait: int) -> None:
        until = self.clock.now + wait
        self.do(self.stores[who].pause_ordered(until))
        if self.model.ones:  # nothing was ever stored: nothing to put in order
            self.model.settling = max(self.model.settling, until)

    @rule(who=process, ago=st.sampled_from([0, LEASE, DAY]))
    def purge(self, who: int, ago: int) -> None:
        before = self.clock.now - ago
        assert self.do(self.stores[who].purge(before)) == self.model.purge(before)

    @rule(ms=st.sampled_from([1, LEASE // 2, LEASE, LEASE + 1, DAY + 1]))
    def time(self, ms: int) -> None:
        self.model.now = self.clock.pass_(ms)

    @invariant()
    def nothing_else_is_there(self) -> None:
        rows: dict[str, Row] = {}
        for id in self.model.ones:
            row = self.do(self.stores[0].request(id))
            assert row is not None, "accepted, but not there"
            rows[id] = row
        expected = {id: one.seen() for id, one in self.model.ones.items()}
        assert {id: seen(row) for id, row in rows.items()} == expected
        listed = [self.do(self.stores[1].requests(flow=flow, limit=ALL)) for flow in self.flows]
        assert {row.id for rows in listed for row in rows} == set(expected)

    def teardown(self) -> None:
        """Whatever state it is in: played on, all of it ends."""
        for _ in range(50):
            self.time(2 * LEASE)
            self.reap(0, False)
            if not any(one.ended_at is None for one in self.model.ones.values()):
                break
            self.claim(1, ALL, 3)
            for lease in self.leases[-ALL:]:
                if self.model.holds(lease, State.ANSWERING):
                    self.reply_plainly(lease)
                self.finish_plainly(lease)
        else:
            raise AssertionError("never ended")
        self.nothing_else_is_there()

    def reply_plainly(self, lease: Claimed) -> None:
        answer = Ending(State.DONE, (LETTER,), "end")
        assert self.do(self.stores[0].save_ending(lease, answer)) == self.model.answer(
            lease, answer
        )

    def finish_plainly(self, lease: Claimed) -> None:
        got = self.do(self.stores[1].finish(lease, delivered=True))
        assert got == self.model.finish(lease, True, None)


async def test_two_processes_do_what_the_model_does(
    store: Inbox, other: Inbox, clock: Clock
) -> None:
    moves: Any = type("Moves", (Moves,), {})
    moves.stores, moves.clock, moves.loop = (store, other), clock, asyncio.get_running_loop()
    chosen = settings(
        max_examples=times(25),
        stateful_step_count=40,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    await moves.loop.run_in_executor(
        None, lambda: run_state_machine_as_test(moves, settings=chosen)
    )
