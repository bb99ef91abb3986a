"""`emqx-gpt serve` with a short lease, a clock that jumps and a disk that fills up.

Everything else is the command's own code: `python -m tests.chaos.serve serve`.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from sqlalchemy import Connection, Engine, event

from service.bootstrap import Service, epoch_ms
from service.cli import main as command
from service.cli import serving
from tests.chaos.control import Control, end_with_parent

_ROOMY = 2**31 - 2


def _limit_pages(control: Control) -> None:
    """`max_page_count` counts for one connection only, so each transaction begins with it."""

    def begun(connection: Connection) -> None:
        full = control.full
        if connection.dialect.name == "sqlite" and connection.info.get("full", False) != full:
            connection.info["full"] = full
            # Below its size SQLite takes the size: not one page more.
            connection.exec_driver_sql(f"PRAGMA max_page_count={1 if full else _ROOMY}")

    event.listen(Engine, "begin", begun)


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
