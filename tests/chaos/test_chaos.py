"""Short runs on each database: hundreds of requests, several ends, nothing lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.__main__ import report
from tests.chaos.judge import play
from tests.chaos.plan import Plan, behind_front, restarts, short

PLANS = [
    make(*where)
    for make in (short, restarts, behind_front)
    for where in (("sqlite", 1), ("postgresql", 3))
]


def played(plan: Plan, folder: Path) -> Mapping[str, Any]:
    """The figures of a run that kept what is promised."""
    figures, violations = play(plan, folder)
    report(plan, figures, violations)
    assert not violations
    assert figures["lost"] == 0
    assert figures["requests"] >= plan.requests
    assert figures["kills survived (SIGKILL)"] >= plan.kills
    return figures


def test_a_short_run_loses_nothing(tmp_path: Path):
    few = {"requests": 150, "kills": 2, "stops": 0, "outages": (1.5,), "jumps": (1.0, 1.0)}
    plan = replace(short("sqlite", 1), **few)
    played(plan, tmp_path)


@pytest.mark.timeout(700)
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_nothing_is_lost_and_every_conversation_keeps_its_order(plan: Plan, tmp_path: Path):
    figures = played(plan, tmp_path)
    if plan.restarts_in_order and not plan.kills:
        assert figures["replies out of EMQX's order"] == 0
    assert figures["orderly restarts (SIGTERM)"] >= plan.restarts_in_order
