"""Arithmetic of rules: numbers, and texts joined by +. Pure."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from service.rulesql.rule_errors import RuleException
from service.rulesql.terms import atom_name, from_json, is_atom, is_binary, is_number, raw, to_json

_ARITHMETIC: dict[str, Callable[[int | float, int | float], int | float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


def calculate(op: str, left: object, right: object) -> object:
    """Arithmetic; + joins texts. Raises RuleException."""
    if op == "+" and (is_binary(left) or is_binary(right)):
        return joined(left, right)
    wrong = RuleException(
        {
            "reason": "bad_sql_function_argument",
            "function_name": op,
            "arguments": [shown(left), shown(right)],
        }
    )
    if not is_number(left) or not is_number(right):
        raise wrong
    assert isinstance(left, int | float)
    assert isinstance(right, int | float)
    try:
        if op in _ARITHMETIC:
            return _ARITHMETIC[op](left, right)
        if not isinstance(left, int) or not isinstance(right, int):
            raise wrong
        quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
        return quotient if op == "div" else left - quotient * right  # Erlang truncates
    except (ZeroDivisionError, OverflowError):
        raise RuleException("badarith") from None


def written(value: object) -> bytes | str:
    """Any value as text, as `str` does it."""
    if is_binary(value):
        return value  # type: ignore[return-value]
    if is_atom(value):
        return atom_name(value)
    if isinstance(value, float):
        return f"{value:.10f}".rstrip("0") + ("0" if value == int(value) else "")
    return str(value) if is_number(value) else to_json(value).decode()


def joined(*values: object) -> bytes:
    """Texts in one; what is none is written as text first."""
    return b"".join(raw(written(value)) for value in values)


def shown(value: object) -> Any:
    """A value inside an error, as JSON."""
    return from_json(to_json(value))
