"""Full, locked, away: nobody waits long, nothing is lost, and it goes on by itself."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from service.errors import StoreBusy
from service.inbox import Change, Inbox, sqlite
from service.inbox import inbox as facade
from tests.inbox.conftest import Postgres
from tests.inbox.make import Clock, answer, claim, claim_one, entry, ids, play, turn


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


@pytest.fixture
async def embedded(file: Path) -> Any:
    async with Inbox(f"sqlite:///{file}") as store:
        yield store


async def limit_pages(store: Inbox, more: int | None) -> None:
    """A disk with room for `more` pages; None: as large as can be."""

    def work(link: Any) -> None:
        pages = link.driver.execute("PRAGMA page_count").fetchone()[0]
        limit = 1 << 30 if more is None else pages + more
        link.driver.execute(f"PRAGMA max_page_count={limit}")

    await store._engine._database.write(work)


async def test_full_disk(embedded: Inbox) -> None:
    kept = [entry(f"k{n}") for n in range(3)]
    for one in kept:
        await embedded.add(one)
    [claimed, *_] = await claim(embedded, 1)
    sqlite._PRAGMAS, pragmas = (*sqlite._PRAGMAS, "max_page_count=1"), sqlite._PRAGMAS
    try:  # so it stays full when the connection is made anew
        await limit_pages(embedded, 0)
        big = [entry(f"b{n}", message={"payload": b"x" * 100_000}) for n in range(5)]
        results = await asyncio.gather(*map(embedded.add, big), return_exceptions=True)
        assert all(isinstance(r, StoreBusy) for r in results)
        assert embedded.trouble is not None
        assert "full" in embedded.trouble
        with pytest.raises(StoreBusy):
            await embedded.save_ending(claimed, answer("y" * 1_000_000))
        assert ids(await embedded.requests()) == ids(kept[::-1])
    finally:
        sqlite._PRAGMAS = pragmas
    await limit_pages(embedded, None)
    for one in big:
        assert not (await embedded.add(one)).duplicate
    assert embedded.trouble is None
    assert await embedded.save_ending(claimed, answer("y" * 1_000_000))
    assert embedded.backlog == 8


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that tests of waiting need not wait."""
    pragmas = tuple(p for p in sqlite._PRAGMAS if not p.startswith("busy_timeout"))
    monkeypatch.setattr(sqlite, "_PRAGMAS", ("busy_timeout=50", *pragmas))


@pytest.fixture
def lock(file: Path) -> Iterator[sqlite3.Connection]:
    """Another program that can hold the write lock of the file."""
    connection = sqlite3.connect(file, isolation_level=None, timeout=10)
    yield connection
    connection.close()


@pytest.mark.usefixtures("impatient")
async def test_locked_by_another_program(embedded: Inbox, lock: sqlite3.Connection) -> None:
    await embedded.add(entry("u1"))
    claimed = await claim_one(embedded)
    lock.execute("BEGIN IMMEDIATE")
    for write in (
        embedded.add(entry("u2")),
        embedded.claim(["chat"], 1, "w", 1000),
        embedded.save_ending(claimed, answer()),
        embedded.ping(),
    ):
        with pytest.raises(StoreBusy, match="locked"):
            await write
    assert len(await embedded.requests()) == 1  # looking goes on
    lock.execute("COMMIT")
    await embedded.ping()
    assert await embedded.save_ending(claimed, answer())


