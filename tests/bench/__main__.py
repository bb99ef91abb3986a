"""`python -m tests.bench`: measure, print a table, write the figures and a picture."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import accept, answers, backlog, console, latency, recent, replicas
from tests.bench.machine import facts
from tests.bench.picture import svg
from tests.bench.processes import TREE, ends_up
from tests.bench.rows import Bench, Row

MEASURES: dict[str, Callable[[Bench], Awaitable[list[Row]]]] = {
    "accept": accept.accepted,
    "windows": recent.windows,
    "instant": answers.instant,
    "slow": answers.slow,
    "idle": latency.idle,
    "backlog": backlog.waiting,
    "replicas": replicas.three,
    "streaming": latency.streaming,
    "pages": console.pages,
    "open pages": console.open_pages,
}


async def measure(
    names: Sequence[str], *, quick: bool, tell: Callable[[str], None]
) -> tuple[list[Row], dict[str, Any]]:
    """The rows of these measurements, and what machine they are of."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        machine = facts(Path(folder))
        async with ends_up() as ends:
            bench = Bench(ends, Path(folder), quick=quick)
            for name in names:
                began = time.monotonic()
                tell(f"{name} …")
                rows += await MEASURES[name](bench)
                tell(f"{name}: {time.monotonic() - began:.0f} s")
    return rows, machine


def table(rows: Sequence[Row]) -> Table:
    made = Table(title="emqx-gpt: one process, SQLite with synchronous=FULL", title_justify="left")
    for name in ("what", "at least", "measured", "baseline"):
        made.add_column(name)
    made.add_column("ratio", justify="right")
    made.add_column("reached")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        reached = "[green]yes[/]" if row.reached else "[red]no[/]"
        made.add_row(row.what, row.target, row.ours, row.baseline, ratio, reached)
    return made


def document(rows: Sequence[Row], machine: dict[str, Any], *, quick: bool) -> dict[str, Any]:
    """The figures for bench.json."""
    listed = []
    for row in rows:
        fields = dataclasses.asdict(row)
        del fields["bars"]
        listed.append(fields)
    return {"quick": quick, "machine": machine, "rows": listed}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work at all")
    parser.add_argument("--rows", help=f"some of: {','.join(MEASURES)}")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--svg", type=Path, help="write a picture here")
    parser.add_argument("--tree", type=Path, help="measure the service of another checkout")
    options = parser.parse_args(arguments)
    names = options.rows.split(",") if options.rows else list(MEASURES)
    if unknown := [name for name in names if name not in MEASURES]:
        parser.error(f"no rows {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    if options.tree:
        os.environ[TREE] = str(options.tree.resolve())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started ends, too
    said = Console(stderr=True)
    rows, machine = asyncio.run(measure(names, quick=options.quick, tell=said.print))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table(rows))
    console.print("  ".join(f"{name} {value}" for name, value in machine.items()))
    if options.json:
        text = json.dumps(document(rows, machine, quick=options.quick), indent=2)
        options.json.write_text(text + "\n")
    if options.svg:
        options.svg.write_text(svg(rows, machine))
    return 0


if __name__ == "__main__":
    sys.exit(main())
