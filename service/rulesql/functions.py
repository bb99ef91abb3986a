"""The functions of the subset, with EMQX's names and meanings.

They raise RuleException where EMQX raises, with its reason.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from service.rulesql.arithmetic import calculate, joined, shown, written
from service.rulesql.rule_errors import RuleException
from service.rulesql.terms import (
    UNDEFINED,
    from_json,
    is_binary,
    is_number,
    number,
    order,
    raw,
    text,
    to_json,
)


class _Unfit(Exception):
    """An argument that no clause of the function takes."""


def call(name: str, args: list[object]) -> object:
    """A function's value. Raises RuleException."""
    found = FUNCTIONS.get(name)
    if found is None or len(args) not in found[0]:
        if name in OTHERS or name in FUNCTIONS:
            raise RuleException(f"{name} is outside the subset that is evaluated here")
        raise RuleException(
            {
                "reason": "sql_function_not_supported",
                "module": "emqx_rule_funcs",
                "function": name,
            }
        )
    try:
        return found[1](*args)
    except _Unfit:
        raise RuleException(
            {
                "reason": "bad_sql_function_argument",
                "function_name": name,
                "arguments": [shown(arg) for arg in args],
            }
        ) from None
    except (ZeroDivisionError, OverflowError):
        raise RuleException("badarith") from None
    except re.error:
        raise RuleException("badarg") from None


def same(left: object, right: object) -> bool:
    """Erlang's `=:=`: 1 is not 1.0."""
    if is_number(left) and is_number(right) and isinstance(left, float) != isinstance(right, float):
        return False
    return order(left, right) == 0


def nth(position: int, items: list[object]) -> object:
    """An element, counted from 1 or from -1 at the end; UNDEFINED where there is none."""
    at = position - 1 if position > 0 else len(items) + position
    return items[at] if position and 0 <= at < len(items) else UNDEFINED


def _text(value: object) -> str:
    if not is_binary(value):
        raise _Unfit
    return text(value)  # type: ignore[arg-type]


def _bytes(value: object) -> bytes:
    if not is_binary(value):
        raise _Unfit
    return raw(value)


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise _Unfit
    return value


def _map(value: object) -> Mapping[str, object]:
    if is_binary(value):
        value = from_json(raw(value))
    if not isinstance(value, Mapping):
        raise RuleException("badarg")
    return value


def _number(value: object) -> Any:
    if not is_number(value):
        raise _Unfit
    return value


def _integer(value: object) -> int:
    if not _is_int(value):
        raise _Unfit
    return value  # type: ignore[return-value]


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_null(value: object) -> bool:
    return value is UNDEFINED


def _is_null_var(value: object) -> bool:
    return value is None or value is UNDEFINED


def _is_empty(value: object) -> bool:
    if isinstance(value, list | Mapping | str | bytes):
        return not value
    return False


def _to_number(value: object) -> int | float:
    if isinstance(value, bool):
        return int(value)
    if is_number(value):
        return value  # type: ignore[return-value]
    if is_binary(value):
        return number(value)
    raise RuleException("badarg")


def _to_bool(value: object) -> bool:
    for truth, name in ((True, "true"), (False, "false")):
        if value is truth or (is_binary(value) and text(value) == name):  # type: ignore[arg-type]
            return truth
        if is_number(value) and value == int(truth):
            return truth
    raise RuleException("badarg")


def _base64_decode(value: object) -> bytes:
    try:
        return base64.b64decode(_bytes(value), validate=True)
    except binascii.Error:
        raise RuleException("badarg") from None


def _coalesce(*values: object) -> object:
    items = _list(values[0]) if len(values) == 1 else values
    return next((value for value in items if value is not UNDEFINED), UNDEFINED)


def _find(value: object, part: object) -> str:
    found = _text(value)
    at = found.find(_text(part))
    return found[at:] if at >= 0 else ""


def _nth(position: object, values: object) -> object:
    found = nth(_integer(position), _list(values)) if _integer(position) > 0 else UNDEFINED
    if found is UNDEFINED:
        raise _Unfit
    return found


def _tokens(value: object, separators: object) -> list[str]:
    """The parts between any of the separator characters, empty ones left out."""
    parts = re.split(f"[{re.escape(_text(separators))}]", _text(value))
    return [part for part in parts if part]


def _split(value: object, separator: object) -> list[str]:
    if not _text(separator):
        raise RuleException("badarg")
    return [part for part in _text(value).split(_text(separator)) if part]


def _substr(value: object, start: object, length: object = None) -> str:
    found, at = _text(value), _integer(start)
    return found[at:] if length is None else found[at : at + _integer(length)]


def _map_get(key: object, value: object, default: object = UNDEFINED) -> object:
    return _map(value).get(_text(key), default)


def _rounded(how: Callable[[float], int]) -> Callable[[object], int]:
    return lambda value: how(_number(value))


def _round(value: float) -> int:
    return math.floor(abs(value) + 0.5) * (1 if value >= 0 else -1)  # half away from zero


def _calculated(op: str) -> Callable[[object, object], object]:
    def apply(left: object, right: object) -> object:
        return calculate(op, left, right)

    return apply


