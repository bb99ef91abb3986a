"""Running a rule on one message."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from service.mqtt.topics import matches
from service.rulesql.errors import RuleException
from service.rulesql.functions import FUNCTIONS
from service.rulesql.syntax import COMPARISONS, Binary, Call, Case, Const, Expr, Field, Path, Unary
from service.rulesql.terms import UNDEFINED, compare, from_json, is_binary, is_number, raw

_ARITHMETIC: dict[str, Callable[[int | float, int | float], int | float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """A parsed rule: what it selects, from which topic filters, under which condition."""

    sql: str
    fields: tuple[Field, ...]
    sources: tuple[str, ...]
    where: Expr | None = None

    def matches(self, topic: str) -> bool:
        """Whether FROM covers this topic."""
        return any(matches(source, topic) for source in self.sources)

    def run(self, event: Mapping[str, object]) -> dict[str, object] | None:
        """The rule's output for the columns `event`; None when WHERE is false.

        Binaries stay as they are (`bytes` or `str`), what is missing is UNDEFINED; `to_json`
        makes of it what EMQX posts. Raises RuleException where EMQX would raise: SELECT is
        evaluated before WHERE, so its exceptions count even where WHERE is false.
        """
        columns: dict[str, object] = dict(event)
        output: dict[str, object] = {}
        try:
            for field in self.fields:
                if field.expr is None:
                    output.update(columns)
                    continue
                value = evaluate(field.expr, columns)
                alias = field.alias or _named(field.expr)
                if field.alias is None and alias[0] == "payload" and len(alias) > 1:
                    columns["payload"] = _decoded(columns.get("payload", UNDEFINED))
                _put(columns, alias, value)
                _put(output, alias, value)
            if self.where is not None and not holds(self.where, columns):
                return None
        except RecursionError:
            raise RuleException("nested too deeply") from None
        return output


def evaluate(expr: Expr, columns: Mapping[str, object]) -> object:
    """An expression's value. Raises RuleException."""
    match expr:
        case Const(value):
            return value
        case Path(keys):
            return _read(keys, columns)
        case Call(name, args):
            return FUNCTIONS[name].apply(*(evaluate(arg, columns) for arg in args))
        case Case(whens, otherwise):
            for condition, value in whens:
                if _true(condition, columns):
                    return evaluate(value, columns)
            return UNDEFINED if otherwise is None else evaluate(otherwise, columns)
        case Unary("-", operand):
            negated = evaluate(operand, columns)
            if not is_number(negated):
                raise RuleException("arithmetic on something that is no number")
            return -negated  # type: ignore[operator]
        case Unary():
            return evaluate(expr.operand, columns) is False
        case Binary("and", left, right):
            return holds(left, columns) and holds(right, columns)
        case Binary("or", left, right):
            return holds(left, columns) or holds(right, columns)
        case Binary(op, left, right) if op in COMPARISONS:
            return compare(op, evaluate(left, columns), evaluate(right, columns))
    return _calculate(expr.op, evaluate(expr.left, columns), evaluate(expr.right, columns))


def holds(condition: Expr, columns: Mapping[str, object]) -> bool:
    """A condition's truth. Raises RuleException when it is neither true nor false."""
    value = evaluate(condition, columns)
    if not isinstance(value, bool):
        raise RuleException("a condition is neither true nor false")
    return value


def _true(condition: Expr, columns: Mapping[str, object]) -> bool:
    return evaluate(condition, columns) is True


def _calculate(op: str, left: object, right: object) -> object:
    if op == "+" and is_binary(left) and is_binary(right):
        return raw(left) + raw(right)
    if not is_number(left) or not is_number(right):
        raise RuleException("arithmetic on something that is no number")
    assert isinstance(left, int | float)
    assert isinstance(right, int | float)
    try:
        if op in _ARITHMETIC:
            return _ARITHMETIC[op](left, right)
        if not isinstance(left, int) or not isinstance(right, int):
            raise RuleException(f"{op} wants whole numbers")
        quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
        return quotient if op == "div" else left - quotient * right  # Erlang truncates
    except (ZeroDivisionError, OverflowError) as exc:
        raise RuleException(f"badarith: {exc}") from None


def _read(keys: tuple[str | int, ...], columns: Mapping[str, object]) -> object:
    value: object = columns.get(str(keys[0]), UNDEFINED)
    if keys[0] == "payload" and len(keys) > 1:
        value = _decoded(value)
    for key in keys[1:]:
        if isinstance(key, int):
            inside = isinstance(value, list) and 1 <= key <= len(value)
            value = value[key - 1] if inside else UNDEFINED  # type: ignore[index]
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
