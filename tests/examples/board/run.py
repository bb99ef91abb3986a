"""Runs a MicroPython program on CPython: `run.py main.py`, with the modules beside this file."""

import runpy
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
time.ticks_ms = lambda: int(time.monotonic() * 1000)  # type: ignore[attr-defined]
time.ticks_diff = lambda one, other: one - other  # type: ignore[attr-defined]
runpy.run_path(sys.argv[1])
