"""Running a rule on one message."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from service.mqtt.topics import matches
from service.rulesql import functions
from service.rulesql.arithmetic import calculate
from service.rulesql.rule_errors import RuleException
from service.rulesql.syntax import (
    COMPARISONS,
    Binary,
    Call,
    Case,
    Const,
    Expr,
    Field,
    List,
    Path,
    Unary,
)
from service.rulesql.terms import (
    UNDEFINED,
    compare,
    from_json,
    is_binary,
    is_number,
    raw,
)


@dataclass(frozen=True, slots=True)
class Rule:
    """A parsed rule: what it selects, from which topic filters, under which condition."""

    sql: str
    fields: tuple[Field, ...]
    sources: tuple[str, ...]
    where: Expr | None = None

    def matches(self, topic: str) -> bool:
        """Whether FROM covers this topic."""
        sources = (source for source in self.sources if "#/" not in source)
        return any(matches(source, topic) for source in sources)

    def run(self, event: Mapping[str, object]) -> dict[str, object] | None:
        """The rule's output for the columns `event`; None when WHERE is false.

        Binaries stay as they are (`bytes` or `str`), what is missing is UNDEFINED; `to_json`
        makes of it what EMQX posts. Raises RuleException where EMQX would raise: SELECT is
        evaluated before WHERE, so its exceptions count even where WHERE is false.
        """
        phase = "select_and_transform_error"
        try:
            output = self._select(event)
            phase = "match_conditions_error"
            if self.where is not None and not holds(self.where, {**event, **output}):
                return None
        except RuleException as error:
            raise RuleException(error.reason, phase) from None
        except RecursionError:
            raise RuleException("nested too deeply", phase) from None
        return output

    def _select(self, event: Mapping[str, object]) -> dict[str, object]:
        columns, output = dict(event), dict[str, object]()
        for field in self.fields:
            if field.expr is None:
                output.update(event)
                continue
            value = evaluate(field.expr, columns)
            alias = field.alias or _named(field.expr)
            if field.alias is None and alias[0] == "payload" and len(alias) > 1:
                columns["payload"] = _decoded(columns.get("payload", UNDEFINED))
            _put(columns, alias, value)
            _put(output, alias, value)
        return output


def evaluate(expr: Expr, columns: Mapping[str, object]) -> object:
    """An expression's value. Raises RuleException."""
    match expr:
        case Const(value):
            return value
        case Path(keys):
            return _read(keys, columns)
        case List(items):
            return [evaluate(item, columns) for item in items]
        case Call(name, args):
            return functions.call(name, [evaluate(arg, columns) for arg in args])
        case Case(whens, otherwise):
            for condition, value in whens:
                if holds(condition, columns):
                    return evaluate(value, columns)
            return UNDEFINED if otherwise is None else evaluate(otherwise, columns)
        case Unary("-", operand):
            negated = evaluate(operand, columns)
            if not is_number(negated):
                raise RuleException("badarith")
            return -negated  # type: ignore[operator]
        case Unary("+", operand):
            return evaluate(operand, columns)
        case Binary(op, left, right) if op in COMPARISONS:
            return _compared(op, evaluate(left, columns), evaluate(right, columns))
        case Binary(op, left, right) if op in ("+", "-", "*", "/", "div", "mod"):
            return calculate(op, evaluate(left, columns), evaluate(right, columns))
    # EMQX has and, or, not, in for conditions only, and can't take `not (a and b)`.
    raise RuleException("function_clause")


def holds(condition: Expr, columns: Mapping[str, object]) -> bool:
    """A condition's truth. Raises RuleException for what is no condition, as a bare value."""
    match condition:
        case Binary("and", left, right):
            return holds(left, columns) and holds(right, columns)
        case Binary("or", left, right):
            return holds(left, columns) or holds(right, columns)
        case Unary("not", operand):
            return evaluate(operand, columns) is False
        case Binary("in", left, List(items)):
            found = evaluate(left, columns)
            values = [evaluate(item, columns) for item in items]
            return any(functions.same(found, value) for value in values)
        case Binary(op) if op in COMPARISONS:
            return bool(evaluate(condition, columns))
        case Const(bool(value)):
            return value
        case Call():
            answer = evaluate(condition, columns)
            if isinstance(answer, bool):
                return answer
            raise RuleException("case_clause")
    raise RuleException("function_clause")


def _compared(op: str, left: object, right: object) -> bool:
    if op == "=~":
        if not is_binary(left) or not is_binary(right):
            raise RuleException("function_clause")
        return matches(raw(right).decode("utf-8", "replace"), raw(left).decode("utf-8", "replace"))
    return compare(op, left, right)


def _read(keys: tuple[str | int, ...], columns: Mapping[str, object]) -> object:
    value: object = columns.get(str(keys[0]), UNDEFINED)
    if keys[0] == "payload" and len(keys) > 1:
        value = _decoded(value)
    for key in keys[1:]:
        if is_binary(value):  # a text that holds JSON can be gone into as well
            text, value = value, UNDEFINED
            with suppress(RuleException):
                value = from_json(raw(text))
        if isinstance(key, int):
            value = functions.nth(key, value) if isinstance(value, list) else UNDEFINED
        else:
            value = value.get(key, UNDEFINED) if isinstance(value, Mapping) else UNDEFINED
    return value


def _decoded(payload: object) -> object:
    return from_json(raw(payload)) if is_binary(payload) else payload


def _named(expr: Expr) -> tuple[str, ...]:
    """The name that EMQX gives a field without AS; for calculated ones it is a makeshift."""
    if isinstance(expr, Path):
        return tuple(str(key) for key in expr.keys)
    if isinstance(expr, Const) and isinstance(expr.value, str):
        return (expr.value,)
    kind = "fun" if isinstance(expr, Call) else "op"
    return (f"_v_{kind}_{time.time_ns()}",)


def _put(target: dict[str, object], keys: tuple[str, ...], value: object) -> None:
    """Sets a nested key; the maps on the way are copied, since an event is not ours."""
    for key in keys[:-1]:
        inner = target.get(key)
        target[key] = dict(inner) if isinstance(inner, Mapping) else {}
        target = target[key]  # type: ignore[assignment]
    target[keys[-1]] = value
