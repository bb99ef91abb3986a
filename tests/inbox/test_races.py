"""Two replicas at one conversation, stopped at the one moment that matters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text

from service.domain import Claimed
from service.inbox import Inbox, entries, leases
from service.inbox.sql import Tx
from tests.inbox.make import LEASE, Clock, answer, claim, claim_one, ended, entry, ids

pytestmark = pytest.mark.parametrize("kind", ["postgresql"])


@asynccontextmanager
async def halfway(store: Inbox, clock: Clock, work: Callable[[Tx], Any]) -> AsyncIterator[None]:
    """Another replica has done this, and will commit when the block ends."""
    engine = store._engine._database._engine
    async with engine.begin() as connection:
        await connection.run_sync(lambda c: work(Tx(c, clock())))
        yield


async def blocked(store: Inbox) -> None:
    """Until somebody waits for what another holds."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    while not await store._engine.view(lambda tx: tx.run(waiting).scalar()):  # noqa: ASYNC110
        await asyncio.sleep(0.005)


Write = Callable[[Inbox, Claimed, Clock], Awaitable[Any]]
FREES: dict[str, Write] = {
    "reply": lambda store, claimed, clock: store.save_ending(claimed, ended()),
    "again": lambda store, claimed, clock: store.reschedule(claimed, at=clock.now),
    "release": lambda store, claimed, clock: store.release([claimed]),
}


@pytest.mark.parametrize("frees", FREES.values(), ids=list(FREES))
async def test_what_is_added_while_a_conversation_is_freed_is_seen(
    store: Inbox, clock: Clock, frees: Write
) -> None:
    older, active = entry(), entry()
    await store.add(active)
    claimed = await claim_one(store)
    async with halfway(store, clock, lambda tx: entries.add(tx, [older])):
        freeing = asyncio.ensure_future(frees(store, claimed, clock))
        await blocked(store)
    await freeing
    assert (await claim_one(store)).id == older.id


async def test_what_is_added_while_a_request_ends_is_seen(store: Inbox, clock: Clock) -> None:
    active, following = entry(), entry()
    await store.add(active)
    claimed = await claim_one(store)
    await store.save_ending(claimed, answer())
    async with halfway(store, clock, lambda tx: entries.add(tx, [following])):
        finishing = asyncio.ensure_future(store.finish(claimed, delivered=True))
        await blocked(store)
    assert await finishing
    assert (await claim_one(store)).id == following.id


async def test_what_is_added_after_a_request_has_ended_is_seen(store: Inbox, clock: Clock) -> None:
    active, following = entry(), entry()
    await store.add(active)
    claimed = await claim_one(store)
    await store.save_ending(claimed, answer())
    end = leases.Finish(claimed, True)

    def finish(tx: Tx) -> None:
        leases.lock_queues(tx, [end])
        leases.finish(tx, [end])

    async with halfway(store, clock, finish):
        adding = asyncio.ensure_future(store.add(following))
        await blocked(store)
    await adding
    assert (await claim_one(store)).id == following.id


async def test_nobody_waits_for_a_conversation_that_another_holds(
    store: Inbox, clock: Clock
) -> None:
    """Neither claims nor the reaper: they take what is free."""
    held, free = entry("held"), entry("free")
    await store.add(held)
    await store.add(free)
    async with halfway(store, clock, lambda tx: entries.add(tx, [entry("held")])):
        assert ids(await claim(store)) == [free.id]
        clock.pass_(LEASE)
        assert await store.reap() == 1
        assert ids(await claim(store)) == [free.id]
    assert ids(await claim(store)) == [held.id]


async def test_the_same_message_at_the_same_time(store: Inbox, clock: Clock) -> None:
    first = entry()
    copy = entry(dedupe=first.dedupe)
    async with halfway(store, clock, lambda tx: entries.add(tx, [first])):
        adding = asyncio.ensure_future(store.add(copy))
        await blocked(store)
    added = await adding
    assert (added.id, added.duplicate) == (first.id, True)
