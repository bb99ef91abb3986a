"""What comes in: stored once, whatever it is made of; dead letters; flows found later."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.domain import Message, State
from service.inbox import Added, Change, Inbox
from tests.inbox.make import DAY, Clock, answer, claim, claim_one, ended, entry, ids, loose, play

LONE = "\ud83d"


async def test_added_is_stored_and_told(store: Inbox, changes: list[Change]) -> None:
    one = entry()
    assert await store.add(one) == Added(one.id, duplicate=False)
    assert store.backlog == 1
    assert changes == [Change(one.id, "chat", "u1", State.QUEUED)]
    row = await store.request(one.id)
    assert row is not None
    assert (row.message, row.state, row.deadline) == (one.message, State.QUEUED, one.deadline)


async def test_same_message_twice_is_one_request(store: Inbox, other: Inbox) -> None:
    first = entry()
    again = entry(dedupe=first.dedupe)
    await store.add(first)
    assert await store.add(again) == Added(first.id, duplicate=True)
    assert await other.add(again) == Added(first.id, duplicate=True)
    assert len(await store.requests()) == 1
    assert store.backlog == 1


async def test_same_message_twice_in_one_batch(store: Inbox) -> None:
    first = entry()
    copies = [entry(dedupe=first.dedupe) for _ in range(3)]
    results = await asyncio.gather(*map(store.add, [first, *copies, entry()]))
    assert [r.duplicate for r in results] == [False, True, True, True, False]
    assert {r.id for r in results[:4]} == {first.id}


async def test_same_message_to_two_processes_at_once(store: Inbox, other: Inbox) -> None:
    pairs = [(one := entry(f"u{n % 5}"), entry(dedupe=one.dedupe)) for n in range(60)]
    here = (store.add(one) for one, _ in pairs)
    there = (other.add(copy) for _, copy in reversed(pairs))
    results = await asyncio.gather(*here, *there)
    assert sum(not r.duplicate for r in results) == 60
    assert len(await store.requests(limit=200)) == 60


async def test_dedupe_counts_within_a_flow(store: Inbox) -> None:
    results = [await store.add(entry(dedupe="x")), await store.add(loose(dedupe="x"))]
    assert [r.duplicate for r in results] == [False, False]


async def test_a_duplicate_of_an_ended_request_does_not_stir_its_conversation(
    store: Inbox,
) -> None:
    one = entry()
    await store.add(one)
    await play(store, await claim_one(store))
    await store.add(one)
    assert await claim(store) == []


POISON = {
    "nul": "a\0b",
    "surrogate": f"a{LONE}b",
    "long": "x" * 100_000,
    "both": f"\0{LONE}" * 3000,
    "wide": "語" * 2000,
    "empty": "",
    "like a hash": "sha256:" + "0" * 64,
    "percent": "%s %(id)s :id ? ' \" \\",
}


@pytest.mark.parametrize("text", POISON.values(), ids=list(POISON))
async def test_no_text_is_refused(store: Inbox, text: str) -> None:
    """In every place that a device, or a model, can reach."""
    one = entry(
        conversation=text,
        dedupe=text,
        message={
            "id": text,
            "topic": text,
            "payload": text.encode("utf-8", "surrogatepass"),
            "flow": text,
            "clientid": text,
            "username": text,
            "response_topic": text,
            "content_type": text,
            "user_properties": ((text, text), (text, "")),
        },
    )
    assert not (await store.add(one)).duplicate
    assert (await store.add(one)).duplicate
    claimed = await claim_one(store)
    assert (claimed.message, claimed.conversation) == (one.message, text)
    assert await store.checkpoint(claimed, [{"call": text}])
    taught = answer(text, turn=None, error_message=text, error_code=text, model=text)
    assert await store.save_ending(claimed, taught)
    assert await store.finish(claimed, delivered=False, error_code=text, error_message=text)
    row = await store.request(one.id)
    assert row is not None
    assert (row.reply, row.conversation, row.outbox) == (text, text, taught.outbox)
    assert row.steps == ({"call": text},)
    assert ids(await store.requests(flow="chat", conversation=text)) == [one.id]


@pytest.mark.parametrize("number", [2**63, -(2**63), 2**200, -(2**200), 0])
async def test_no_number_is_refused(store: Inbox, number: int) -> None:
    one = entry(deadline=number, message={"received_at": number, "expiry": number})
    await store.add(one)
    assert ids(await claim(store)) == [one.id]


async def test_no_payload_is_refused(store: Inbox) -> None:
    payloads = [b"", bytes(range(256)), b"\0" * (1 << 20), b"\xff" * (1 << 20)]
    entries = [entry(f"u{n}", message={"payload": p}) for n, p in enumerate(payloads)]
    await asyncio.gather(*map(store.add, entries))
    claimed = {c.id: c.message.payload for c in await claim(store)}
    assert [claimed[e.id] for e in entries] == payloads


async def test_cleaned_names_do_not_meet(store: Inbox) -> None:
    """Keys that look alike once cleaned are still different conversations and messages."""
    names = ["a\0b", "a\u2400b", f"a{LONE}b", "a\ufffdb", "x" * 300, "x" * 301]
    entries = [entry(conversation=name, dedupe=name) for name in names]
    added = await asyncio.gather(*map(store.add, entries))
    assert not any(a.duplicate for a in added)
    assert sorted(c.conversation for c in await claim(store)) == sorted(names)


async def test_all_of_a_message_comes_back(store: Inbox) -> None:
    fields: dict[str, Any] = {
        "flow": "chat",
        "clientid": "c1",
        "username": "bob",
        "qos": 2,
        "retained": True,
        "response_topic": "back/here",
        "correlation": b"\x00\xff",
        "content_type": "text/plain",
        "expiry": 60,
        "user_properties": (("a", "1"), ("a", "2")),
    }
    one = entry(message=fields, publish=False)
    await store.add(one)
    claimed = await claim_one(store)
    assert claimed.message == one.message
    assert isinstance(claimed.message, Message)
    assert claimed.publish is False


async def test_retry_puts_a_dead_letter_at_the_end(store: Inbox, clock: Clock) -> None:
    dead, second, third = entry(), entry(), entry(message={"received_at": clock.now + 10**9})
    for one in (dead, second, third):
        await store.add(one)
    claimed = await claim_one(store)
    await store.save_ending(claimed, ended(State.FAILED, error_code="x", error_message="no"))
    assert await store.retry(dead.id, clock.now + 5 * DAY)
    assert store.backlog == 3
    order = []
    for _ in range(3):
        claimed = await claim_one(store)
        order.append(claimed.id)
        await play(store, claimed)
    assert order == [second.id, third.id, dead.id]
    row = await store.request(dead.id)
    assert row is not None
    assert (row.state, row.deadline, row.error_code) == (State.DONE, clock.now + 5 * DAY, None)


async def test_retry_wants_a_dead_letter(store: Inbox, clock: Clock) -> None:
    one, two = entry(), entry()
    await store.add(one)
    assert not await store.retry(one.id, clock.now + DAY)
    await play(store, await claim_one(store))
    assert not await store.retry(one.id, clock.now + DAY)
    assert not await store.retry("nobody", clock.now + DAY)
    await store.add(two)
    await store.save_ending(await claim_one(store), ended(State.EXPIRED))
    assert await store.retry(two.id, clock.now + DAY)
    assert not await store.retry(two.id, clock.now + DAY)


async def test_retry_of_a_loose_one(store: Inbox, clock: Clock) -> None:
    one = loose()
    await store.add(one)
    await store.save_ending(await claim_one(store), ended(State.FAILED))
    assert await store.retry(one.id, clock.now + DAY)
    assert (await claim_one(store)).id == one.id


def unknown(name: str | None, **fields: Any) -> Any:
    """As a process stores it that does not know its flow."""
    return entry("", flow=None, ordered=False, message={"flow": name}, **fields)


async def test_unknown_flow_waits_for_who_knows_it(store: Inbox, clock: Clock) -> None:
    mine, foreign, nameless = unknown("new"), unknown("other"), unknown(None)
    for one in (mine, foreign, nameless):
        await store.add(one)
    assert await claim(store) == []
    found = await store.unresolved(["new"], 10)
    assert sorted(ids(found)) == sorted([mine.id, nameless.id])
    [seq] = [f.seq for f in found if f.id == mine.id]
    resolved = entry("u7", flow="new", id=mine.id, dedupe=mine.dedupe, message={"flow": "new"})
    assert await store.adopt(seq, resolved)
    assert not await store.adopt(seq, resolved)
    claimed = await claim_one(store, ["new"])
    assert (claimed.id, claimed.flow, claimed.conversation) == (mine.id, "new", "u7")
    assert claimed.ordered


async def test_unresolved_shows_the_nameless_page_by_page(store: Inbox) -> None:
    entries = [unknown(None) for _ in range(5)]
    for one in entries:
        await store.add(one)
    pages = [ids(await store.unresolved(["new"], 2)) for _ in range(4)]
    expected = ids(entries)
    assert pages == [expected[:2], expected[2:4], expected[4:], expected[:2]]


async def test_redelivery_to_one_that_knows_the_flow_is_a_duplicate(store: Inbox) -> None:
    """A rolling update: the old process stored it without a flow, the new one gets it again."""
    old = unknown("new")
    await store.add(old)
    again = entry("u1", flow="new", dedupe=old.dedupe)
    assert await store.add(again) == Added(old.id, duplicate=True)


async def test_adopted_twice_under_another_dedupe_key_ends_ignored(store: Inbox) -> None:
    old, new = unknown("new"), entry("u1", flow="new", dedupe="own key")
    await store.add(old)
    await store.add(new)
    [found] = await store.unresolved(["new"], 10)
    assert not await store.adopt(found.seq, entry("u1", flow="new", dedupe="own key"))
    row = await store.request(old.id)
    assert row is not None
    assert (row.state, row.error_code) == (State.IGNORED, "duplicate")
    assert store.backlog == 1


async def test_nobody_knew_the_flow_until_the_deadline(store: Inbox, clock: Clock) -> None:
    one = unknown("gone", deadline=clock.now + 1000)
    await store.add(one)
    claims = await store.claim(["chat"], 5, "w", 1000)
    assert (claims.requests, claims.next_due) == ([], clock.now + 1000)
    clock.pass_(1000)
    claimed = await claim_one(store)
    assert (claimed.id, claimed.flow, claimed.message.flow) == (one.id, None, "gone")
    assert await store.save_ending(claimed, ended(State.FAILED, error_code="flow_unknown"))
    assert store.backlog == 0


async def test_backlog_is_known_after_a_restart(store: Inbox, opened: Any) -> None:
    await asyncio.gather(*(store.add(entry()) for _ in range(7)))
    assert (await opened()).backlog == 7
