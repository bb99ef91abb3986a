"""What conversations remember, and the counters of limits."""

from __future__ import annotations

import asyncio

from service.domain import Reservation, Turn
from service.inbox import Inbox, Memory
from tests.inbox.make import Clock, answer, claim, claim_one, ended, entry, loose, turn


async def teach(store: Inbox, conversation: str, *turns: Turn, keep: int = 10) -> None:
    for one in turns:
        await store.add(entry(conversation))
        claimed = await claim_one(store)
        await store.save_ending(claimed, answer(turn=one, keep_turns=keep))
        await store.finish(claimed, delivered=True)


def turns(count: int) -> list[Turn]:
    return [Turn(f"q{n}", f"a{n}", at=n, tokens=n) for n in range(count)]


async def test_nothing_is_remembered_of_nobody(store: Inbox) -> None:
    assert await store.memory("chat", "nobody", limit=5) == Memory((), None)


async def test_turns_come_oldest_first_and_are_trimmed(store: Inbox) -> None:
    taught = turns(6)
    await teach(store, "u1", *taught, keep=4)
    await teach(store, "u2", turn("other"))
    assert (await store.memory("chat", "u1", limit=9)).turns == tuple(taught[2:])
    assert (await store.memory("chat", "u1", limit=2)).turns == tuple(taught[4:])
    assert (await store.memory("chat", "u1", limit=0)).turns == ()
    assert (await store.memory("chat", "u1", limit=9, since=5)).turns == tuple(taught[5:])


async def test_many_askers_get_their_own(store: Inbox) -> None:
    for n in range(5):
        await teach(store, f"u{n}", turn(f"q{n}"))
    asked = [f"u{n % 6}" for n in range(40)]
    asking = (store.memory("chat", user, limit=n) for n, user in enumerate(asked))
    memories = await asyncio.gather(*asking)
    for n, (user, memory) in enumerate(zip(asked, memories, strict=True)):
        known = user != "u5" and n > 0
        assert [t.user for t in memory.turns] == ([f"q{user[1:]}"] if known else [])


async def test_a_claim_brings_the_memory_of_its_conversation(store: Inbox, clock: Clock) -> None:
    """Of those that have one: nobody else's, and not where there is no order to keep."""
    taught = turns(3)
    await teach(store, "u1", *taught)
    await store.add(entry("u2"))
    cooled = await claim_one(store)
    await store.save_ending(cooled, ended(cooldown_until=clock.now + 1000))
    for one in (entry("u1"), entry("u2"), entry("u3"), loose("u1")):
        await store.add(one)
    found = {(c.flow, c.conversation): c for c in await claim(store, 10)}
    assert {pair: (c.turns, c.cooldown_until) for pair, c in found.items()} == {
        ("chat", "u1"): (tuple(taught), None),
        ("chat", "u2"): ((), clock.now + 1000),
        ("chat", "u3"): ((), None),
        ("alarm", "u1"): ((), None),
    }


async def test_a_turn_is_stored_with_its_reply_or_not_at_all(store: Inbox, clock: Clock) -> None:
    await store.add(entry())
    claimed = await claim_one(store)
    clock.pass_(10**6)
    await store.reap()
    assert not await store.save_ending(claimed, answer(turn=turn(), keep_turns=5))
    assert (await store.memory("chat", "u1", limit=5)).turns == ()


async def test_turns_keep_every_character(store: Inbox) -> None:
    odd = Turn("a\0b\ud83d", "\ud83d\0" * 1000, at=1, tokens=2**40)
    await teach(store, "u\0", odd)
    assert (await store.memory("chat", "u\0", limit=5)).turns == (odd,)


async def test_forget(store: Inbox) -> None:
    await teach(store, "u1", *turns(3))
    await teach(store, "u2", *turns(2))
    assert await store.forget("chat", "u1") == 3
    assert await store.forget("chat", "u1") == 0
    assert (await store.memory("chat", "u1", limit=5)).turns == ()
    assert len((await store.memory("chat", "u2", limit=5)).turns) == 2


async def test_a_reset_forgets_before_it_learns(store: Inbox) -> None:
    await teach(store, "u1", *turns(3))
    await store.add(entry("u1"))
    claimed = await claim_one(store)
    await store.save_ending(claimed, answer(forget=True, turn=turn("new"), keep_turns=5))
    assert [t.user for t in (await store.memory("chat", "u1", limit=5)).turns] == ["new"]


async def test_cooldown_starts_with_a_reply(store: Inbox, clock: Clock) -> None:
    """In flows without order too, where nothing else makes a conversation."""
    for make, flow in ((entry, "chat"), (loose, "alarm")):
        await store.add(make("hot"))
        claimed = await claim_one(store)
        await store.save_ending(claimed, answer(cooldown_until=clock.now + 1000))
        assert (await store.memory(flow, "hot", limit=5)).cooldown_until == clock.now + 1000
        await store.finish(claimed, delivered=True)
        await store.add(make("hot"))
        await store.save_ending(await claim_one(store), ended())
        assert (await store.memory(flow, "hot", limit=5)).cooldown_until == clock.now + 1000


