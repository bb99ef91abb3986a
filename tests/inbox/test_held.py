"""Replies that found nobody, and ordered queues that settle."""

from __future__ import annotations

from service.domain import Ending, Publish, State
from service.inbox import Inbox
from tests.inbox.make import Clock, answer, claim, claim_one, entry, ids, loose, play

MINUTE = 60_000


async def hold(store: Inbox, clock: Clock, made: Ending | None = None) -> str:
    """A request whose reply found nobody; its id."""
    await store.add(loose())
    claimed = await claim_one(store)
    await store.save_ending(claimed, made or answer("late"))
    times = (clock.now + 1000, clock.now + MINUTE)
    assert await store.finish(claimed, delivered=False, held=times)
    return claimed.id


async def test_a_held_reply_is_taken_when_it_is_due_by_one_process(
    store: Inbox, other: Inbox, clock: Clock
) -> None:
    id = await hold(store, clock)
    row = await store.request(id)
    assert row is not None
    assert (row.state, row.delivered, row.held_until) == (State.DONE, False, clock.now + MINUTE)
    assert store.backlog == 0  # it has ended
    taken = await store.take_held(10, 5000)
    assert (taken.replies, taken.next_at) == ((), clock.now + 1000)

    clock.pass_(1000)
    [reply] = (await store.take_held(10, 5000)).replies
    assert (reply.id, reply.flow) == (id, "alarm")
    assert reply.outbox == (Publish("chatgpt/response/u1", b"late"),)
    assert reply.until == row.held_until
    assert (await other.take_held(10, 5000)).replies == ()
    clock.pass_(5000)  # the first one died
    [again] = (await other.take_held(10, 5000)).replies
    await store.note_held(reply, True, None)  # too late: it has another lease
    assert (await store.request(id)).delivered is False  # type: ignore[union-attr]
    await other.note_held(again, True, None)
    row = await store.request(id)
    assert row is not None
    assert (row.delivered, row.held_at) == (True, None)
    assert await store.take_held(10, 5000) == type(taken)((), None)


async def test_it_is_tried_again_at_a_later_time(store: Inbox, clock: Clock) -> None:
    await hold(store, clock)
    clock.pass_(1000)
    [reply] = (await store.take_held(10, 5000)).replies
    await store.note_held(reply, False, clock.now + 2000)
    assert (await store.take_held(10, 5000)).next_at == clock.now + 2000
    clock.pass_(2000)
    assert len((await store.take_held(10, 5000)).replies) == 1


async def test_ordered_queues_wait_while_they_settle(
    store: Inbox, other: Inbox, clock: Clock
) -> None:
    await store.pause_ordered(clock.now + 5000)
    young = entry(message={"received_at": 200})
    await store.add(young)
    [first] = await claim(store)  # the first start of all: nothing could come late
    await play(store, first)

    await store.pause_ordered(clock.now + 5000)
    young = entry(message={"received_at": 200})
    side = loose()
    await store.add(young)
    await store.add(side)
    claims = await other.claim(("chat", "alarm"), 10, "worker", 30_000)
    assert ids(claims.requests) == [side.id]
    assert claims.next_due is not None
    assert claims.next_due <= clock.now + 5000
    old = entry(message={"received_at": 100})
    await other.add(old)
    clock.pass_(5000)
    assert ids(await claim(store)) == [old.id]
