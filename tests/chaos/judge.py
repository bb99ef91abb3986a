"""Play a plan and judge it: what both the command and the tests call."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import uvloop

from tests.chaos.plan import Plan
from tests.chaos.run import run
from tests.chaos.verify import figures, verify


def play(plan: Plan, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Figures and violations."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        evidence = runner.run(run(plan, folder))
    return figures(evidence), verify(evidence)
