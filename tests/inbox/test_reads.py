"""The inbox as people see it, and how old things go."""

from __future__ import annotations

import asyncio

from service.domain import Reservation, State
from service.inbox import Inbox
from tests.inbox.make import (
    DAY,
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


async def one_of_each(store: Inbox) -> dict[str, str]:
    """A request in each state, by its name."""
    made = {state: entry(f"u-{state}") for state in State}
    for one in made.values():
        await store.add(one)
    for claimed in await claim(store):
        state = next(s for s, one in made.items() if one.id == claimed.id)
        if state is State.ANSWERED:
            await store.save_ending(claimed, answer())
        elif state is State.DONE:
            await play(store, claimed)
        elif state.ended:
            await store.save_ending(claimed, ended(state))
        elif state is State.WAITING:
            await store.park(claimed, until=2**50, waiting_for=(), steps=())
        elif state is State.QUEUED:
            await store.release([claimed])
    return {state: one.id for state, one in made.items()}


async def test_list_by_state(store: Inbox) -> None:
    made = await one_of_each(store)
    for state in State:
        assert ids(await store.requests(state=state)) == [made[state]]
    assert ids(await store.requests()) == list(reversed(made.values()))


async def test_list_by_flow_conversation_and_page(store: Inbox) -> None:
    entries = [entry(f"u{n % 2}") for n in range(6)] + [loose(conversation="u0")]
    for one in entries:
        await store.add(one)
    chat = ids(entries[5::-1])
    page = await store.requests(flow="chat", limit=4)
    assert ids(page) == chat[:4]
    assert ids(await store.requests(flow="chat", limit=4, before=page[-1].seq)) == chat[4:]
    assert ids(await store.requests(flow="chat", conversation="u0")) == chat[1::2]
    assert len(await store.requests(conversation="u0")) == 4
    assert await store.requests(flow="nobody") == []
    assert await store.requests(before=0) == []


async def test_a_list_shows_the_start_of_a_payload(store: Inbox) -> None:
    await store.add(entry(message={"payload": b"x" * 100_000}))
    [row] = await store.requests()
    assert len(row.message.payload) < 1000
    assert row.payload_size == 100_000
    full = await store.request(row.id)
    assert full is not None
    assert len(full.message.payload) == 100_000


async def test_request_of_nobody(store: Inbox) -> None:
    assert await store.request("nobody\0") is None


async def test_stats(store: Inbox, clock: Clock) -> None:
    assert (await store.stats()).open == 0
    await one_of_each(store)
    await store.add(loose(accepted_at=5))
    stats = await store.stats()
    assert stats.counts == {
        ("chat", State.QUEUED): 1,
        ("chat", State.ANSWERING): 1,
        ("chat", State.ANSWERED): 1,
        ("chat", State.WAITING): 1,
        ("alarm", State.QUEUED): 1,
    }
    assert stats.open == store.backlog == 5
    assert stats.dead == {State.FAILED: 1, State.EXPIRED: 1, State.IGNORED: 1}
    assert stats.oldest_at == entry().accepted_at


async def test_purge_takes_what_ended_long_ago(store: Inbox, clock: Clock) -> None:
    made = await one_of_each(store)
    clock.pass_(1000)
    await store.add(entry("young"))
    await play(store, next(c for c in await claim(store) if c.conversation == "young"))
    assert await store.purge(clock.now - 1000) == 0
    assert await store.purge(clock.now - 999, limit=3) == 3
    assert await store.purge(clock.now - 999, limit=3) == 1
    left = {row.state for row in await store.requests()}
    assert left == {State.ANSWERING, State.ANSWERED, State.WAITING, State.DONE}
    assert await store.request(made[State.FAILED]) is None


async def test_purge_takes_old_memory_but_not_what_is_in_use(store: Inbox, clock: Clock) -> None:
    for user, at in (("old", 5), ("new", clock.now)):
        await store.add(entry(user))
        await store.save_ending(
            await claim_one(store), answer(turn=turn(at=at), keep_turns=9, cooldown_until=at)
        )
    clock.pass_(1)
    await store.purge(clock.now - 10)
    assert (await store.memory("chat", "old", limit=9)).turns == ()
    assert len((await store.memory("chat", "new", limit=9)).turns) == 1


async def test_a_purged_conversation_goes_on(store: Inbox, clock: Clock) -> None:
    """Rows of idle conversations go; of those with something open, never."""
    await store.add(entry("idle"))
    await play(store, await claim_one(store))
    busy = [entry("busy"), entry("busy")]
    for one in busy:
        await store.add(one)
    claimed = await claim_one(store)
    for _ in range(3):
        await store.purge(clock.now + DAY, limit=1)
    await store.add(entry("idle"))
    assert [c.conversation for c in await claim(store)] == ["idle"]
    await play(store, claimed)
    assert (await claim_one(store)).id == busy[1].id


async def test_purge_takes_old_counters(store: Inbox, clock: Clock) -> None:
    old, new = clock.now - 3 * DAY, clock.now - DAY
    for window in (old, new):
        await store.reserve([Reservation("k", window, 10, 10)])
    await store.purge(clock.now)
    assert await store.reserve([Reservation("k", old, 10, 10)]) is None
    assert await store.reserve([Reservation("k", new, 1, 10)]) == "k"


async def test_purge_beside_adds(store: Inbox, other: Inbox, clock: Clock) -> None:
    for _ in range(5):
        entries = [entry(f"u{n}") for n in range(20)]
        await asyncio.gather(*map(store.add, entries), other.purge(clock.now + DAY))
        taken = await claim(store)
        assert sorted(ids(taken)) == sorted(ids(entries))
        await asyncio.gather(
            *(play(store, c) for c in taken), other.purge(clock.now + DAY, limit=5)
        )


async def test_a_purged_lease_does_not_come_back(store: Inbox, clock: Clock) -> None:
    """(seq, fence) is never given twice, not even after its row is gone."""
    await store.add(entry())
    claimed = await claim_one(store)
    await store.save_ending(claimed, ended())
    assert await store.purge(clock.now + 1) == 1
    await store.add(entry())
    assert (await claim_one(store)).seq > claimed.seq
    assert not await store.checkpoint(claimed, [])
