"""Bring the schema up to date at start; refuse what is not ours, or newer than we are.

Nothing is changed before it is clear that the database is ours or empty. Processes that
start together wait for the first one.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Text, column, select, table, text
from sqlalchemy.exc import DBAPIError, OperationalError

from service.errors import StoreUnusable
from service.inbox.tables import APPLICATION_ID, HEAD, VERSION_TABLE, metadata

MIGRATIONS = Path(__file__).parent / "migrations"
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
        if current == HEAD:
            return
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
        try:
            current = _sqlite_version(connection, path)  # another process may have been first
            if current != HEAD:
                upgrade(connection)
                connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise


def _sqlite_version(connection: Connection, path: Path) -> str | None:
    mark = connection.exec_driver_sql("PRAGMA application_id").scalar()
    names = connection.exec_driver_sql("SELECT name FROM sqlite_master").scalars().all()
    if mark not in (0, APPLICATION_ID) or (names and mark != APPLICATION_ID):
        raise StoreUnusable(f"{path} is the database of another program; name another file")
    return _version(connection, VERSION_TABLE in names, str(path))


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
    if _postgres_version(connection, place) == HEAD:
        return
    connection.execute(text(f"SET LOCAL lock_timeout = '{int(_PATIENCE)}s'"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    if _postgres_version(connection, place) != HEAD:
        upgrade(connection)


_OWN_TABLES = text(
    "SELECT c.relname FROM pg_class c WHERE c.relnamespace = to_regnamespace(current_schema())"
    " AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT EXISTS ("
    "SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')"
)


def _postgres_version(connection: Connection, place: str) -> str | None:
    names = connection.execute(_OWN_TABLES).scalars().all()
    if names and VERSION_TABLE not in names:
        raise StoreUnusable(
            f"{place} holds the tables of another program; give emqx-gpt a database of its own"
        )
    return _version(connection, VERSION_TABLE in names, place)


def _version(connection: Connection, exists: bool, place: str) -> str | None:
    if not exists:
        return None
    newest = select(column("version_num", Text)).select_from(table(VERSION_TABLE))
    found = connection.execute(newest).scalar()
    if found is not None and found not in known_versions():
        raise StoreUnusable(
            f"{place} was made by a newer emqx-gpt (schema {found}, this program knows {HEAD});"
            " use that version"
        )
    return found


def known_versions() -> set[str]:
    """From the file names: `0001_inbox.py` is 0001."""
    return {path.name.split("_", 1)[0] for path in (MIGRATIONS / "versions").glob("0*_*.py")}


def upgrade(connection: Connection, target: str = "head") -> None:
    """Run the missing migrations on this connection, in its transaction."""
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(MIGRATIONS))

    def steps(revision: Any, context: Any) -> Any:
        return scripts._upgrade_revs(target, revision)

    with EnvironmentContext(Config(), scripts, fn=steps) as environment:
        environment.configure(
            connection=connection,
            target_metadata=metadata,
            version_table=VERSION_TABLE,
            transaction_per_migration=False,
        )
        environment.run_migrations()
