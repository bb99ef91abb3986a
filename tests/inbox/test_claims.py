"""What a claim takes, in which order, and when it says there will be more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from service.domain import State
from service.inbox import Change, Inbox
from tests.inbox.make import (
    DAY,
    FLOWS,
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
)


async def test_a_claim_carries_a_lease(store: Inbox, changes: list[Change]) -> None:
    one = entry()
    await store.add(one)
    claimed = await claim_one(store)
    assert (claimed.id, claimed.state, claimed.fence, claimed.claims) == (
        one.id,
        State.ANSWERING,
        1,
        1,
    )
    assert changes[-1] == Change(one.id, "chat", "u1", State.ANSWERING)
    assert await claim(store) == []


async def test_one_at_a_time_in_a_conversation(store: Inbox, other: Inbox) -> None:
    first, second, third = entry(), entry(), entry("u2")
    for one in (first, second, third):
        await store.add(one)
    claimed = await claim(store)
    assert ids(claimed) == [first.id, third.id]
    assert await claim(other) == []
    await store.save_ending(claimed[0], answer())
    assert await claim(other) == []  # not before it is published
    await store.finish(claimed[0], delivered=True)
    assert ids(await claim(other)) == [second.id]


async def test_older_by_emqx_goes_first(store: Inbox, clock: Clock) -> None:
    young = entry(message={"received_at": 200})
    old = entry(message={"received_at": 100})
    same_b = entry(message={"received_at": 150, "id": "B"})
    same_a = entry(message={"received_at": 150, "id": "A"})
    for one in (young, old, same_b, same_a):
        await store.add(one)
    order = []
    while claimed := await claim(store):
        order += ids(claimed)
        await play(store, claimed[0])
    assert order == ids([old, same_a, same_b, young])


async def test_late_one_is_answered_late(store: Inbox) -> None:
    late, first = entry(), entry()
    await store.add(first)
    claimed = await claim_one(store)
    await store.add(late)
    assert await claim(store) == []
    await play(store, claimed)
    assert (await claim_one(store)).id == late.id


async def test_older_one_passes_a_head_that_waits(store: Inbox, clock: Clock) -> None:
    older, head = entry(), entry()
    await store.add(head)
    await store.reschedule(await claim_one(store), at=clock.now + 60_000)
    assert await claim(store) == []
    await store.add(older)
    assert (await claim_one(store)).id == older.id


async def test_loose_ones_run_side_by_side(store: Inbox, other: Inbox) -> None:
    entries = [loose(conversation="same") for _ in range(6)]
    await asyncio.gather(*map(store.add, entries))
    taken = [*await claim(store, 3), *await claim(other, 3)]
    assert sorted(ids(taken)) == sorted(ids(entries))


async def test_only_the_flows_asked_for(store: Inbox) -> None:
    chat, alarm = entry(), loose()
    await store.add(chat)
    await store.add(alarm)
    assert ids(await claim(store, flows=["alarm"])) == [alarm.id]
    assert await claim(store, flows=[]) == []
    assert ids(await claim(store, flows=["chat", "alarm", "home"])) == [chat.id]


async def test_flows_share_fairly(store: Inbox) -> None:
    for n in range(20):
        await store.add(entry(f"u{n}"))
        await store.add(loose())
    await store.add(entry("u1", flow="home"))
    taken = await claim(store, 9, ["chat", "alarm", "home"])
    counts = {flow: sum(c.flow == flow for c in taken) for flow in ("chat", "alarm", "home")}
    assert counts["home"] == 1
    assert min(counts["chat"], counts["alarm"]) >= 3
    assert sum(counts.values()) >= 7


@pytest.mark.parametrize("make", [entry, loose])
async def test_full_or_shared_out_claims_say_there_is_more(store: Inbox, make, clock) -> None:
    """Whatever the shares were, a worker with room left is told to come again."""
    for n in range(10):
        await store.add(make(conversation=f"u{n}"))
    seen = 0
    while True:
        claims = await store.claim(["a", "alarm", "chat", "z"], 3, "w", LEASE)
        seen += len(claims.requests)
        if claims.next_due is None or claims.next_due > clock.now:
            break
    assert seen == 10


async def test_conversations_take_turns(store: Inbox, clock: Clock) -> None:
    """One that always has more does not keep the others waiting."""
    for _ in range(5):
        await store.add(entry("busy"))
    clock.pass_(1)
    await store.add(entry("quiet"))
    claimed = await claim_one(store)
    assert claimed.conversation == "busy"
    clock.pass_(1)
    await play(store, claimed)
    assert (await claim_one(store)).conversation == "quiet"


@pytest.mark.parametrize("make", [entry, loose])
async def test_again_waits_until_it_is_time(store: Inbox, clock: Clock, make) -> None:
    one = make()
    await store.add(one)
    claimed = await claim_one(store)
    at = clock.now + 5_000
    assert await store.reschedule(claimed, at=at, error_code="rate_limit", error_message="slow")
    claims = await store.claim(FLOWS, 5, "w", LEASE)
    assert (claims.requests, claims.next_due) == ([], at)
    clock.pass_(5_000)
    claimed = await claim_one(store)
    assert (claimed.id, claimed.tries, claimed.claims) == (one.id, 1, 1)
    row = await store.request(one.id)
    assert row is not None
    assert (row.error_code, row.error_message) == ("rate_limit", "slow")


async def test_again_without_counting(store: Inbox, clock: Clock) -> None:
    await store.add(entry())
    await store.reschedule(await claim_one(store), at=clock.now, count=False)
    assert (await claim_one(store)).tries == 0


async def test_waited_ones_are_not_starved_by_fresh_ones(store: Inbox, clock: Clock) -> None:
    waited = entry("w")
    await store.add(waited)
    await store.reschedule(await claim_one(store), at=clock.now + 10)
    for n in range(10):
        await store.add(entry(f"u{n}"))
    clock.pass_(10)
    assert (await claim_one(store)).id == waited.id


async def test_next_due_is_the_first_of_all(store: Inbox, clock: Clock) -> None:
    assert (await store.claim(FLOWS, 5, "w", LEASE)).next_due is None
    soon = entry("u2", deadline=clock.now + 7_000)
    for one in (entry("u1"), soon, loose()):
        await store.add(one)
    for claimed in await claim(store):
        delay = {"u2": 50_000}.get(claimed.conversation, 9_000)
        await store.reschedule(claimed, at=clock.now + delay)
    assert (await store.claim(FLOWS, 5, "w", LEASE)).next_due == soon.deadline
    assert (await store.claim(["alarm"], 5, "w", LEASE)).next_due == soon.deadline
    clock.pass_(8_000)
    [late] = await claim(store)
    assert late.id == soon.id
    assert (await store.claim(FLOWS, 5, "w", LEASE)).next_due == clock.now + 1_000


async def test_expired_ones_of_paused_flows_come_in_order(store: Inbox, clock: Clock) -> None:
    """Their senders are told, even while the provider is away."""
    first, second = entry(deadline=clock.now + 2_000), entry(deadline=clock.now + 1_000)
    free = loose(deadline=clock.now + 1_000)
    waits = entry("u2", deadline=clock.now + DAY)
    for one in (first, second, free, waits):
        await store.add(one)
    clock.pass_(1_000)
    assert ids(await claim(store, flows=[])) == [free.id]  # `second` is not the head
    clock.pass_(1_000)
    claimed = await claim(store, flows=[])
    assert ids(claimed) == [first.id]
    assert await claim(store, flows=[]) == []
    await store.save_ending(claimed[0], ended(State.EXPIRED))
    assert ids(await claim(store, flows=[])) == [second.id]
    assert ids(await claim(store)) == [waits.id]


async def test_expired_ones_are_found_behind_many_that_are_not_free(
    store: Inbox, clock: Clock
) -> None:
    for _ in range(30):
        await store.add(entry("hot", deadline=clock.now + 1_000))
    await claim_one(store)
    quiet = entry("quiet", deadline=clock.now + 1_001)
    await store.add(quiet)
    clock.pass_(2_000)
    found: list[str] = []
    for _ in range(10):
        claims = await store.claim([], 5, "w", LEASE)
        found += ids(claims.requests)
    assert found == [quiet.id]


async def test_an_expired_head_in_backoff_is_due(store: Inbox, clock: Clock) -> None:
    one = entry(deadline=clock.now + 1_000)
    await store.add(one)
    await store.reschedule(await claim_one(store), at=clock.now + 50_000)
    clock.pass_(1_000)
    assert ids(await claim(store, flows=[])) == [one.id]


@pytest.mark.parametrize("make", [entry, loose])
async def test_an_orphaned_reply_is_claimed_to_be_published(
    store: Inbox, other: Inbox, clock: Clock, make
) -> None:
    """Of any flow: it is paid for, whatever its provider does now."""
    one = make()
    await store.add(one)
    await store.save_ending(await claim_one(store), answer("paid"))
    assert await claim(other, flows=[]) == []
    clock.pass_(LEASE)
    claimed = (await claim(other, flows=[]))[0]
    assert (claimed.id, claimed.state, claimed.outcome) == (one.id, State.ANSWERED, State.DONE)
    assert claimed.outbox == answer("paid").outbox
    assert await other.finish(claimed, delivered=True)
    row = await store.request(one.id)
    assert row is not None
    assert (row.state, row.delivered) == (State.DONE, True)


async def test_publish_again_later(store: Inbox, clock: Clock) -> None:
    await store.add(entry())
    claimed = await claim_one(store)
    await store.save_ending(claimed, answer())
    assert await store.reschedule(claimed, at=clock.now + 3_000, error_code="broker_away")
    claims = await store.claim(FLOWS, 5, "w", LEASE)
    assert (claims.requests, claims.next_due) == ([], clock.now + 3_000)
    clock.pass_(3_000)
    claimed = await claim_one(store)
    assert claimed.state is State.ANSWERED
    await store.finish(claimed, delivered=True)
    row = await store.request(claimed.id)
    assert row is not None
    assert row.error_code is None  # what held it up is over


async def test_publish_trouble_does_not_hide_why_it_failed(store: Inbox, clock: Clock) -> None:
    await store.add(entry())
    claimed = await claim_one(store)
    await store.save_ending(
        claimed, answer(outcome=State.FAILED, error_code="model", error_message="m")
    )
    await store.reschedule(claimed, at=clock.now, error_code="broker_away", error_message="b")
    await store.finish(await claim_one(store), delivered=True)
    row = await store.request(claimed.id)
    assert row is not None
    assert (row.state, row.error_code, row.error_message) == (State.FAILED, "model", "m")


async def test_a_cancelled_claim_gives_back_what_it_took(opened: Any) -> None:
    back = asyncio.Event()

    def changed(changes: Sequence[Change]) -> None:
        states.extend(change.state for change in changes)
        if states == [State.QUEUED, State.ANSWERING, State.QUEUED]:
            back.set()

    states: list[State] = []
    store = await opened(on_change=changed)
    one = entry()
    await store.add(one)
    task = asyncio.ensure_future(store.claim(FLOWS, 5, "w", LEASE))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await back.wait()
    claimed = await claim_one(store)
    assert (claimed.id, claimed.claims) == (one.id, 1)


async def test_a_jump_back_of_the_clock_delays_no_fresh_request(store: Inbox, clock: Clock) -> None:
    a, b, c = entry("u1"), entry("u1"), loose()
    for one in (a, b, c):
        await store.add(one)
    clock.pass_(-DAY)
    first = await claim(store)
    assert sorted(ids(first)) == sorted(ids([a, c]))
    for claimed in first:
        await play(store, claimed)
    assert ids(await claim(store)) == [b.id]


async def test_nothing_is_claimed_with_no_room(store: Inbox) -> None:
    await store.add(entry())
    assert (await store.claim(FLOWS, 0, "w", LEASE)).requests == []
