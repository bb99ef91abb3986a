"""`emqx-gpt serve` with a short lease, a clock that jumps and a disk that fills up.

Everything else is the command's own code: `python -m tests.chaos.serve serve`.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from service.bootstrap import Service
from service.cli import main as command
from service.cli import serving
from service.inbox import epoch_ms, sqlite
from tests.chaos.control import Control, end_with_parent

_ROOMY = 2**31 - 2


def _limit_pages(control: Control) -> None:
    """`max_page_count` counts for one connection only, so each transaction begins with it."""
    connected = sqlite.Thread._connected

    def limited(thread: sqlite.Thread) -> sqlite.Connected:
        connection = connected(thread)
        # Below its size SQLite takes the size: not one page more.
        pages = 1 if control.full else _ROOMY
        connection.driver.execute(f"PRAGMA max_page_count={pages}")
        return connection

    sqlite.Thread._connected = limited  # type: ignore[method-assign]


def main() -> None:
    end_with_parent()
    control = Control(Path(os.environ["CHAOS_CONTROL"]))
    _limit_pages(control)
    serving.Service = functools.partial(  # type: ignore[misc, assignment]
        Service,
        lease=float(os.environ["CHAOS_LEASE"]),
        now=lambda: epoch_ms() + control.ahead,
    )
    command()


if __name__ == "__main__":
    main()
