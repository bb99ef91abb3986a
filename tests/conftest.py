"""Which tests `make test` runs, and which wait for `make long`. CI runs both."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
# They start whole processes, browsers and other programs, or wait for real time to pass.
LONG = (
    "api/test_schemathesis.py",
    "attacks",
    "bench",
    "chaos",
    "cli",
    "console",
    "demo/test_beside_mosquitto.py",
    "demo/test_chinese.py",
    "demo/test_demo.py",
    "demo/test_house.py",
    "demo/test_init.py",
    "demo/test_replay.py",
    "docs",
    "e2e/test_budgets.py::test_200_at_once",
    "e2e/test_own_tokens.py",
    "e2e/test_process.py",
    "e2e/test_recent.py::test_a_burst",
    "e2e/test_reload.py",
    "e2e/test_reload_process.py",
    "e2e/test_sizes.py",
    "e2e/test_supervisor.py",
    "examples",
    "fuzz",
    "inbox/test_sleepers.py",
    "mcp",
    "packaging",
    "pure/test_growth.py",
)
# One of each kind is in `make test` all the same.
SHORT = (
    "bench/test_bench.py::test_two_rows",
    "chaos/test_chaos.py::test_a_short_run",
    "cli/test_requests.py::test_a_part_of_an_id",
    "fuzz/test_parsers.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name = item.nodeid.removeprefix("tests/")
        if not name.startswith(SHORT) and (name.startswith(LONG) or "postgresql" in name):
            item.add_marker(pytest.mark.long)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What `make test` does not run need not be read for it."""
    if config.getoption("markexpr") != "not long":
        return None
    name = collection_path.relative_to(HERE).as_posix()
    short = any(one.partition("::")[0].startswith(name) for one in SHORT)
    return True if name.startswith(LONG) and not short else None
