"""How long the main path is, so that one can follow it; `python -m tests.path` prints it."""

from __future__ import annotations

from tests.path import trace

FRAMES = 8  # from the request's life to the model's HTTP client
FILES = 76  # 68, and what periodic looks add, the more the slower the machine


async def test_the_main_path_is_short(database):
    seen = await trace(database)
    assert seen.frames[0] == "RequestRunner.run"
    assert len(seen.frames) <= FRAMES, seen.frames
    assert len(seen.files) <= FILES, sorted(seen.files)
