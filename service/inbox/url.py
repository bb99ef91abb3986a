"""DATABASE_URL: which database, and what to say when it can't be one. Never a password."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from service.errors import StoreUnusable

_FORMS = "sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
_SQLITE = ("sqlite", "sqlite+pysqlite", "sqlite+aiosqlite")
_POSTGRES = ("postgresql", "postgres", "postgresql+asyncpg", "postgres+asyncpg")


def parse(text: str) -> URL:
    """Checked, and with the driver that we use."""
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError, TypeError) as error:
        raise StoreUnusable(f"DATABASE_URL is not a database URL; write {_FORMS}") from error
    if url.drivername in _SQLITE:
        return _sqlite(url)
    if url.drivername in _POSTGRES:
        return _postgres(url)
    raise StoreUnusable(f"DATABASE_URL has the unknown scheme {url.drivername!r}; write {_FORMS}")


def _sqlite(url: URL) -> URL:
    if url.host or url.username or url.password:
        raise StoreUnusable("DATABASE_URL: sqlite takes three slashes and a file: sqlite:///FILE")
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise StoreUnusable("DATABASE_URL: sqlite needs a file, so that nothing is lost")
    if url.query:
        raise StoreUnusable("DATABASE_URL: sqlite takes no options after '?'")
    return url.set(drivername="sqlite")


def _postgres(url: URL) -> URL:
    known = {"host", "port", "sslmode", "ssl", "application_name", "options", "connect_timeout"}
    unknown = sorted(set(url.query) - known - {"channel_binding", "target_session_attrs"})
    if unknown:
        raise StoreUnusable(f"DATABASE_URL: unknown option {unknown[0]!r}")
    return url.set(drivername="postgresql+asyncpg")


def postgres_arguments(url: URL) -> dict[str, Any]:
    """What asyncpg.connect takes; libpq's names, which every provider prints, translated."""
    query = {k: v if isinstance(v, str) else v[-1] for k, v in url.query.items()}
    settings = {
        "application_name": query.get("application_name", "emqx-gpt"),
        # A process that stands still must not keep others waiting with what it locked.
        "idle_in_transaction_session_timeout": "5000",
        "lock_timeout": "2000",
        "statement_timeout": "15000",
        # Plans for a queue: many short look-ups, in pages that are in memory anyway.
        "jit": "off",
        "random_page_cost": "1.1",
    }
    for name, value in re.findall(r"-c\s*([\w.]+)=(\S+)", query.get("options", "")):
        settings[name] = value
    arguments: dict[str, Any] = {
        "host": query.get("host") or url.host,
        "port": int(query.get("port") or url.port or 5432),
        "user": url.username,
        "password": url.password,
        "database": url.database,
        "timeout": float(query.get("connect_timeout", 3)),
        "command_timeout": 15.0,
        "server_settings": settings,
    }
    ssl = query.get("sslmode") or query.get("ssl")
    if ssl:
        arguments["ssl"] = ssl
    if "target_session_attrs" in query:
        arguments["target_session_attrs"] = query["target_session_attrs"]
    return {name: value for name, value in arguments.items() if value is not None}


def shown(url: URL) -> str:
    return url.set(query={}).render_as_string(hide_password=True).replace("+asyncpg", "")
