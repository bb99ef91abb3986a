"""What can be said about a `where` before EMQX sees it."""

from __future__ import annotations

from collections.abc import Iterator

from service.flows.lines import Path
from service.flows.report import Report, suggest
from service.rulesql import SqlError, parse_where, payload_paths_without_guard
from service.rulesql import syntax as sql
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
        said = f"is not understood here: {error.message} at line {error.line}, {error.column}"
        hint = error.hint or "outside the subset of docs/flows.md"
        report.warn(path, said, f"{hint}; EMQX itself tests it when it is applied")
        return
    for root in sorted({str(found.keys[0]) for found in _paths(condition)} - set(COLUMNS)):
        hint = suggest(root, COLUMNS) or f"a value of the payload is payload.{root}"
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


def _paths(expr: sql.Expr) -> Iterator[sql.Path]:
    match expr:
        case sql.Path():
            yield expr
        case sql.Unary(_, operand):
            yield from _paths(operand)
        case sql.Binary(_, left, right):
            yield from _paths(left)
            yield from _paths(right)
        case sql.Call(_, args):
            for arg in args:
                yield from _paths(arg)
        case sql.Case(whens, otherwise):
            for condition, value in whens:
                yield from _paths(condition)
                yield from _paths(value)
            if otherwise is not None:
                yield from _paths(otherwise)
