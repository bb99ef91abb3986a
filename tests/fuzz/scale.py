"""How much is tried: `FUZZ_SCALE` multiplies; `make test` leaves it at 1, `make fuzz` does not."""

from __future__ import annotations

import os

SCALE = int(os.environ.get("FUZZ_SCALE", "1"))


def times(count: int) -> int:
    """`count`, as often as `FUZZ_SCALE` says."""
    return count * SCALE
