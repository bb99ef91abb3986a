"""`python -m tests.chaos`: play a plan, judge it, print the figures. Exit 1 on a violation."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tests.chaos.judge import play
from tests.chaos.plan import Plan, behind_front, long, restarts, short

SHOWN = 40


def plans(given: argparse.Namespace) -> list[Plan]:
    """SQLite with one process, PostgreSQL with several; or the one that was named."""
    kinds = {"faults": long if given.long else short, "restarts": restarts, "front": behind_front}
    chosen = [kinds[given.kind]] if given.kind else list(kinds.values())
    databases = [given.database] if given.database else ["sqlite", "postgresql"]
    made = []
    for make, database in itertools.product(chosen, databases):
        replicas = 1 if database == "sqlite" else given.replicas
        plan = make(database, replicas, given.seed)
        if given.long and make is not long:
            plan = replace(plan, requests=12_000, conversations=300, restarts_in_order=18)
            plan = replace(plan, limit=600.0, patience=300.0)
            plan = replace(plan, kills=18 if plan.front else 0)
        changes = {
            name: value
            for name in ("requests", "kills")
            if (value := getattr(given, name)) is not None
        }
        made.append(replace(plan, **changes))
    return made


def report(plan: Plan, figures: dict[str, Any], violations: Sequence[str]) -> None:
    processes = "1 process" if plan.replicas == 1 else f"{plan.replicas} processes"
    print(f"\n{plan.name}, {processes}, seed {plan.seed}")
    for name, value in figures.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key}: {count}" for key, count in value.items()) or "none"
        print(f"  {name:<54} {value}")
    print(f"  {'violations':<54} {len(violations)}")
    for violation in violations[:SHOWN]:
        print(f"    ! {violation}")
    if len(violations) > SHOWN:
        print(f"    … and {len(violations) - SHOWN} more")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--long", action="store_true", help="20,000 requests, 100 kills")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), help="default: both")
    parser.add_argument("--kind", choices=("faults", "restarts", "front"), help="default: all")
    parser.add_argument("--requests", type=int)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replicas", type=int, default=3, help="with PostgreSQL")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--keep", action="store_true", help="leave database and logs behind")
    given = parser.parse_args()
    documents, failed = [], False
    for plan in plans(given):
        home = tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True)
        folder = Path(home.name)
        figures, violations = play(plan, folder)
        report(plan, figures, violations)
        documents.append({"plan": asdict(plan), "figures": figures, "violations": violations})
        failed = failed or bool(violations)
        if given.keep or violations:
            print(f"  database and logs: {folder}")
            home._finalizer.detach()  # type: ignore[attr-defined]
        else:
            home.cleanup()
    if given.json is not None:
        given.json.write_text(json.dumps(documents, indent=2) + "\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
