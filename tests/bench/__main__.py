"""`python -m tests.bench`: measure, print a table, write bench.json and a picture."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.bench import accept, answers
from tests.bench.machine import facts
from tests.bench.processes import ends_up
from tests.bench.rows import Bench, Row

Measure = Callable[[Bench], Awaitable[list[Row]]]
MEASURES: dict[str, Measure] = {
    "accept": accept.accepted,
    "instant": answers.instant,
    "slow": answers.slow,
}

async def run(names: list[str], *, quick: bool) -> tuple[list[Row], dict]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        machine = facts(Path(folder))
        async with ends_up() as ends:
            bench = Bench(ends, Path(folder), quick=quick)
            for name in names:
                began = time.monotonic()
                rows += await MEASURES[name](bench)
                for row in rows:
                    print(row.name, row.ours, row.baseline, row.ratio and round(row.ratio,3), flush=True)
                print(name, round(time.monotonic() - began, 1))
    return rows, machine


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", default="")
    o = parser.parse_args()
    names = o.rows.split(",") if o.rows else list(MEASURES)
    rows, machine = asyncio.run(run(names, quick=o.quick))
    print(machine)

if __name__ == "__main__":
    main()
