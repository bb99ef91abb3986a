"""Erlang's view of values: their order, their comparison, their text and JSON.

A binary is `bytes` or `str`, an atom one of True, False, None (`null`) and UNDEFINED.
"""

from __future__ import annotations

import codecs
import json
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from service.rulesql.rule_errors import RuleException


class Undefined:
    """The atom `undefined`: what a missing column or key reads as."""

    def __repr__(self) -> str:
        return "undefined"


UNDEFINED: Final = Undefined()

_INTEGER = re.compile(r"[+-]?[0-9]+")
_FLOAT = re.compile(r"[+-]?[0-9]+\.[0-9]+([eE][+-]?[0-9]+)?")
_CODECS = "emqx"  # the error handler's name

_OPERATORS: dict[str, Callable[[int, int], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _replace_garbage(error: UnicodeError) -> tuple[str, int]:
    """One U+FFFD for a broken byte and all continuation bytes after it, as EMQX's encoder."""
    assert isinstance(error, UnicodeDecodeError)
    end = error.start + 1
    while end < len(error.object) and error.object[end] & 0xC0 == 0x80:
        end += 1
    return "\ufffd", end


codecs.register_error(_CODECS, _replace_garbage)


def text(value: bytes | str) -> str:
    """A binary as text; bytes that are not UTF-8 become U+FFFD."""
    if isinstance(value, bytes):
        return value.decode("utf-8", _CODECS)
    return value


def is_binary(value: object) -> bool:
    return isinstance(value, bytes | str)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_atom(value: object) -> bool:
    return value is None or value is UNDEFINED or isinstance(value, bool)


def atom_name(value: object) -> str:
    """`true`, `false`, `null` or `undefined`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else "undefined"


def raw(value: object) -> bytes:
    """A binary's bytes. Raises TypeError on anything else."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    raise TypeError(f"not a binary: {type(value).__name__}")


def number(value: object) -> int | float:
    """The number a binary spells, as EMQX does before comparing text with a number."""
    spelt = text(raw(value))
    if _INTEGER.fullmatch(spelt):
        return int(spelt)
    if _FLOAT.fullmatch(spelt):
        return float(spelt)
    raise RuleException("badarg")


def compare(op: str, left: object, right: object) -> bool:
    """`left op right`. Raises RuleException where EMQX would."""
    if (left is UNDEFINED) != (right is UNDEFINED):
        return False
    if is_number(left) and is_binary(right):
        right = number(right)
    elif is_binary(left) and is_number(right):
        left = number(left)
    elif is_atom(left) and is_binary(right):
        left = atom_name(left)
    elif is_binary(left) and is_atom(right):
        right = atom_name(right)
    return _OPERATORS[op](order(left, right), 0)


def order(left: object, right: object) -> int:
    """-1, 0 or 1: number < atom < map < list < binary, as in Erlang."""
    ranks = _rank(left), _rank(right)
    if ranks[0] != ranks[1]:
        return -1 if ranks[0] < ranks[1] else 1
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        if len(left) != len(right):
            return -1 if len(left) < len(right) else 1
        keys = sorted(left, key=raw), sorted(right, key=raw)
        return order(keys[0], keys[1]) or order(
            [left[k] for k in keys[0]], [right[k] for k in keys[1]]
        )
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        for one, other in zip(left, right, strict=False):
            if (sign := order(one, other)) != 0:
                return sign
        return (len(left) > len(right)) - (len(left) < len(right))
    if is_atom(left):
        return _sign(atom_name(left), atom_name(right))
    if is_binary(left):
        return _sign(raw(left), raw(right))
    return _sign(left, right)


def _rank(value: object) -> int:
    if is_number(value):
        return 0
    if is_atom(value):
        return 1
    if isinstance(value, Mapping):
        return 2
    if isinstance(value, list | tuple):
        return 3
    if is_binary(value):
        return 4
    raise RuleException(f"a value of type {type(value).__name__} has no place in a rule")


def _sign(left: Any, right: Any) -> int:
    return int(left > right) - int(left < right)


def from_json(value: bytes | str) -> object:
    """Decoded JSON. Raises RuleException when it is none."""
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        raise RuleException("decode_json_failed") from None


def to_json(value: object) -> bytes:
    """A rule's output as EMQX posts it: `undefined` is a string, lost bytes are U+FFFD."""
    plain = _plain(value)
    try:
        return orjson.dumps(plain)
    except TypeError:  # integers beyond 64 bits, lone surrogates, deep nesting
        try:
            said = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
        except RecursionError:
            raise RuleException("nested too deeply for JSON") from None
        return said.encode("utf-8", "replace")


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return text(value)
    if value is UNDEFINED:
        return "undefined"
    if isinstance(value, Mapping):
        return {text(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
