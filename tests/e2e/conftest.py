"""A fresh database for each test; retries that do not make the suite wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.llm.retry import RetryPolicy
from tests import rig
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


QUICK = RetryPolicy(inner_first=0.01, outer_first=0.05, account_pause=0.2, break_first=0.2)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Houses whose retries wait a small part of what they usually do."""
    monkeypatch.setattr(rig, "POLICY", QUICK)
