"""A fresh database for each test; retries that do not make the suite wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service import retry
from service.answering import gates
from tests.databases import Postgres, postgresql


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with postgresql() as server:
        yield server


@pytest.fixture
def shared_database(postgres: Postgres) -> str:
    """One that several services may share: PostgreSQL."""
    return postgres.fresh()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_database(request: pytest.FixtureRequest) -> str:
    """The test runs on both databases."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("database"))
    return str(request.getfixturevalue("shared_database"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy of retries with every wait a small part of what it is."""
    monkeypatch.setattr(retry, "INNER_FIRST", 0.01)
    monkeypatch.setattr(retry, "OUTER_FIRST", 0.05)
    monkeypatch.setattr(retry, "ACCOUNT_PAUSE", 0.2)
    monkeypatch.setattr(gates, "BREAK_FIRST", 0.2)
