"""What the figures depend on, without a word on whose machine it is."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import time
from pathlib import Path
from typing import Any


def fsync_ms(folder: Path, rounds: int = 40) -> float:
    """Median time to append 4 KB to a file there and have it on disk."""
    times = []
    sync = getattr(os, "fdatasync", os.fsync)
    path = folder / "fsync.probe"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for _ in range(rounds):
            began = time.perf_counter()
            os.write(handle, bytes(4096))
            sync(handle)
            times.append((time.perf_counter() - began) * 1000)
    finally:
        os.close(handle)
        path.unlink()
    return statistics.median(times)


def facts(folder: Path) -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "fsync_ms": round(fsync_ms(folder), 2),
        "load_before": round(os.getloadavg()[0], 1),
    }
