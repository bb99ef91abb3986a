"""A short run on each database: requests wait for devices and people, processes are killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.waits import play


@pytest.mark.timeout(400)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_no_wait_is_lost_and_no_door_opens_twice_or_unasked(database: str, tmp_path: Path):
    figures, faults = await play(database, tmp_path, requests=200, kills=3)
    print(figures)
    assert faults == []
    assert figures["kills"] >= 3
    assert figures["doors unlocked"] > 20
    assert figures["people asked"] == 100