async def test_an_add_is_answered_in_time(
    embedded: Inbox, lock: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the database takes. What comes late after all is not counted twice."""
    monkeypatch.setattr(facade, "ADD_TIMEOUT", 0.05)
    one = entry()
    lock.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy, match="in time"):
        await embedded.add(one)
    lock.execute("COMMIT")
    monkeypatch.undo()
    await embedded.ping()
    await embedded.add(one)
    assert len(await embedded.requests()) == 1
    assert embedded.backlog == 1


async def test_a_killed_transaction_leaves_nothing(embedded: Inbox, file: Path) -> None:
    """Reply, memory and release of the conversation come together, or not at all."""
    for _ in range(2):
        await embedded.add(entry("u1"))
    claimed = await claim_one(embedded)
    with sqlite3.connect(file) as saboteur:
        saboteur.execute(
            "CREATE TRIGGER no BEFORE UPDATE ON conversations BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    with pytest.raises(Exception, match="no"):
        await embedded.save_ending(claimed, answer(turn=turn(), keep_turns=3, cooldown_until=1))
    with sqlite3.connect(file) as saboteur:
        saboteur.execute("DROP TRIGGER no")
    saboteur.close()
    assert (await embedded.memory("chat", "u1", limit=3)).turns == ()
    row = await embedded.request(claimed.id)
    assert row is not None
    assert row.state == "answering"
    await play(embedded, claimed, turn=turn(), keep_turns=3)
    assert len((await embedded.memory("chat", "u1", limit=3)).turns) == 1


KILL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE pid <> pg_backend_pid() AND datname = '{}'"
)


@pytest.fixture
def replicated(postgres: Postgres, migrated: str) -> str:
    return postgres.fresh(migrated)


def name_of(url: str) -> str:
    return url.rpartition("/")[0] and url.split("?")[0].rpartition("/")[2]


async def test_postgres_cuts_all_connections(replicated: str, postgres: Postgres) -> None:
    """What was on its way is repeated: nobody notices."""
    async with Inbox(replicated) as store:
        for n in range(5):
            await asyncio.gather(*(store.add(entry(f"u{n}-{m}")) for m in range(20)))
            await asyncio.to_thread(postgres.run, KILL.format(name_of(replicated)))
            for claimed in await claim(store):
                await play(store, claimed)
        assert store.backlog == 0


async def test_postgres_cuts_connections_at_work(replicated: str, postgres: Postgres) -> None:
    entries = [entry(f"u{n % 50}") for n in range(400)]
    ended: list[str] = []
    async with Inbox(replicated) as store:

        async def keep(call: Any) -> Any:
            while True:
                try:
                    return await call()
                except StoreBusy:
                    await asyncio.sleep(0.01)

        async def work() -> None:
            while len(ended) < len(entries):
                for claimed in (await keep(lambda: store.claim(["chat"], 40, "w", 50))).requests:
                    if await keep(lambda c=claimed: store.save_ending(c, answer())) and await keep(
                        lambda c=claimed: store.finish(c, delivered=True)
                    ):
                        ended.append(claimed.id)
                await keep(store.reap)
                counts = (await keep(store.stats)).counts
                if not counts:
                    return

        async def cut() -> None:
            for _ in range(15):
                await asyncio.to_thread(postgres.run, KILL.format(name_of(replicated)))

        adds = [keep(lambda e=e: store.add(e)) for e in entries]
        await asyncio.wait_for(asyncio.gather(*adds, cut()), 60)
        await asyncio.wait_for(asyncio.gather(work(), cut()), 60)
        states = [row.state for row in await store.requests(limit=1000)]
        assert states == ["done"] * len(entries)


async def test_a_replica_that_stands_still_does_not_hold_the_others_up(
    replicated: str, clock: Clock
) -> None:
    """It stopped inside a transaction: the server ends that after a while."""
    from service.inbox.database import parse, postgres_arguments

    arguments = postgres_arguments(parse(replicated))
    async with Inbox(replicated, now=clock) as store:
        await store.add(entry("u1"))
        stopped = await asyncpg.connect(**arguments)
        gone = asyncio.Event()
        stopped.add_termination_listener(lambda _: gone.set())
        await stopped.execute("BEGIN")
        await stopped.execute("SELECT * FROM conversations FOR UPDATE")
        assert await claim(store) == []
        await stopped.execute("SET idle_in_transaction_session_timeout = 100")
        await gone.wait()
        await store.add(entry("u1"))
        assert len(await claim(store)) == 1


async def test_replicas_wake_each_other(replicated: str) -> None:
    woken, heard = asyncio.Event(), list[Change]()
    async with (
        Inbox(replicated, on_wake=woken.set, on_change=heard.extend) as here,
        Inbox(replicated) as there,
    ):
        await woken.wait()  # it listens
        woken.clear()
        one = entry()
        await there.add(one)
        await woken.wait()
        assert [(c.id, c.state) for c in heard] == [(one.id, "queued")]
        await play(here, await claim_one(here))
        assert [c.state for c in heard] == ["queued", "answering", "answered", "done"]


async def test_the_listener_comes_back(replicated: str, postgres: Postgres) -> None:
    woken = asyncio.Event()
    async with Inbox(replicated, on_wake=woken.set) as here, Inbox(replicated) as there:
        await woken.wait()
        woken.clear()
        await asyncio.to_thread(postgres.run, KILL.format(name_of(replicated)))
        await woken.wait()  # listening again: something may have been missed
        woken.clear()
        await there.add(entry())
        await woken.wait()
        assert len(await claim(here)) == 1