def wish(key: str, amount: int, limit: int = 10, window: int = 0) -> Reservation:
    return Reservation(key, window, amount, limit)


async def test_reserve_all_or_none(store: Inbox) -> None:
    assert await store.reserve([wish("a", 6), wish("b", 6)]) is None
    assert await store.reserve([wish("c", 5), wish("b", 5)]) == "b"
    assert await store.reserve([wish("a", 4), wish("c", 10)]) is None
    assert await store.reserve([wish("a", 1)]) == "a"
    assert await store.reserve([wish("a", 1, window=60_000)]) is None
    assert await store.reserve([wish("d", 11)]) == "d"
    assert await store.reserve([wish("e", 6), wish("e", 6)]) == "e"
    assert await store.reserve([]) is None


async def test_settle(store: Inbox) -> None:
    await store.reserve([wish("tokens", 9)])
    await store.settle("tokens", 0, -5)
    assert await store.reserve([wish("tokens", 6)]) is None
    await store.settle("tokens", 0, 7)
    assert await store.reserve([wish("tokens", 0)]) == "tokens"
    await store.settle("tokens", 0, -100)
    assert await store.reserve([wish("tokens", 10)]) is None
    await store.settle("unheard of", 0, 5)


async def test_parallel_reservations_never_overrun(store: Inbox, other: Inbox) -> None:
    wishes = [[wish("client", 1, limit=50), wish("flow", 3, limit=100)] for _ in range(100)]
    stores = [store, other] * 50
    results = await asyncio.gather(*(s.reserve(w) for s, w in zip(stores, wishes, strict=True)))
    assert results.count(None) == 33
    assert set(results) == {None, "flow"}
    assert await other.reserve([wish("flow", 1, limit=100)]) is None
    assert await store.reserve([wish("flow", 1, limit=100)]) == "flow"
    assert await store.reserve([wish("client", 17, limit=50)]) is None


async def test_keys_of_any_kind(store: Inbox) -> None:
    for key in ("a\0", "a\u2400", "x" * 10_000, "x" * 10_001, "\ud83d"):
        assert await store.reserve([wish(key, 10)]) is None
        assert await store.reserve([wish(key, 1)]) == key


def summary(text: str, at: int) -> Turn:
    return Turn("", text, at, tokens=3, summary=True)


async def test_a_summary_takes_the_place_of_the_oldest_turns(store: Inbox) -> None:
    taught = turns(5)
    await teach(store, "u1", *taught)
    await teach(store, "u2", *turns(2))
    old = (await store.turns("chat", "u1"))[:3]
    made = summary("q0, q1 and q2 \0\ud83d", at=2)
    assert await store.sum_up("chat", "u1", old, made)
    assert (await store.memory("chat", "u1", limit=9)).turns == (made, *taught[3:])
    assert len(await store.turns("chat", "u2")) == 2
    again = (await store.turns("chat", "u1"))[:2]
    assert await store.sum_up("chat", "u1", again, summary("and q3", at=3))
    await teach(store, "u1", turn("next"))
    kept = (await store.memory("chat", "u1", limit=9)).turns
    assert [one.assistant if one.summary else one.user for one in kept] == ["and q3", "q4", "next"]


async def test_of_two_that_sum_up_the_same_one_wins(store: Inbox, other: Inbox) -> None:
    for count in (1, 3):
        await store.forget("chat", "u1")
        await teach(store, "u1", *turns(4))
        old = (await store.turns("chat", "u1"))[:count]
        both = [one.sum_up("chat", "u1", old, summary(f"by {one}", at=2)) for one in (store, other)]
        assert sorted(await asyncio.gather(*both)) == [False, True]
        assert len(await store.turns("chat", "u1")) == 5 - count


async def test_a_summary_of_what_was_forgotten_is_not_stored(store: Inbox) -> None:
    """Not in the places that the next turns have, either: SQLite uses them again."""
    await teach(store, "u1", *turns(4))
    old = (await store.turns("chat", "u1"))[:3]
    await store.forget("chat", "u1")
    assert not await store.sum_up("chat", "u1", old, summary("gone", at=2))
    assert await store.turns("chat", "u1") == []
    new = [turn(f"new {n}") for n in range(4)]
    await teach(store, "u1", *new)
    assert not await store.sum_up("chat", "u1", old, summary("gone", at=2))
    assert (await store.memory("chat", "u1", limit=9)).turns == tuple(new)


async def test_a_summary_may_stay_when_turns_go(store: Inbox) -> None:
    await teach(store, "u1", *turns(4))
    old = (await store.turns("chat", "u1"))[:2]
    assert await store.sum_up("chat", "u1", old, summary("short", at=1))
    for number, keep_summary in ((4, True), (5, False)):
        await store.add(entry("u1"))
        new = turn(f"q{number}")
        said = answer(turn=new, keep_turns=2, keep_summary=keep_summary)
        claimed = await claim_one(store)
        await store.save_ending(claimed, said)
        await store.finish(claimed, delivered=True)
        kept = (await store.memory("chat", "u1", limit=9)).turns
        assert [one.summary for one in kept] == [True] * keep_summary + [False] * 2
        assert [one.user for one in kept][-2:] == [f"q{number - 1}", f"q{number}"]
