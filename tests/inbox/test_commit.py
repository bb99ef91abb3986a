"""Group commit: shared transactions, and nobody taken down by another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from service.errors import StoreBusy, StoreError
from service.inbox import Inbox
from service.inbox.commit import MAX_ITEMS, GroupCommit
from service.inbox.transaction import Op
from tests.inbox.make import claim, claim_one, entry, ids, play


def step(tx: Any, items: Sequence[Any]) -> Sequence[Any]:
    raise AssertionError("the fake below answers itself")


class Database:
    """Answers each op with its item, once the gate is open."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()

    async def run(self, ops: list[Op]) -> Sequence[Any]:
        self.batches.append([op.item for op in ops])
        self.begun.set()
        await self.gate.wait()
        return [op.item for op in ops]


@pytest.fixture
def database() -> Database:
    return Database()


async def test_while_one_runs_the_next_gathers(database: Database) -> None:
    group = GroupCommit(database.run)
    first = group.submit(step, 1)
    await database.begun.wait()
    rest = [group.submit(step, n) for n in (2, 3, 4)]
    database.gate.set()
    assert await asyncio.gather(first, *rest) == [1, 2, 3, 4]
    assert database.batches == [[1], [2, 3, 4]]
    await group.close()


async def test_whom_the_same_event_wakes_comes_along(database: Database) -> None:
    """So a claim is in the transaction that stores what it claims."""
    group = GroupCommit(database.run)
    database.gate.set()
    stored = asyncio.Event()

    async def claim() -> Any:
        await stored.wait()
        return await group.submit(step, "claim")

    claiming = asyncio.create_task(claim())
    await asyncio.sleep(0)
    adding = group.submit(step, "add")
    stored.set()
    assert await asyncio.gather(adding, claiming) == ["add", "claim"]
    assert database.batches == [["add", "claim"]]


async def test_a_waiting_worker_claims_in_the_transaction_that_stores(tmp_path: Any) -> None:
    woken = asyncio.Event()
    commits = []
    async with Inbox(
        f"sqlite:///{tmp_path / 'inbox.db'}",
        on_wake=woken.set,
        on_change=lambda changes: commits.append([change.state for change in changes]),
    ) as store:

        async def work() -> Any:
            await woken.wait()
            return await claim_one(store)

        working = asyncio.create_task(work())
        await asyncio.sleep(0)
        one = entry()
        await store.add(one)
        assert (await working).id == one.id
        assert commits == [["queued", "answering"]]


async def test_a_lone_one_does_not_wait(database: Database) -> None:
    group = GroupCommit(database.run)
    database.gate.set()
    assert await group.submit(step, 1) == 1
    assert await group.submit(step, 2) == 2
    assert database.batches == [[1], [2]]


async def test_batches_are_bounded_by_number_and_weight(database: Database) -> None:
    group = GroupCommit(database.run)
    database.gate.set()
    await asyncio.gather(*(group.submit(step, n) for n in range(MAX_ITEMS + 1)))
    await asyncio.gather(*(group.submit(step, n, weight=6 << 20) for n in range(4)))
    assert [len(batch) for batch in database.batches] == [MAX_ITEMS, 1, 3, 1]


async def test_a_cancelled_caller_takes_nobody_down(database: Database) -> None:
    """And what it had submitted is done all the same."""
    group = GroupCommit(database.run)
    callers = [asyncio.ensure_future(_wait(group, n)) for n in range(3)]
    await database.begun.wait()
    callers[1].cancel()
    database.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert results[0::2] == [0, 2]
    assert isinstance(results[1], asyncio.CancelledError)
    assert database.batches == [[0, 1, 2]]


async def _wait(group: GroupCommit, item: Any) -> Any:
    return await group.submit(step, item)


async def test_who_must_answer_gets_an_error_in_time(database: Database) -> None:
    group = GroupCommit(database.run)
    running = group.submit(step, "running", timeout=0.01)
    await database.begun.wait()
    waiting = group.submit(step, "waiting", timeout=0.01)
    patient = group.submit(step, "patient")
    for late in (running, waiting):
        with pytest.raises(StoreBusy):
            await late
    database.gate.set()
    assert await patient == "patient"
    assert database.batches == [["running"], ["patient"]]  # not begun: not done


async def test_close_finishes_what_was_submitted(database: Database) -> None:
    group = GroupCommit(database.run)
    futures = [group.submit(step, n) for n in range(3)]
    database.gate.set()
    await group.close()
    assert [await future for future in futures] == [0, 1, 2]
    with pytest.raises(StoreBusy):
        await group.submit(step, 4)


async def test_a_refused_row_fails_alone(store: Inbox) -> None:
    """It should not exist; if it does, its neighbours are stored."""
    first, last = entry("u1"), entry("u2")
    twin = entry("u3", id=first.id)  # another message under an id that is taken
    results = await asyncio.gather(
        *map(store.add, [first, twin, last]), store.forget("chat", "x"), return_exceptions=True
    )
    assert isinstance(results[1], StoreError)
    assert not isinstance(results[1], StoreBusy)
    assert [getattr(r, "duplicate", r) for r in results] == [False, results[1], False, 0]
    assert ids(await claim(store)) == [first.id, last.id]


async def test_a_cancelled_add_is_stored_or_not_but_whole(store: Inbox) -> None:
    entries = [entry(f"u{n}") for n in range(20)]
    tasks = [asyncio.ensure_future(store.add(one)) for one in entries]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert not any(isinstance(r, Exception) for r in results[1::2])
    stored = set(ids(await store.requests(limit=100)))
    assert stored >= set(ids(entries[1::2]))
    assert len(await claim(store)) == len(stored)


async def test_a_cancelled_look_harms_nobody(store: Inbox) -> None:
    await store.add(entry())
    for look in (store.stats, store.requests, store.reap) * 5:
        task = asyncio.ensure_future(look())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(await store.requests()) == 1
    assert (await store.stats()).open == 1


async def test_closing_does_not_lose_what_was_submitted(opened: Any, store: Inbox) -> None:
    leaving: Inbox = await opened()
    entries = [entry(f"u{n}") for n in range(50)]
    tasks = [asyncio.ensure_future(leaving.add(one)) for one in entries]
    await asyncio.sleep(0)
    await leaving.close()
    assert [(await task).duplicate for task in tasks] == [False] * 50
    assert len(await claim(store)) == 50
    with pytest.raises(StoreBusy):
        await leaving.add(entry())


async def test_a_faulty_listener_harms_nobody(
    opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def listen(_: object) -> None:
        raise RuntimeError("page is broken")

    store: Inbox = await opened(on_change=listen)
    await store.add(entry())
    assert await claim_one(store)
    assert "page is broken" in caplog.text


async def test_wakes_whoever_claims(opened: Any) -> None:
    woken: list[int] = []
    store: Inbox = await opened(on_wake=lambda: woken.append(1))
    before = len(woken)
    await store.add(entry())
    assert len(woken) > before
    claimed = await claim_one(store)
    await store.add(entry())
    before = len(woken)
    await play(store, claimed)
    assert len(woken) > before
