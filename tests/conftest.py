"""What all tests share; and which of them `make test` runs, and which `make long`. CI runs both."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.emqx import resource_names

HERE = Path(__file__).parent
# They start whole processes, browsers and other programs, or wait for real time to pass.
LONG = (
    "api/test_schemathesis.py",
    "attacks",
    "bench",
    "chaos",
    "cli",
    "console",
    "contract/test_trouble.py",
    "demo/test_beside_mosquitto.py",
    "demo/test_chinese.py",
    "demo/test_demo.py",
    "demo/test_house.py",
    "demo/test_init.py",
    "demo/test_model.py",
    "demo/test_model_families.py",
    "demo/test_replay.py",
    "docs",
    "e2e/test_backpressure.py",
    "e2e/test_budgets.py::test_200_at_once",
    "e2e/test_every.py",
    "e2e/test_own_tokens.py",
    "e2e/test_process.py",
    "e2e/test_recent.py::test_a_burst",
    "e2e/test_reload.py",
    "e2e/test_reload_process.py",
    "e2e/test_shutdown.py",
    "e2e/test_sizes.py",
    "e2e/test_supervisor.py",
    "emqx/test_apply_trouble.py",
    "emqx/test_cli.py",
    "examples",
    "fuzz",
    "inbox/test_failures.py",
    "inbox/test_sleepers.py",
    "llm/test_limits.py",
    "llm/test_servers.py",
    "mcp",
    "metrics/test_prometheus.py",
    "metrics/test_traces.py",
    "packaging",
    "pure/test_growth.py",
)
# One of each kind is in `make test` all the same.
SHORT = (
    "bench/test_bench.py::test_two_rows",
    "chaos/test_chaos.py::test_a_short_run",
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


@pytest.fixture(scope="session", autouse=True)
def _once() -> Iterator[None]:
    """What each house computes anew and costs more than all the rest of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", functools.cache(ssl.create_default_context))
        patch.setattr(resource_names, "fingerprint", functools.cache(resource_names.fingerprint))
        yield
