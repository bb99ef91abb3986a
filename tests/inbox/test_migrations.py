"""Databases of older versions: brought up to date, and what waits in them is answered."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import BigInteger, Column, Connection, create_engine, inspect, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from service.domain import Entry, State
from service.inbox import Inbox, migrations
from service.inbox.sql_tables import metadata, version
from tests.inbox.conftest import Postgres
from tests.inbox.make import FLOWS, Clock, answer, claim
from tests.inbox.version1.make import NOW, ODD

T = TypeVar("T")
FIRST = Path(__file__).parent / "version1"


@pytest.fixture
def version1(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A database that the first version made, with requests in every state."""
    if kind == "sqlite":
        file = tmp_path / "inbox.db"
        shutil.copy(FIRST / "inbox.sqlite", file)
        return f"sqlite:///{file}"
    server: Postgres = request.getfixturevalue("postgres")
    url = server.fresh()
    server.run((FIRST / "inbox.sql").read_text(), url.split("?")[0].rpartition("/")[2])
    return url


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version with columns of its own: all it takes is this."""
    columns = migrations.add_columns(
        "requests",
        Column("spare", BigInteger),
        Column("other", BigInteger),
        Column("more", BigInteger),
    )

    def index(connection: Connection) -> None:
        connection.execute(text("CREATE INDEX requests_spare ON requests (spare)"))

    monkeypatch.setitem(migrations.VERSIONS, "9999", (columns, index))


async def look(url: str, work: Callable[[Connection], T]) -> T:
    """Through a connection of its own."""
    if url.startswith("sqlite"):
        engine = create_engine(url)
        try:
            with engine.connect() as connection:
                return work(connection)
        finally:
            engine.dispose()
    remote = create_async_engine("postgresql+asyncpg" + url.removeprefix("postgresql"))
    try:
        async with remote.connect() as connection:
            return await connection.run_sync(work)
    finally:
        await remote.dispose()


def version_of(connection: Connection) -> str | None:
    return connection.execute(select(version.c.version_num)).scalar()


async def all_are_answered(url: str, store: Inbox, clock: Clock) -> None:
    """Each request of `version1` comes to its end, in its order, with all it had."""
    assert store.backlog == 8
    assert (await store.memory("chat", "u1", limit=5)).turns[0].assistant == "answered"
    assert (await store.memory("chat", "u3", limit=5)).cooldown_until == NOW + 9
    assert await store.reap(all_leases=True) == 2
    [orphan] = await store.unresolved(["later"], 10)
    found = Entry(
        "x", "later", "x", "u", False, orphan.message, orphan.accepted_at, orphan.deadline
    )
    assert await store.adopt(orphan.seq, found)
    assert await store.retry("failed", clock.now + 10**6)
    assert not await store.retry("done", clock.now)
    clock.pass_(5000)
    answered: dict[str, Any] = {}
    while held := await claim(store, flows=(*FLOWS, "later")):
        for one in held:
            answered[one.id] = one
            assert one.state is State.ANSWERED or await store.save_ending(one, answer())
            assert await store.finish(one, delivered=True)
    order = list(answered)
    assert set(order) == {
        *("answered", "odd", "answering", "stepped", "next", "queued", "unordered", "unresolved"),
        "failed",
    }
    assert order.index("next") < order.index("answering")
    assert answered["answered"].outbox[0].payload.decode("utf-8", "surrogatepass") == ODD
    assert answered["stepped"].steps == ({"calls": [{"id": "1", "result": ODD}]},)
    odd = answered["odd"]
    assert (odd.conversation, odd.message.payload, odd.tries) == (ODD, b"\0\xff", 1)
    assert odd.attempts[0].message == ODD
    assert odd.message.user_properties == (("a", ODD),)
    assert odd.message.correlation == b"\0\xff"
    ends = {row.id: row.state for row in await store.requests()}
    assert ends.pop("ignored") is State.IGNORED
    assert ends.pop("expired") is State.EXPIRED
    assert set(ends.values()) == {State.DONE}
    assert len(ends) == 10
    assert store.backlog == 0


async def test_a_database_of_the_first_version_is_answered(version1: str) -> None:
    clock = Clock(NOW + 1)
    async with Inbox(version1, now=clock) as store:
        await all_are_answered(version1, store, clock)


@pytest.mark.usefixtures("next_version")
async def test_a_database_is_brought_to_the_next_version(version1: str) -> None:
    clock = Clock(NOW + 1)
    async with Inbox(version1, now=clock) as store:
        assert await look(version1, version_of) == "9999"
        assert await look(version1, columns_and_indexes) >= {"spare", "more", "requests_spare"}
        await all_are_answered(version1, store, clock)
    async with Inbox(version1, now=clock):  # once
        pass


def columns_and_indexes(connection: Connection) -> set[str | None]:
    seen = inspect(connection)
    columns = {column["name"] for column in seen.get_columns("requests")}
    return columns | {index["name"] for index in seen.get_indexes("requests")}


def schema(connection: Connection) -> set[Any]:
    """Every column and index, however it came to be."""
    if connection.dialect.name == "sqlite":
        columns = (
            "SELECT m.name, c.name, c.type, c.\"notnull\", c.pk, '' FROM sqlite_master m"
            " JOIN pragma_table_xinfo(m.name) c WHERE m.type = 'table'"
        )
        indexes = "SELECT tbl_name, name, coalesce(sql, ''), '', '', '' FROM sqlite_master"
        query = f"{columns} UNION ALL {indexes} WHERE type = 'index'"
    else:
        columns = (
            "SELECT table_name, column_name, data_type, is_nullable, collation_name,"
            " coalesce(column_default, '') FROM information_schema.columns"
            " WHERE table_schema = 'public'"
        )
        indexes = "SELECT tablename, indexname, indexdef, '', '', '' FROM pg_indexes"
        query = f"{columns} UNION ALL {indexes} WHERE schemaname = 'public'"
    return {tuple(" ".join(str(v).split()) for v in row) for row in connection.execute(text(query))}


async def test_an_old_database_comes_to_the_tables_of_a_new_one(version1: str, url: str) -> None:
    async with Inbox(version1), Inbox(url):
        assert await look(version1, schema) == await look(url, schema)


def test_each_table_is_known() -> None:
    names = {"requests", "conversations", "turns", "counters", "emqx_gpt_version"}
    names |= {"acts", "paused", "jobs", "rollup", "readings", "ticks", "last_values"}
    names |= {"waits"}
    assert set(metadata.tables) == names


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_failed_step_leaves_the_database_as_it_was(
    version1: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE requests ADD COLUMN half BIGINT"))
        raise OSError("no more room")

    monkeypatch.setitem(migrations.VERSIONS, "9999", (fail,))
    with pytest.raises(Exception, match="no more room"):
        await Inbox(version1).open()
    monkeypatch.undo()
    assert "half" not in await look(version1, columns_and_indexes)
    clock = Clock(NOW + 1)
    async with Inbox(version1, now=clock) as store:
        await all_are_answered(version1, store, clock)
