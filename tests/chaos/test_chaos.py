"""A short run on each database: hundreds of requests, several kills, nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.__main__ import report
from tests.chaos.judge import play
from tests.chaos.plan import Plan, short


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "plan", [short("sqlite", 1), short("postgresql", 3)], ids=lambda plan: plan.database
)
def test_nothing_is_lost_and_every_conversation_keeps_its_order(plan: Plan, tmp_path: Path):
    figures, violations = play(plan, tmp_path)
    report(plan, figures, violations)
    assert not violations
    assert figures["lost"] == 0
    assert figures["requests"] >= plan.requests
    assert figures["kills survived (SIGKILL)"] >= plan.kills
