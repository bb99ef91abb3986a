"""What can be said about a `where` before EMQX sees it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from service.flows.lines import Path
from service.flows.report import Report, suggest
from service.mqtt.topics import TopicPattern
from service.rulesql import (
    SqlError,
    equalities_that_hide,
    foreign,
    parse_where,
    payload_paths_without_guard,
    translated,
)
from service.rulesql import syntax as sql
from service.rulesql.functions import FUNCTIONS, OTHERS
from service.rulesql.syntax import COLUMNS

_NAME = re.compile(r"\$\{([^{}]*)\}")
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"([^\"]*)\"")
_WORDS = {
    "null": "write is_null_var(…): true for what is missing and for a JSON null",
    "undefined": "write is_null_var(…): true for what is missing and for a JSON null",
    "none": "write is_null_var(…): true for what is missing and for a JSON null",
    "true": "write true",
    "false": "write false",
    "retain": "write flags.retain",
    "dup": "write flags.dup",
}


def levels_in_sql(patterns: tuple[TopicPattern, ...]) -> dict[str, str]:
    """How a condition reads the captured levels that stand at one place in all topics."""
    found: dict[str, set[str]] = {}
    for pattern in patterns:
        levels = [level for level in pattern.text.split("/") if level]  # tokens() drops the empty
        for name in pattern.names:
            at = levels.index(f"${{{name}}}") + 1
            found.setdefault(name, set()).add(f"nth({at}, tokens(topic, '/'))")
    return {name: said.pop() for name, said in found.items() if len(said) == 1}


def check_where(path: Path, where: str, report: Report, levels: Mapping[str, str]) -> None:
    """Report what EMQX would refuse, and warn of what it would take differently. `levels` is
    what a captured level is called in SQL."""
    if _NAME.search(where) or "${" in where:
        plain = _NAME.sub(lambda found: levels.get(found[1], found[1]), where)
        hint = f"write the name alone: {plain}" if len(plain) < 80 else "write the name alone"
        report.add(path, "EMQX's SQL knows no ${…}", hint)
        return
    try:
        condition = parse_where(where)
    except SqlError as error:
        _refused(path, where, error, report)
        where = translated(where)
        try:
            condition = parse_where(where)
        except SqlError:
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
    _check_fields(path, where, condition, levels, report)
    _check_comparisons(path, condition, report)
    _check_guards(path, where, condition, report)


def _refused(path: Path, where: str, error: SqlError, report: Report) -> None:
    said = f"{error.message} at line {error.line}, {error.column}"
    if "outside the subset" in f"{error.message} {error.hint}":
        hint = f"{error.hint or 'see docs/flows.md'}; EMQX itself tests it when it is applied"
        report.warn(path, f"is not understood here: {said}", hint)
        return
    words = foreign(where)
    for word in words:
        place = f"at line {word.line}, {word.column}"
        report.add(path, f"EMQX refuses this: {word.said} {place}", word.hint)
    if not words:
        report.add(path, f"EMQX refuses this: {said}", error.hint)


def _check_fields(
    path: Path, where: str, condition: sql.Expr, levels: Mapping[str, str], report: Report
) -> None:
    """Names that are no field of a message: mostly a value of the payload, or a text."""
    quoted = {found[1] for found in _QUOTED.finditer(where) if found[1] is not None}
    compared = {
        each.right
        for each in sql.walk(condition)
        if isinstance(each, sql.Binary) and each.op in sql.COMPARISONS and _is_known(each.left)
    }
    told: set[str] = set()
    for each in sql.walk(condition):
        if not isinstance(each, sql.Path) or str(each.keys[0]) in {*COLUMNS, *told}:
            continue
        root = str(each.keys[0])
        told.add(root)
        if root in quoted:
            said = f'"{root}" in double quotes is the name of a field, and no message has it'
            report.warn(path, said, f"write a text in single quotes: '{root}'")
            continue
        hint = _meant(each, where, levels)
        if not hint and each in compared and len(each.keys) == 1:
            hint = f"write a text in single quotes, '{root}', and a payload's value payload.{root}"
        hint = hint or suggest(root, COLUMNS) or f"a value of the payload is payload.{each}"
        report.warn(path, f"{root} is no field of a message, so it is always undefined", hint)


def _is_known(expr: sql.Expr) -> bool:
    return isinstance(expr, sql.Path) and expr.keys[0] in COLUMNS


def _meant(field: sql.Path, where: str, levels: Mapping[str, str]) -> str:
    """What the name of no field stands for, if that can be told."""
    root = str(field.keys[0])
    if found := re.search(rf"\bpayload((?:\.\w+)*)\.(\w+-{re.escape(root)})(?!\w)", where):
        return f"a key like this stands in quotes: payload{found[1]}.'{found[2]}'"
    if root in levels:
        return f"write {levels[root]}, that level of the topic"
    if root.lower() in COLUMNS and root != root.lower():
        return f"write {root.lower()}"
    return _WORDS.get(root.lower(), "")


def _check_comparisons(path: Path, condition: sql.Expr, report: Report) -> None:
    """Comparisons that EMQX takes and that never hold."""
    for each in sql.walk(condition):
        match each:
            case sql.Binary("=", sql.Path(("topic",)), sql.Const(str(text))) if {"+", "#"} & set(
                text.split("/")
            ):
                said = f"topic = '{text}' is true for no message: no topic has a wildcard"
                report.warn(path, said, f"write topic =~ '{text}'")
            case sql.Binary("=~", sql.Path(("payload", *_)) as value, sql.Const(str(text))):
                said = "=~ compares with a topic filter, not with a regular expression"
                report.warn(path, said, f"write regex_match({value}, '{text}')")
            case sql.Path(keys) if 0 in keys[1:]:
                right = sql.Path(tuple(1 if key == 0 else key for key in keys))
                said = f"{each} is always undefined: lists count from 1 here"
                report.warn(path, said, f"write {right} for the first one")


def _check_guards(path: Path, where: str, condition: sql.Expr, report: Report) -> None:
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
    for name, guard in equalities_that_hide(condition):
        if name not in unguarded:
            other, literal = ("a text", "a number") if guard == "is_num" else ("a number", "a text")
            report.warn(
                path,
                f"{name} may be {other}: compared with {literal} it ends the rule with an"
                ' exception, and what stands after "or" is not looked at',
                f'write "({guard}({name}) and {name} = …) or …", or put it last',
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
