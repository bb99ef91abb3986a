"""However many wait, no statement on the way of a request scans.

SQLite counts the steps of its virtual machine; PostgreSQL the rows that a plan met.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import event, text

from service.domain import Attempt, Claimed, Ending, Reservation, State
from service.inbox import Inbox
from tests.inbox.make import LEASE, Clock, answer, claim, ended, entry, loose, turn


async def fill(store: Inbox, clock: Clock, size: int) -> None:
    """A hot conversation, many small ones, a paused flow, delayed, expired, ended ones."""
    counting = store._engine._counting  # the backlog, now and then: not on the way of a request
    assert counting is not None
    counting.cancel()
    deadline = clock.now + 10**9
    entries = []
    for n in range(size):
        entries += [
            entry("hot", deadline=deadline),
            entry(f"u{n}", deadline=deadline),
            entry(f"p{n % 100}", flow="paused", deadline=deadline),
            loose(deadline=deadline),
            entry(f"e{n}", flow="ends", deadline=deadline),
            entry(f"d{n}", flow="delayed", deadline=deadline),
        ]
        if n % 5 == 0 and n < 100:
            message = {"flow": "unheard of"}
            nobodys = {"flow": None, "ordered": False, "conversation": "", "message": message}
            entries.append(entry(deadline=clock.now + 5, **nobodys))
            entries.append(entry(f"x{n}", flow="paused", deadline=clock.now + 5))
    for at in range(0, len(entries), 100):  # an `add` waits 4 s at most, on any machine
        await asyncio.gather(*map(store.add, entries[at : at + 100]))
    taught = {"turn": turn(), "keep_turns": 10}
    while done := await claim(store, 500, ["ends"]):
        await asyncio.gather(*(store.save_ending(c, ended(State.DONE, **taught)) for c in done))
    while late := await claim(store, 500, ["delayed"]):
        await asyncio.gather(*(store.reschedule(c, at=clock.now + 10**6) for c in late))


class Life:
    """Everything that is done to requests while they wait, are answered and end."""

    def __init__(self, store: Inbox, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.held: list[Claimed] = []

    async def add(self) -> None:
        await asyncio.gather(*map(self.store.add, [entry("hot"), entry("new"), loose()]))

    async def add_again(self) -> None:
        await self.store.add(entry(dedupe="twice"))

    async def claim(self) -> None:
        flows = ["chat", "alarm", "delayed", "nothing here"]
        claims = await self.store.claim(flows, 20, "w", LEASE)
        self.held = claims.requests
        assert len(self.held) >= 15

    async def claim_expired(self) -> None:
        self.clock.pass_(10)
        assert (await self.store.claim([], 10, "w", LEASE)).requests

    async def recall(self) -> None:
        await asyncio.gather(*(self.store.memory("ends", f"e{n}", limit=5) for n in range(9)))

    async def heartbeat(self) -> None:
        assert not await self.store.heartbeat(self.held, self.clock.now + LEASE)

    async def step(self) -> None:
        await self.store.checkpoint(self.held[0], [{"a": 1}])

    async def again(self) -> None:
        assert await self.store.reschedule(
            self.held.pop(), at=self.clock.now + 5, attempts=[Attempt(1, 1, "m", "x")]
        )

    async def release(self) -> None:
        await self.store.release([self.held.pop(), self.held.pop()])

    async def reply(self) -> None:
        taught = answer(turn=turn(), keep_turns=3, cooldown_until=self.clock.now)
        assert all(await asyncio.gather(*(self.store.save_ending(c, taught) for c in self.held)))

    async def finish(self) -> None:
        kept = self.held[2:]
        assert all(await asyncio.gather(*(self.store.finish(c, delivered=True) for c in kept)))

    async def publish_orphans(self) -> None:
        self.clock.pass_(LEASE)
        assert (await self.store.claim([], 10, "w", LEASE)).requests

    async def reap(self) -> None:
        self.clock.pass_(LEASE)
        await self.store.reap()

    async def limit(self) -> None:
        await self.store.reserve([Reservation("k", self.clock.now, 1, 5)])
        await self.store.settle("k", self.clock.now, -1)

    async def unresolved(self) -> None:
        await self.store.unresolved(["chat", "alarm"], 10)

    async def retry(self) -> None:
        taken = await claim(self.store, 20)
        dead = next(c for c in taken if c.state is State.ANSWERING)
        await self.store.save_ending(dead, Ending(State.FAILED))
        assert await self.store.retry(dead.id, self.clock.now + 10**6)

    async def forget(self) -> None:
        await self.store.forget("ends", "e1")

    async def look(self) -> None:
        [row, *_] = await self.store.requests(limit=5)
        await self.store.request(row.id)
        for state in State:
            await self.store.requests(state=state, limit=5)
        await self.store.requests(flow="chat", conversation="hot", limit=5)
        await self.store.requests(limit=5, before=row.seq)

    async def purge(self) -> None:
        await self.store.purge(self.clock.now - 10**7, limit=20)

    def steps(self) -> list[Callable[[], Awaitable[None]]]:
        names = (
            "add add_again add_again claim recall heartbeat step again release reply finish"
            " publish_orphans reap limit unresolved retry forget claim_expired look purge"
        )
        return [getattr(self, name) for name in names.split()]


async def count_steps(store: Inbox, clock: Clock) -> dict[str, int]:
    """SQLite: hundreds of virtual machine steps that each part of a life takes."""
    counted = itertools.count()

    async def watch(handler: Any) -> None:
        def work(link: Any) -> None:
            link.driver.set_progress_handler(handler, 100)

        database = store._engine._database
        await asyncio.gather(database.write(work), database.read(work))

    await watch(lambda: next(counted) * 0)
    steps = {}
    for step in Life(store, clock).steps():
        before = next(counted)
        await step()
        steps[step.__name__] = next(counted) - before
    await watch(None)
    return steps


async def test_sqlite_does_the_same_work_however_many_wait(tmp_path: Any) -> None:
    clocks = (Clock(), Clock())
    async with (
        Inbox(f"sqlite:///{tmp_path / 'few.db'}", now=clocks[0]) as few,
        Inbox(f"sqlite:///{tmp_path / 'many.db'}", now=clocks[1]) as many,
    ):
        await fill(few, clocks[0], 100)
        await fill(many, clocks[1], 2000)
        small, large = await count_steps(few, clocks[0]), await count_steps(many, clocks[1])
    grown = {name: (small[name], large[name]) for name in small if large[name] > small[name] + 20}
    assert not grown


def rows_met(plan: dict[str, Any]) -> float:
    """All rows that any part of an executed plan had in hand."""
    own = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
    return float(own * plan["Actual Loops"]) + sum(map(rows_met, plan.get("Plans", ())))


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_postgres_meets_few_rows_however_many_wait(store: Inbox, clock: Clock) -> None:
    await fill(store, clock, 1500)
    await store._engine._database.write(lambda link: link.execute(text("ANALYZE")))
    found: dict[str, float] = {}
    engine = store._engine._database._engine.sync_engine
    doing = ""

    @event.listens_for(engine, "before_cursor_execute")
    def explain(
        conn: Any, cursor: Any, statement: str, values: Any, context: Any, many: bool
    ) -> None:
        if statement.startswith(("EXPLAIN", "SAVEPOINT", "ROLLBACK", "SELECT pg_notify")):
            return
        conn.exec_driver_sql("SAVEPOINT tried")
        explained = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
        plan = conn.exec_driver_sql(explained, values[0] if many else values).scalar()
        conn.exec_driver_sql("ROLLBACK TO SAVEPOINT tried")
        if (rows := rows_met(plan[0]["Plan"])) > 800:
            found[f"{doing}: {statement}"] = rows

    for step in Life(store, clock).steps():
        doing = step.__name__
        await step()
    event.remove(engine, "before_cursor_execute", explain)
    assert not found
