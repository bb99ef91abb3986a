"""Plans and findings on a terminal."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from service.cli.common import as_typed
from service.emqx.compare import Difference
from service.emqx.findings import Finding, Level
from service.emqx.plan import Do, Plan, Step

_SIGNS = {
    Do.CREATE: ("+", "green"),
    Do.CHANGE: ("~", "yellow"),
    Do.DELETE: ("-", "red"),
    Do.LEAVE: ("=", "dim"),
    Do.FOREIGN: ("·", "dim"),
    Do.TAKEN: ("!", "bold red"),
}
_LEVELS = {
    Level.OK: ("ok  ", "green"),
    Level.WARN: ("warn", "yellow"),
    Level.FAIL: ("FAIL", "bold red"),
    Level.SKIP: ("skip", "dim"),
}


def show_plan(out: Console, plan: Plan) -> None:
    """A plan in colour, one line for each resource and each field that differs."""
    for step in plan.steps:
        for line in _step(step):
            out.print(line, soft_wrap=True)
    for note in plan.notes:
        out.print(Text(f"note: {note}", "dim"), soft_wrap=True)
    if plan.in_step:
        out.print("EMQX is in step.")
        return
    counts = ((do, len(plan.doing(do))) for do in (Do.CREATE, Do.CHANGE, Do.DELETE, Do.TAKEN))
    out.print(", ".join(f"{count} to {do.value}" for do, count in counts if count) + ".")


def _step(step: Step) -> Iterator[Text]:
    sign, style = _SIGNS[step.do]
    note = f" ({step.note})" if step.note else ""
    yield Text(f"{sign} {step.do.value:<7} {step}{note}", style)
    for field in step.fields:
        yield from _field(field)


def _field(field: Difference) -> Iterator[Text]:
    if field.path == "sql":
        yield Text("    sql:")
        for each in difflib.ndiff(_lines(field.have), _lines(field.want)):
            if each[0] in "-+":
                yield Text(f"      {each}", "red" if each[0] == "-" else "green")
        return
    line = Text(f"    {field.path}: ")
    line.append(_value(field.have), "red").append(" → ").append(_value(field.want), "green")
    yield line


def _lines(value: Any) -> list[str]:
    return [line.strip() for line in str(value or "").splitlines() if line.strip()]


def _value(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


def show_finding(out: Console, finding: Finding) -> None:
    """One line, and a second one for what to do."""
    word, style = _LEVELS[finding.level]
    line = Text(f"{word} ", style).append(finding.title, "bold")
    if finding.detail:
        line.append(f": {finding.detail}", "default")
    out.print(line, soft_wrap=True)
    if finding.hint:
        out.print(Text(f"     → {as_typed(finding.hint)}", "dim"), soft_wrap=True)
