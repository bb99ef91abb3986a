"""Opening: made or brought up to date once, refused with one clear line, never harmed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Connection,
    inspect,
    text,
    update,
)
from sqlalchemy.ext.asyncio import create_async_engine

from service.errors import StoreUnusable
from service.inbox import Inbox, migrations, sqlite
from service.inbox.sql_tables import version
from tests.inbox.conftest import Postgres
from tests.inbox.make import entry

HERE = Path(__file__).parents[2]


async def refusal(url: str) -> str:
    store = Inbox(url)
    with pytest.raises(StoreUnusable) as caught:
        await store.open()
    await store.close()
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("", "not a database URL"),
        ("emqx-gpt.db", "not a database URL"),
        ("mysql://u:secret@h/d", "unknown scheme"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("sqlite://file.db", "three slashes"),
        ("sqlite:///x.db?mode=ro", "no options"),
        ("postgresql://u:secret@h/d?nonsense=1", "nonsense"),
        ("postgresql://u:secret@h:port/d", "not a database URL"),
    ],
)
def test_urls_that_can_not_be_used(url: str, word: str) -> None:
    with pytest.raises(StoreUnusable, match=word) as caught:
        Inbox(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+aiosqlite"])
async def test_a_relative_file(scheme: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    async with Inbox(f"{scheme}:///here.db") as store:
        await store.add(entry())
    assert (tmp_path / "here.db").exists()
    async with Inbox(f"{scheme}:///here.db") as store:
        assert store.backlog == 1


def modes(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


async def test_a_new_file_is_for_our_eyes_only(tmp_path: Path) -> None:
    path = tmp_path / "inbox.db"
    async with Inbox(f"sqlite:///{path}") as store:
        await store.add(entry())
        assert set(modes(tmp_path).values()) == {0o600}
        assert len(modes(tmp_path)) > 1
    assert list(modes(tmp_path)) == ["inbox.db"]  # the rest is in it


async def test_sqlite_is_durable(tmp_path: Path) -> None:
    async with Inbox(f"sqlite:///{tmp_path / 'inbox.db'}") as store:

        def look(link: Any) -> list[Any]:
            names = ("journal_mode", "synchronous", "foreign_keys")
            return [link.driver.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

        database = store._engine._database
        assert await database.write(look) == ["wal", 2, 1]
        await store.claim(["chat"], 1, "w", 1)
        assert await database.write(look, must_last=False) == ["wal", 1, 1]
        assert await database.write(look) == ["wal", 2, 1]


async def test_the_log_is_checkpointed_beside_the_writer(tmp_path: Path, monkeypatch: Any) -> None:
    pragmas = [one for one in sqlite._PRAGMAS if "autocheckpoint" not in one]
    monkeypatch.setattr(sqlite, "_PRAGMAS", (*pragmas, "wal_autocheckpoint=0"))
    monkeypatch.setattr(sqlite, "_CHECKPOINT_EVERY", 0.0)
    path = tmp_path / "inbox.db"
    async with Inbox(f"sqlite:///{path}") as store:
        before = path.stat().st_size
        async with asyncio.timeout(20):
            while path.stat().st_size < before + 500_000:
                await store.add(entry(message={"payload": b"x" * 50_000}))
                await asyncio.sleep(0)


async def test_files_that_can_not_be_used(tmp_path: Path) -> None:
    assert "does not exist" in await refusal(f"sqlite:///{tmp_path / 'no' / 'inbox.db'}")
    assert "is a directory" in await refusal(f"sqlite:///{tmp_path}")
    text_file = tmp_path / "notes.txt"
    text_file.write_text("dear diary, " * 100)
    assert "not a SQLite database" in await refusal(f"sqlite:///{text_file}")
    assert text_file.read_text() == "dear diary, " * 100


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_file_we_may_not_write(tmp_path: Path) -> None:
    path = tmp_path / "inbox.db"
    async with Inbox(f"sqlite:///{path}"):
        pass
    path.chmod(0o400)
    assert "readonly" in await refusal(f"sqlite:///{path}")


def fingerprint(path: Path) -> tuple[list[str], str]:
    names = sorted(file.name for file in path.parent.iterdir())
    return names, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("mark", [0, 77])
async def test_another_programs_file_is_left_alone(tmp_path: Path, mark: int) -> None:
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA application_id={mark}")
        connection.execute(f"CREATE TABLE {'requests' if mark else version.name} (x)")
    connection.close()
    before = fingerprint(path)
    assert "another program" in await refusal(f"sqlite:///{path}")
    assert fingerprint(path) == before


async def test_another_programs_database_is_left_alone(postgres: Postgres) -> None:
    url = postgres.fresh()
    engine = create_async_engine("postgresql+asyncpg" + url.removeprefix("postgresql"))
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE requests (x int)"))
    assert "another program" in await refusal(url)
    async with engine.begin() as connection:
        assert await connection.run_sync(lambda c: inspect(c).get_table_names()) == ["requests"]
    await engine.dispose()


async def set_version(url: str, name: str) -> None:
    store = Inbox(url)
    await store.open()
    async with asyncio.timeout(10):
        await store._engine._database.write(
            lambda link: link.execute(update(version).values(version_num=name))
        )
    await store.close()


async def test_a_newer_database_is_refused(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'inbox.db'}"
    if kind == "postgresql":
        url = request.getfixturevalue("postgres").fresh()
    await set_version(url, "9999")
    message = await refusal(url)
    assert "newer" in message
    assert "9999" in message


async def test_postgres_away_or_wrong(postgres: Postgres, tmp_path: Path) -> None:
    where = postgres.uri("postgres").partition("?")[2]
    assert "nobody" in await refusal(f"postgresql://nobody:secret@/postgres?{where}")
    assert "nowhere" in await refusal(f"postgres://postgres:secret@/nowhere?{where}")
    for url in (
        f"postgresql://u:secret@/d?host={tmp_path}",
        "postgresql://u:secret@127.0.0.1:1/d",
        "postgresql://u:secret@host.invalid/d",
    ):
        assert "secret" not in await refusal(url)


async def test_postgres_in_another_encoding(postgres: Postgres) -> None:
    postgres.run("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    assert "create it with UTF8" in await refusal(postgres.uri("latin"))


_OPEN = """
import asyncio, sys
from service.inbox import Inbox
async def main():
    async with Inbox(sys.argv[1]):
        pass
asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_processes_that_start_together(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "sqlite":
        url = f"sqlite:///{tmp_path / 'inbox.db'}"
    else:
        url = request.getfixturevalue("postgres").fresh()
    command = [sys.executable, "-W", "error", "-c", _OPEN, url]
    started = [
        subprocess.Popen(command, cwd=HERE, stderr=subprocess.PIPE, text=True) for _ in range(5)
    ]
    assert [process.communicate()[1] for process in started] == [""] * 5
    assert [process.returncode for process in started] == [0] * 5


async def test_a_failed_migration_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    def fail(connection: Connection, current: str | None) -> None:
        connection.execute(text("CREATE TABLE half (x int)"))
        raise OSError("no more room")

    url = f"sqlite:///{tmp_path / 'inbox.db'}"
    monkeypatch.setattr(migrations, "upgrade", fail)
    assert "no more room" in await refusal(url)
    monkeypatch.undo()
    async with Inbox(url) as store:
        await store.add(entry())
