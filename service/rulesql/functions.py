"""The functions of the subset, with EMQX's names and meanings.

They raise RuleException where EMQX raises (`bad_sql_function_argument` and its kin).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from service.rulesql.errors import RuleException
from service.rulesql.terms import (
    UNDEFINED,
    from_json,
    is_binary,
    is_number,
    order,
    raw,
    text,
    to_json,
)


@dataclass(frozen=True, slots=True)
class Function:
    """How many arguments, and what it does with them."""

    arity: int
    apply: Callable[..., object]


def _text(value: object) -> str:
    if not is_binary(value):
        raise RuleException("bad_sql_function_argument: text expected")
    return text(value)  # type: ignore[arg-type]


def _bytes(value: object) -> bytes:
    if not is_binary(value):
        raise RuleException("bad_sql_function_argument: text expected")
    return raw(value)


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise RuleException("bad_sql_function_argument: list expected")
    return value


def _number(value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RuleException("bad_sql_function_argument: number expected")
    return value


def _is_null(value: object) -> bool:
    return value is None or value is UNDEFINED


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _base64_decode(value: object) -> bytes:
    try:
        return base64.b64decode(_bytes(value), validate=True)
    except binascii.Error:
        raise RuleException("base64_decode: not base64") from None


def _regex_match(value: object, pattern: object) -> bool:
    try:
        return re.search(_text(pattern), _text(value)) is not None
    except re.error:
        raise RuleException("regex_match: bad regular expression") from None


def _find(value: object, part: object) -> str:
    found = _text(value)
    at = found.find(_text(part))
    return found[at:] if at >= 0 else ""


def _contains(element: object, values: object) -> bool:
    return any(order(element, value) == 0 for value in _list(values))


def _nth(position: object, values: object) -> object:
    items = _list(values)
    if not _is_int(position) or not 1 <= position <= len(items):  # type: ignore[operator]
        raise RuleException("nth: no such element")
    return items[position - 1]  # type: ignore[operator]


def _tokens(value: object, separators: object) -> list[str]:
    """The parts between any of the separator characters, empty ones left out."""
    parts = re.split(f"[{re.escape(_text(separators))}]", _text(value))
    return [part for part in parts if part]


def _split(value: object, separator: object) -> list[str]:
    if not _text(separator):
        raise RuleException("split: empty separator")
    return [part for part in _text(value).split(_text(separator)) if part]


FUNCTIONS: dict[str, Function] = {
    "is_null": Function(1, _is_null),
    "is_not_null": Function(1, lambda value: not _is_null(value)),
    "is_num": Function(1, is_number),
    "is_int": Function(1, _is_int),
    "is_float": Function(1, lambda value: isinstance(value, float)),
    "is_str": Function(1, is_binary),
    "is_bool": Function(1, lambda value: isinstance(value, bool)),
    "is_map": Function(1, lambda value: isinstance(value, Mapping)),
    "is_array": Function(1, lambda value: isinstance(value, list)),
    "base64_encode": Function(1, lambda value: base64.b64encode(_bytes(value)).decode()),
    "base64_decode": Function(1, _base64_decode),
    "json_decode": Function(1, lambda value: from_json(_bytes(value))),
    "json_encode": Function(1, lambda value: to_json(value).decode()),
    "lower": Function(1, lambda value: _text(value).lower()),
    "upper": Function(1, lambda value: _text(value).upper()),
    "trim": Function(1, lambda value: _text(value).strip()),
    "strlen": Function(1, lambda value: len(_text(value))),
    "concat": Function(2, lambda left, right: _bytes(left) + _bytes(right)),
    "regex_match": Function(2, _regex_match),
    "find": Function(2, _find),
    "contains": Function(2, _contains),
    "sha256": Function(1, lambda value: hashlib.sha256(_bytes(value)).hexdigest()),
    "now_timestamp": Function(0, lambda: int(time.time())),
    "abs": Function(1, lambda value: abs(_number(value))),
    "nth": Function(2, _nth),
    "tokens": Function(2, _tokens),
    "split": Function(2, _split),
}
