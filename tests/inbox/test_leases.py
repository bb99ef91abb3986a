"""The fence: who lost the lease changes nothing. And what becomes of lost leases."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.domain import Attempt, Claimed, State, Usage
from service.inbox import Change, Inbox
from tests.inbox.make import (
    LEASE,
    Clock,
    answer,
    claim,
    claim_one,
    ended,
    entry,
    ids,
    loose,
    play,
    turn,
)

Write = Callable[[Inbox, Claimed], Awaitable[object]]


async def beats(store: Inbox, claimed: Claimed) -> bool:
    return not await store.heartbeat([claimed], 2**50)


async def gives_back(store: Inbox, claimed: Claimed) -> bool:
    await store.release([claimed])
    return False


WRITES: dict[str, Write] = {
    "reply": lambda s, c: s.save_ending(
        c, answer("stale", turn=turn(), keep_turns=5, cooldown_until=2**50)
    ),
    "reply without outbox": lambda s, c: s.save_ending(c, ended(forget=True)),
    "finish": lambda s, c: s.finish(c, delivered=False, error_code="stale"),
    "again": lambda s, c: s.reschedule(c, at=2**50, attempts=[Attempt(1, 1, "m", "stale")]),
    "step": lambda s, c: s.checkpoint(c, [{"stale": True}]),
    "heartbeat": beats,
    "release": gives_back,
}


async def picture(store: Inbox, claimed: Claimed) -> object:
    memory = await store.memory("chat", claimed.conversation, limit=9)
    return await store.request(claimed.id), memory, await store.stats()


@pytest.mark.parametrize("make", [entry, loose])
@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
@pytest.mark.parametrize("stage", ["requeued", "taken", "answered", "taken to publish", "ended"])
async def test_a_stale_writer_changes_nothing(
    store: Inbox, other: Inbox, clock: Clock, write: Write, stage: str, make
) -> None:
    await store.add(make())
    await store.add(make())
    [stale, *_] = await claim(store, 1)
    if stage == "taken to publish":
        await store.save_ending(stale, answer("paid"))
    clock.pass_(LEASE)
    if stage == "taken to publish":
        [current] = await claim(other, 1)
        assert current.state is State.ANSWERED
    else:
        assert await other.reap() == 1
    if stage not in ("requeued", "taken to publish"):
        [current] = await claim(other, 1)
        assert (current.id, current.fence > stale.fence) == (stale.id, True)
    if stage in ("answered", "ended"):
        await other.save_ending(current, answer("fresh"))
    if stage == "ended":
        await other.finish(current, delivered=True)
    before = await picture(other, stale)
    assert not await write(store, stale)
    assert await picture(other, stale) == before
    if stage != "requeued":
        assert stale.id not in ids(await claim(other))


async def test_a_write_repeated_after_a_lost_commit_says_yes(store: Inbox, clock: Clock) -> None:
    """The commit was done, its confirmation lost: the same write comes again."""
    await store.add(entry())
    claimed = await claim_one(store)
    taught = answer("once", turn=turn(), keep_turns=5)
    assert await store.save_ending(claimed, taught)
    assert await store.save_ending(claimed, taught)
    assert await store.finish(claimed, delivered=True)
    assert await store.finish(claimed, delivered=True)
    assert len((await store.memory("chat", "u1", limit=9)).turns) == 1
    assert store.backlog == 0
    await store.add(entry())
    claimed = await claim_one(store)
    assert await store.reschedule(claimed, at=clock.now)
    assert await store.reschedule(claimed, at=clock.now)
    assert (await claim_one(store)).tries == 1


async def test_reply_with_outbox_waits_for_its_publish(
    store: Inbox, changes: list[Change], clock: Clock
) -> None:
    await store.add(entry())
    claimed = await claim_one(store)
    clock.pass_(5)
    attempts = (Attempt(clock.now, 7, "gpt", "ok"),)
    reply = answer("yes", model="gpt", usage=Usage(3, 4), attempts=attempts)
    await store.save_ending(claimed, reply)
    row = await store.request(claimed.id)
    assert row is not None
    assert (row.state, row.outcome, row.outbox) == (State.ANSWERED, State.DONE, reply.outbox)
    assert (row.reply, row.model, row.usage, row.attempts) == ("yes", "gpt", Usage(3, 4), attempts)
    assert (row.answered_at, row.ended_at, row.delivered) == (clock.now, None, None)
    clock.pass_(5)
    await store.finish(claimed, delivered=False)
    row = await store.request(claimed.id)
    assert row is not None
    assert (row.state, row.ended_at, row.delivered) == (State.DONE, clock.now, False)
    assert [c.state for c in changes] == ["queued", "answering", "answered", "done"]


async def test_reply_without_outbox_ends_at_once(store: Inbox, changes: list[Change]) -> None:
    await store.add(entry())
    nxt = entry()
    await store.add(nxt)
    claimed = await claim_one(store)
    assert await store.save_ending(claimed, ended(State.IGNORED, error_code="cooldown"))
    row = await store.request(claimed.id)
    assert row is not None
    assert (row.state, row.error_code) == (State.IGNORED, "cooldown")
    assert changes[-1].state is State.IGNORED
    assert (await claim_one(store)).id == nxt.id


async def test_finish_can_end_it_otherwise(store: Inbox) -> None:
    await store.add(entry())
    claimed = await claim_one(store)
    await store.save_ending(claimed, answer())
    assert await store.finish(
        claimed, delivered=False, outcome=State.FAILED, error_code="poison", error_message="400"
    )
    row = await store.request(claimed.id)
    assert row is not None
    assert (row.state, row.error_code, row.error_message) == (State.FAILED, "poison", "400")


async def test_finish_wants_a_reply(store: Inbox) -> None:
    await store.add(entry())
    claimed = await claim_one(store)
    assert not await store.finish(claimed, delivered=True)


async def test_attempts_add_up(store: Inbox, clock: Clock) -> None:
    await store.add(entry())
    for n in range(3):
        claimed = await claim_one(store)
        assert len(claimed.attempts) == n
        await store.reschedule(claimed, at=clock.now, attempts=[Attempt(n, n, "m", "timeout", "t")])
    claimed = await claim_one(store)
    await store.save_ending(claimed, answer(attempts=(Attempt(9, 9, "m", "ok"),)))
    row = await store.request(claimed.id)
    assert row is not None
    assert [a.at for a in row.attempts] == [0, 1, 2, 9]


async def test_steps_are_there_after_a_crash(store: Inbox, other: Inbox, clock: Clock) -> None:
    await store.add(entry())
    steps = [{"round": 1, "calls": [{"id": "c1", "arguments": {"room": "kitchen"}}]}]
    assert await store.checkpoint(await claim_one(store), steps)
    clock.pass_(LEASE)
    await other.reap()
    assert list((await claim_one(other)).steps) == steps


async def test_heartbeat_keeps_a_lease(store: Inbox, other: Inbox, clock: Clock) -> None:
    for n in range(3):
        await store.add(entry(f"u{n}"))
    held = await claim(store)
    clock.pass_(LEASE - 1)
    assert await store.heartbeat(held[:2], clock.now + LEASE) == set()
    clock.pass_(1)
    assert await other.reap() == 1
    assert other.next_expiry == clock.now - 1 + LEASE
    lost = await store.heartbeat(held, clock.now + LEASE)
    assert lost == {(held[2].seq, held[2].fence)}


async def test_release_gives_everything_back_at_once(store: Inbox, other: Inbox) -> None:
    for n in range(3):
        await store.add(entry(f"u{n}"))
    held = await claim(store)
    await store.save_ending(held[0], answer())
    await store.release(held)
    again = {c.id: c for c in await claim(other)}
    assert set(again) == set(ids(held))
    assert again[held[0].id].state is State.ANSWERED
    assert {c.claims for c in again.values()} == {1}
    assert all(again[c.id].fence > c.fence for c in held)


async def test_who_kills_its_worker_is_counted(store: Inbox, other: Inbox, clock: Clock) -> None:
    """Claims without a sign of life add up; an orderly `again` starts anew."""
    await store.add(entry())
    for n in range(1, 4):
        assert (await claim_one(other)).claims == n
        clock.pass_(LEASE)
        await store.reap()
    claimed = await claim_one(store)
    assert claimed.claims == 4
    await store.reschedule(claimed, at=clock.now)
    assert (await claim_one(store)).claims == 1


async def test_reap_many(store: Inbox, clock: Clock) -> None:
    entries = [entry(f"u{n}") for n in range(600)] + [loose() for _ in range(600)]
    await asyncio.gather(*map(store.add, entries))
    assert len(await claim(store, 2000)) == 1200
    clock.pass_(LEASE)
    assert await store.reap() == 1200
    assert await store.reap() == 0
    assert len(await claim(store, 2000)) == 1200


async def test_reap_all_leases(store: Inbox, other: Inbox) -> None:
    """At the start of the only process: nobody else can hold any."""
    await store.add(entry("u1"))
    await store.add(entry("u2"))
    first, second = await claim(store)
    await store.save_ending(first, answer())
    assert await other.reap(all_leases=True) == 1
    assert sorted(ids(await claim(other))) == sorted([first.id, second.id])
    assert not await store.finish(first, delivered=True)
    assert not await store.save_ending(second, answer())


async def test_parallel_reapers_and_claimers(store: Inbox, other: Inbox, clock: Clock) -> None:
    entries = [entry(f"u{n % 7}") for n in range(70)]
    await asyncio.gather(*map(store.add, entries))
    done: list[str] = []

    async def work(mine: Inbox) -> None:
        while len(done) < len(entries):
            for claimed in await claim(mine, 3):
                done.append(claimed.id)
                await play(mine, claimed)
            await mine.reap()

    await asyncio.wait_for(asyncio.gather(work(store), work(other)), 30)
    assert sorted(done) == sorted(ids(entries))


async def test_the_first_of_two_writes_in_one_batch_counts(store: Inbox) -> None:
    """Even if a worker errs: what a batch does to one request, it does in turn."""
    first, second = entry(), entry()
    await store.add(first)
    await store.add(second)
    claimed = await claim_one(store)
    await asyncio.gather(store.save_ending(claimed, ended()), store.save_ending(claimed, answer()))
    row = await store.request(first.id)
    assert row is not None
    assert (row.state, row.outbox) == (State.IGNORED, ())
    assert ids(await claim(store)) == [second.id]


async def test_a_flow_whose_order_was_switched_keeps_the_order_of_the_rest(
    store: Inbox, clock: Clock
) -> None:
    """What was stored without order does not free a conversation that it shares."""
    free, first, second = entry(ordered=False), entry(), entry()
    await store.add(free)
    await store.add(first)
    held = {c.id: c for c in await claim(store)}
    assert set(held) == {free.id, first.id}
    await store.add(second)
    await store.heartbeat([held[first.id]], clock.now + 2 * LEASE)
    clock.pass_(LEASE)
    assert await store.reap() == 1
    assert ids(await claim(store)) == [free.id]
    await play(store, held[first.id])
    assert ids(await claim(store)) == [second.id]
