"""What can be said about a `where` before EMQX sees it."""

from __future__ import annotations

from collections.abc import Iterator

from service.flows.lines import Path
from service.flows.report import Report, suggest
from service.rulesql import SqlError, parse_where, payload_paths_without_guard
from service.rulesql import syntax as sql
from service.rulesql.functions import FUNCTIONS, OTHERS
from service.rulesql.syntax import COLUMNS


def check_where(path: Path, where: str, report: Report) -> None:
    """Report what EMQX would refuse, and warn of what it would take differently."""
    if "${" in where:
        hint = "write the name alone: payload.temperature > 40"
        report.add(path, "EMQX's SQL knows no ${…}", hint)
        return
    try:
        condition = parse_where(where)
    except SqlError as error:
        said = f"{error.message} at line {error.line}, {error.column}"
        if "outside the subset" in f"{error.message} {error.hint}":
            hint = f"{error.hint or 'see docs/flows.md'}; EMQX itself tests it when it is applied"
            report.warn(path, f"is not understood here: {said}", hint)
        else:
            report.add(path, f"EMQX refuses this: {said}", error.hint)
        return
    for bare in _bare(condition):
        said, hint = "a bare value is no condition: every message would end in an exception", ""
        if isinstance(bare, sql.Path):
            hint = f"write {bare} = true, or is_not_null({bare})"
        report.add(path, said, hint or "compare it with something")
    for called in (each.name for each in sql.walk(condition) if isinstance(each, sql.Call)):
        if called not in FUNCTIONS and called not in OTHERS:
            hint = suggest(called, FUNCTIONS) or "names of functions are written in lower case"
            said = f"EMQX has no function {called}, as far as is known here"
            report.warn(path, said, f"{hint}; EMQX itself tests it when it is applied")
    paths = {str(each.keys[0]) for each in sql.walk(condition) if isinstance(each, sql.Path)}
    for root in sorted(paths - set(COLUMNS)):
        hint = suggest(root, COLUMNS) or f"a value of the payload is payload.{root}"
        if root in ("null", "undefined"):
            hint = "write is_null_var(…): true for what is missing and for a JSON null"
        report.warn(path, f"{root} is no field of a message, so it is always undefined", hint)
    if unguarded := payload_paths_without_guard(condition):
        hint = f'write "is_num({unguarded[0]}) and …" before each comparison'
        if len(unguarded) == 1 and " or " not in where.lower():
            hint = f'write "is_num({unguarded[0]}) and {where}"'
        report.warn(
            path,
            f"{', '.join(unguarded)} may be no number: null, true and {{}} count as greater than"
            " any number, and text ends the rule with an exception",
            hint,
        )


def _bare(expr: sql.Expr) -> Iterator[sql.Expr]:
    """Values that stand where a condition has to: EMQX raises on them, whatever they are."""
    match expr:
        case sql.Binary("and" | "or", left, right):
            yield from _bare(left)
            yield from _bare(right)
        case sql.Path() | sql.List() | sql.Unary("-" | "+"):
            yield expr
        case sql.Const(value) if not isinstance(value, bool):
            yield expr
        case sql.Binary(op) if op in (*sql.ARITHMETIC, "as"):
            yield expr