def _hash(algorithm: str) -> Callable[[object], str]:
    return lambda value: hashlib.new(algorithm, _bytes(value)).hexdigest()


def _first(values: object) -> object:
    if not _list(values):
        raise RuleException("function_clause")
    return _list(values)[0]


# Name → how many arguments, and what it does with them.
FUNCTIONS: dict[str, tuple[tuple[int, ...], Callable[..., object]]] = {
    "is_null": ((1,), _is_null),
    "is_not_null": ((1,), lambda value: not _is_null(value)),
    "is_null_var": ((1,), _is_null_var),
    "is_not_null_var": ((1,), lambda value: not _is_null_var(value)),
    "is_num": ((1,), is_number),
    "is_int": ((1,), _is_int),
    "is_float": ((1,), lambda value: isinstance(value, float)),
    "is_str": ((1,), is_binary),
    "is_bool": ((1,), lambda value: isinstance(value, bool)),
    "is_map": ((1,), lambda value: isinstance(value, Mapping)),
    "is_array": ((1,), lambda value: isinstance(value, list)),
    "is_empty": ((1,), _is_empty),
    "str": ((1,), lambda value: written(value)),
    "int": ((1,), lambda value: math.floor(_to_number(value))),
    "float": ((1,), lambda value: float(_to_number(value))),
    "bool": ((1,), _to_bool),
    "lower": ((1,), lambda value: _text(value).lower()),
    "upper": ((1,), lambda value: _text(value).upper()),
    "trim": ((1,), lambda value: _text(value).strip()),
    "strlen": ((1,), lambda value: len(_text(value))),
    "substr": ((2, 3), _substr),
    "concat": ((2,), joined),
    "replace": ((3,), lambda value, old, new: _text(value).replace(_text(old), _text(new))),
    "find": ((2,), _find),
    "split": ((2,), _split),
    "tokens": ((2,), _tokens),
    "pad": ((2,), lambda value, size: _text(value).ljust(_integer(size))),
    "rm_prefix": ((2,), lambda value, prefix: _text(value).removeprefix(_text(prefix))),
    "ascii": ((1,), lambda value: ord(_text(value)[0])),
    "regex_match": ((2,), lambda value, found: bool(re.search(_text(found), _text(value)))),
    "nth": ((2,), _nth),
    "first": ((1,), _first),
    "last": ((1,), lambda values: _first(_list(values)[::-1])),
    "length": ((1,), lambda values: len(_list(values))),
    "contains": ((2,), lambda one, values: any(same(one, each) for each in _list(values))),
    "coalesce": ((1, 2), _coalesce),
    "map_new": ((0,), dict),
    "map_get": ((2, 3), _map_get),
    "mget": ((2, 3), _map_get),
    "abs": ((1,), lambda value: abs(_integer(value))),
    "round": ((1,), _rounded(_round)),
    "ceil": ((1,), _rounded(math.ceil)),
    "floor": ((1,), _rounded(math.floor)),
    "power": ((2,), lambda base, to: float(_number(base)) ** _number(to)),
    "sqrt": ((1,), lambda value: math.sqrt(_number(value))),
    "div": ((2,), _calculated("div")),
    "mod": ((2,), _calculated("mod")),
    "md5": ((1,), _hash("md5")),
    "sha": ((1,), _hash("sha1")),
    "sha256": ((1,), _hash("sha256")),
    "bin2hexstr": ((1,), lambda value: _bytes(value).hex().upper()),
    "base64_encode": ((1,), lambda value: base64.b64encode(_bytes(value)).decode()),
    "base64_decode": ((1,), _base64_decode),
    "json_encode": ((1,), lambda value: to_json(value).decode()),
    "json_decode": ((1,), lambda value: from_json(_bytes(value))),
    "now_timestamp": ((0,), lambda: int(time.time())),
}

# What EMQX 5.8.9 has besides: known to `check`, not evaluated here.
_OTHERS = """
    msgid qos flags flag topic clientid clientip peerhost username payload contains_topic
    contains_topic_match null coalesce_ne eq acos acosh asin asinh atan atanh cos cosh exp fmod
    log log10 log2 sin sinh tan tanh bitnot bitand bitor bitxor bitsl bitsr bitsize bytesize
    subbits str_utf8 str_utf16_le float2str map hexstr2bin sqlserver_bin2hexstr ltrim reverse
    rtrim sprintf_s sprintf regex_replace regex_extract join_to_string map_to_redis_hset_args
    join_to_sql_values_string jq unescape map_put map_keys map_values map_to_entries map_size mput
    sublist hash zip unzip gzip gunzip zip_compress zip_uncompress term_decode term_encode
    now_rfc3339 unix_ts_to_rfc3339 rfc3339_to_unix_ts format_date date_to_unix_ts
    timezone_to_second timezone_to_offset_seconds getenv mongo_date random uuid_v4
    uuid_v4_no_hyphen proc_dict_get proc_dict_put proc_dict_del kv_store_get kv_store_put
    kv_store_del
"""
OTHERS = frozenset(_OTHERS.split())
