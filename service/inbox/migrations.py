"""Bring the schema up to date at start; refuse what is not ours, or newer than we are.

Nothing is changed before it is clear that the database is ours or empty. Processes that
start together wait for the first one. A new database is made from `sql_tables`; an older one
takes the steps that it lacks, all in one transaction. A test compares the two.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Engine,
    LargeBinary,
    MetaData,
    Table,
    Text,
    and_,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.schema import CreateColumn

from service.errors import StoreUnusable
from service.inbox.sql_tables import (
    APPLICATION_ID,
    acts,
    fresh,
    jobs,
    last_values,
    metadata,
    paused,
    readings,
    requests,
    requests_asleep,
    requests_batch,
    requests_error,
    requests_flow,
    requests_held,
    requests_overslept,
    requests_waiting,
    rollup,
    ticks,
    unordered_queue,
    version,
    waits,
)

Step = Callable[[Connection], object]


def add_columns(table: str, *columns: Column[Any]) -> Step:
    """They may be NULL: neither database rewrites a row, and older replicas go on meanwhile."""

    Table(table, MetaData(), *columns)  # a column says its type only as part of a table

    def step(connection: Connection) -> None:
        there = {one["name"] for one in inspect(connection).get_columns(table)}
        for column in columns:
            if column.name in there:  # an earlier step made the table as it is now
                continue
            made = CreateColumn(column).compile(dialect=connection.dialect)
            connection.execute(text(f"ALTER TABLE {table} ADD COLUMN {made}"))

    return step


def take_turns(connection: Connection) -> None:
    """What waits without order gets its turn by when it came: newcomers would pass it."""
    _r = requests.c
    waits = and_(unordered_queue, _r.not_before == 0)
    connection.execute(update(requests).where(waits).values(not_before=_r.accepted_at + fresh(0)))


VERSIONS: dict[str, tuple[Step, ...]] = {
    "0001": (),
    "0002": (
        add_columns(
            "requests",
            Column("reasoning", LargeBinary),
            Column("cached_tokens", BigInteger),
            Column("cache_write_tokens", BigInteger),
            Column("cost", Double),
        ),
    ),
    "0003": (
        add_columns("requests", Column("held_at", BigInteger), Column("held_until", BigInteger)),
        requests_held.create,
    ),
    "0004": (
        add_columns("requests", Column("trace", LargeBinary)),
        requests_flow.create,
        requests_error.create,
        *(table.create for table in (acts, paused, jobs, rollup)),
    ),
    "0005": (take_turns,),
    "0006": (readings.create,),
    "0007": (ticks.create, last_values.create),
    "0008": (waits.create, requests_waiting.create, requests_asleep.create),
    "0009": (add_columns("requests", Column("batch", BigInteger)), requests_batch.create),
    "0010": (requests_overslept.create, add_columns("waits", Column("heard", Text))),
}
"""What each version adds to the one before, never edited once it was released."""

_LOCK = 0x656D7178
_PATIENCE = 30.0


def sqlite(engine: Engine, path: Path) -> None:
    with engine.connect() as connection:
        try:
            current = _sqlite_version(connection, path)
        except OperationalError:
            raise
        except DBAPIError as error:
            raise StoreUnusable(f"{path} is not a SQLite database") from error
        _wal(connection)
        if current == newest():
            return
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
        try:
            current = _sqlite_version(connection, path)  # another process may have been first
            if current != newest():
                upgrade(connection, current)
                connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise


def _sqlite_version(connection: Connection, path: Path) -> str | None:
    # In this order: another process may make both between the two looks, in one transaction.
    names = connection.exec_driver_sql("SELECT name FROM sqlite_master").scalars().all()
    mark = connection.exec_driver_sql("PRAGMA application_id").scalar()
    if mark not in (0, APPLICATION_ID) or (names and mark != APPLICATION_ID):
        raise StoreUnusable(f"{path} is the database of another program; name another file")
    return _version(connection, version.name in names, str(path))


def _wal(connection: Connection) -> None:
    """SQLite does not wait by itself for this change; another start may hold the file."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            return
        except OperationalError as error:
            if "locked" not in str(error.orig) or time.monotonic() > until:
                raise
            time.sleep(0.02)


def postgres(connection: Connection, place: str) -> None:
    """In a transaction of its own: all of it, or nothing."""
    encoding = connection.execute(text("SHOW server_encoding")).scalar()
    if encoding != "UTF8":
        raise StoreUnusable(f"{place} has the encoding {encoding}; create it with UTF8")
    if _postgres_version(connection, place) == newest():
        return
    connection.execute(text(f"SET LOCAL lock_timeout = '{int(_PATIENCE)}s'"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    current = _postgres_version(connection, place)
    if current != newest():
        upgrade(connection, current)


_OWN_TABLES = text(
    "SELECT c.relname FROM pg_class c WHERE c.relnamespace = to_regnamespace(current_schema())"
    " AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT EXISTS ("
    "SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')"
)


def _postgres_version(connection: Connection, place: str) -> str | None:
    names = connection.execute(_OWN_TABLES).scalars().all()
    if names and version.name not in names:
        raise StoreUnusable(
            f"{place} holds the tables of another program; give emqx-gpt a database of its own"
        )
    return _version(connection, version.name in names, place)


def _version(connection: Connection, exists: bool, place: str) -> str | None:
    found = connection.execute(select(version.c.version_num)).scalar() if exists else None
    if found is not None and found not in VERSIONS:
        raise StoreUnusable(
            f"{place} was made by a newer emqx-gpt (schema {found}, this program knows"
            f" {newest()}); use that version"
        )
    return found


def newest() -> str:
    return list(VERSIONS)[-1]


def upgrade(connection: Connection, current: str | None = None) -> None:
    """In the transaction of this connection; `current` None: there is nothing yet."""
    if current is None:
        _create(connection)
        return
    known = list(VERSIONS)
    for name in known[known.index(current) + 1 :]:
        for step in VERSIONS[name]:
            step(connection)
    connection.execute(update(version).values(version_num=newest()))


def _create(connection: Connection) -> None:
    metadata.create_all(connection)
    connection.execute(insert(version).values(version_num=newest()))
    if connection.dialect.name == "postgresql":
        # Rows change state several times a second; the fronts of the indexes stay short.
        for table in ("requests", "conversations", "turns", "readings"):
            connection.execute(
                text(
                    f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.02,"
                    " autovacuum_vacuum_insert_scale_factor = 0.1,"
                    " autovacuum_analyze_scale_factor = 0.05)"
                )
            )
