"""Waits for devices and people: what counts, who is woken, and that nobody is missed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from service.answering.tool_answers import judge_of
from service.domain import Claimed, Ear, Message, State, Wait
from service.inbox import Close, Hear, Heard, Inbox, Verdict, Word
from tests.inbox.make import LEASE, Clock, claim, claim_one, ended, entry, loose

pytestmark = pytest.mark.usefixtures("store")


def wait(
    call_id: str, topic: str = "lamp/state", ear: Ear = Ear.ANSWER, until: int = 2**50
) -> Wait:
    return Wait(call_id, ear, topic, until, {"told": True})


def first(payload: bytes, word: Word = Word.ANSWER) -> object:
    """Judges that the oldest open wait is meant, else the newest closed one."""

    def judge(heard: Sequence[Heard]) -> Mapping[int, Verdict]:
        if not heard:
            return {}
        open_ = [at for at, one in enumerate(heard) if one.open]
        return {(open_[0] if open_ else len(heard) - 1): Verdict(word, payload)}

    return judge


async def parked(store: Inbox, clock: Clock, make=loose, *, until: int = 2**50, **more) -> Claimed:  # type: ignore[no-untyped-def]
    await store.add(make(**more))
    claimed = await claim_one(store)
    assert await store.checkpoint(claimed, [{"calls": []}], begun=[wait(claimed.id)])
    assert await store.park(
        claimed, until=until, waiting_for=[(claimed.id, Ear.ANSWER)], steps=[{"calls": []}]
    )
    return claimed


async def test_it_sleeps_in_nobodys_hands_and_wakes_for_its_answer(
    store: Inbox, clock: Clock
) -> None:
    claimed = await parked(store, clock)
    row = await store.request(claimed.id)
    assert row is not None
    assert row.state is State.WAITING
    assert await claim(store) == []
    said = await store.hear(Hear(first(b"on"), clock.now, topic="lamp/state"))
    assert [(heard.request, verdict.word) for heard, verdict in said] == [(claimed.id, Word.ANSWER)]
    again = await claim_one(store)
    assert (again.id, again.state, again.steps) == (claimed.id, State.ANSWERING, ({"calls": []},))
    [known] = await store.waits_of(claimed.seq)
    assert (known.answer, known.answered_at, known.by) == (b"on", clock.now, "device")


async def test_an_answer_before_it_sleeps_keeps_it_awake(store: Inbox, clock: Clock) -> None:
    await store.add(loose())
    claimed = await claim_one(store)
    await store.checkpoint(claimed, [], begun=[wait(claimed.id)])
    await store.hear(Hear(first(b"on"), clock.now, topic="lamp/state"))
    await store.park(
        claimed, until=2**50, waiting_for=[(claimed.id, Ear.ANSWER)], steps=[{"calls": []}]
    )
    assert (await claim_one(store)).id == claimed.id


async def test_it_wakes_when_its_time_is_over(store: Inbox, clock: Clock) -> None:
    claimed = await parked(store, clock, until=clock.now + 5000)
    claims = await store.claim(["alarm"], 9, "worker", LEASE)
    assert claims.requests == []
    assert claims.next_due == clock.now + 5000
    clock.now += 5000
    assert (await claim_one(store)).id == claimed.id


async def test_its_conversation_waits_with_it(store: Inbox, clock: Clock) -> None:
    claimed = await parked(store, clock, entry)
    await store.add(entry())
    assert await claim(store) == []
    await store.hear(Hear(first(b"on"), clock.now, topic="lamp/state"))
    woken = await claim_one(store)
    assert woken.id == claimed.id
    await store.save_ending(woken, ended())
    assert (await claim_one(store)).id != claimed.id


async def test_of_two_answers_the_first_counts_and_the_other_is_noted(
    store: Inbox, clock: Clock
) -> None:
    claimed = await parked(store, clock)
    early, late = (
        store.hear(Hear(first(b"first"), clock.now - 2, topic="lamp/state")),
        store.hear(Hear(first(b"second"), clock.now - 1, topic="lamp/state")),
    )
    await asyncio.gather(late, early)  # in one transaction: by when they were said
    [known] = await store.waits_of(claimed.seq)
    assert (known.answer, known.late) == (b"first", 1)


async def test_what_is_closed_hears_nothing_more(store: Inbox, clock: Clock) -> None:
    await store.add(loose())
    claimed = await claim_one(store)
    await store.checkpoint(claimed, [], begun=[wait(claimed.id)])
    await store.checkpoint(claimed, [], closed=[Close(claimed.id, Ear.ANSWER, "timeout")])
    await store.hear(Hear(first(b"on"), clock.now, topic="lamp/state"))
    [known] = await store.waits_of(claimed.seq)
    assert (known.answer, known.late, known.by) == (None, 1, "timeout")


async def test_a_word_about_a_request_finds_its_waits(store: Inbox, clock: Clock) -> None:
    claimed = await parked(store, clock)
    assert await store.hear(Hear(first(b"yes"), clock.now, id="nobody")) == []
    await store.hear(Hear(first(b"yes"), clock.now, id=claimed.id))
    assert (await claim_one(store)).id == claimed.id


async def test_waits_go_with_their_request(store: Inbox, clock: Clock) -> None:
    claimed = await parked(store, clock, until=clock.now)
    again = await claim_one(store)
    await store.save_ending(again, ended(State.FAILED))
    assert await store.retry(claimed.id, clock.now + 10_000)
    assert await store.waits_of(claimed.seq) == []
    asked = await claim_one(store)
    await store.checkpoint(asked, [], begun=[wait(claimed.id)])
    await store.save_ending(asked, ended())
    assert await store.remove(claimed.id)
    assert await store.waits_of(claimed.seq) == []


async def test_a_race_misses_nobody(store: Inbox, other: Inbox, clock: Clock) -> None:
    """Going to sleep and the answer at once, from two processes: it is awake afterwards."""
    for _ in range(40):
        await store.add(loose())
        claimed = await claim_one(store)
        await store.checkpoint(claimed, [], begun=[wait(claimed.id, f"t/{claimed.id}")])
        topic = f"t/{claimed.id}"
        await asyncio.gather(
            store.park(
                claimed, until=2**50, waiting_for=[(claimed.id, Ear.ANSWER)], steps=[{"calls": []}]
            ),
            other.hear(Hear(first(b"on"), clock.now, topic=topic)),
        )
        woken = await claim_one(store)
        assert woken.id == claimed.id
        await store.save_ending(woken, ended())


async def test_a_dead_process_loses_no_wait(store: Inbox, clock: Clock) -> None:
    claimed = await parked(store, clock)
    await store.hear(Hear(first(b"on"), clock.now, topic="lamp/state"))
    await claim_one(store)
    await store.reap(all_leases=True)
    assert [one.id for one in await claim(store)] == [claimed.id]


async def test_an_answer_that_names_its_call_is_heard_however_many_others_wait(store, clock):
    await store.add(loose())
    claimed = await claim_one(store)
    begun = [Wait(f"c{n}", Ear.ANSWER, "answers", 2**50, {"told": True}) for n in range(600)]
    await store.checkpoint(claimed, [{"calls": []}], begun=begun)
    said = Message("m", "answers", b'{"call_id": "c599"}', clock.now)
    judge = judge_of(said, {}, clock.now)
    found = await store.hear(Hear(judge, clock.now, topic="answers", call_id="c599"))
    assert [heard.wait.call_id for heard, verdict in found] == ["c599"]
