"""Who asks seldom is not kept waiting by who asks all the time."""

from __future__ import annotations

import pytest

from service.answering.client_shares import FURTHEST, STEP, Shares, Turns
from service.domain import State
from service.inbox import Change, Inbox
from tests.inbox.make import Clock, claim, ended, entry, ids, loose

NOW = 1_790_000_000_000


@pytest.mark.parametrize("make", [entry, loose])
async def test_the_earlier_turn_is_claimed_first(store: Inbox, clock: Clock, make) -> None:
    flood = [make(f"flood{n}", accepted_at=NOW, turn=NOW + n * STEP) for n in range(200)]
    for one in flood:
        await store.add(one)
    other = make("other", accepted_at=NOW, turn=NOW)
    await store.add(other)
    old = make("old", accepted_at=NOW - 1)  # without a turn: by when it came
    await store.add(old)
    first = ids(await claim(store, 4))
    assert set(first) == {old.id, other.id, flood[0].id, flood[1].id}
    left = ids(await claim(store, 300))
    assert set(left) == {one.id for one in flood[2:]}


async def test_a_retry_by_hand_stands_behind_who_waits(store: Inbox, clock: Clock) -> None:
    dead = loose("dead")
    await store.add(dead)
    [held] = await claim(store, 1)
    await store.save_ending(held, ended(State.FAILED))
    waiting = loose("waits", accepted_at=clock.now - 10)
    await store.add(waiting)
    assert await store.retry(dead.id, clock.now + 10**6)
    assert ids(await claim(store, 1)) == [waiting.id]
    assert ids(await claim(store, 1)) == [dead.id]


def test_turns() -> None:
    turns = Turns()
    assert [turns.next("a", NOW) for _ in range(3)] == [NOW, NOW + STEP, NOW + 2 * STEP]
    assert turns.next("b", NOW) == NOW
    assert turns.next("a", NOW + 10 * STEP) == NOW + 10 * STEP  # it was silent for a while
    for _ in range(1_000):
        last = turns.next("c", NOW)
    assert last == NOW + FURTHEST


def test_a_client_s_part_of_the_backlog() -> None:
    shares = Shares(2_000)
    for n in range(200):
        shares.stored(f"r{n}", "flood")
    assert not shares.over("flood", 999)  # there is room for all
    assert shares.over("flood", 1_000)
    assert not shares.over("other", 1_999)
    shares.changed([Change("r0", "chat", "c", State.DONE), Change("r1", "chat", "c", State.QUEUED)])
    assert not shares.over("flood", 1_000)
