"""Is it JSON, and is it JSON Schema: `schema`, a tool's `parameters`, `params`."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from service.flows.lines import Path
from service.flows.report import Report, suggest

_TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")


def check_schema(path: Path, schema: Mapping[str, Any], report: Report) -> bool:
    """Report what makes `schema` unusable; whether it is usable."""
    if not check_json(path, schema, report):
        return False
    try:
        Draft202012Validator.check_schema(dict(schema))
    except SchemaError as error:
        message, hint = _worded(error)
        report.add((*path, *error.absolute_path), message, hint)
        return False
    fine = True
    for place, value in _walk(path, schema):
        if place[-1] == "$ref" and isinstance(value, str) and (fault := _fault(value, schema)):
            fine = False
            report.add(place, *fault)
    return fine


def check_json(path: Path, value: Mapping[str, Any], report: Report) -> bool:
    """Report what TOML can say and JSON can't; whether there is none of it."""
    fine = True
    for place, item in _walk(path, value):
        if isinstance(item, datetime.date | datetime.time):
            fine = False
            report.add(place, "a date is no JSON", "put it in quotes")
        elif isinstance(item, float) and not math.isfinite(item):
            fine = False
            report.add(place, f"{item} is no JSON", "write a finite number")
        elif isinstance(item, int) and not -(2**63) <= item < 2**63:
            fine = False
            report.add(place, "is too large a number", "put it in quotes")
    return fine


def _fault(ref: str, schema: Mapping[str, Any]) -> tuple[str, str] | None:
    if not ref.startswith("#"):
        return f'"{ref}" points out of the file', 'only "#/$defs/NAME" is looked up'
    if ref.startswith("#/") and not _resolves(schema, ref[2:]):
        return f'"{ref}" points to nothing', "it counts from the top of this schema"
    return None


def _resolves(schema: Any, pointer: str) -> bool:
    for part in pointer.split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, Mapping) and name in schema:
            schema = schema[name]
        elif isinstance(schema, list) and name.isdecimal() and int(name) < len(schema):
            schema = schema[int(name)]
        else:
            return False
    return True


def _walk(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    """Everything inside `value`, each with its place."""
    pairs: Any = ()
    if isinstance(value, Mapping):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    for key, item in pairs:
        yield (*path, key), item
        yield from _walk((*path, key), item)


def _worded(error: SchemaError) -> tuple[str, str]:
    """jsonschema says for a wrong type that it is "not valid under any of the given schemas"."""
    if (
        error.absolute_path
        and error.absolute_path[-1] == "type"
        and isinstance(error.instance, str)
    ):
        hint = suggest(error.instance, _TYPES) or f"one of {', '.join(_TYPES)}"
        return f'"{error.instance}" is no type of JSON Schema', hint
    if error.validator == "format" and error.validator_value == "regex":
        return "is no regular expression", "in '…' quotes TOML leaves backslashes alone"
    return f"is no JSON Schema: {error.message}"[:200], "see json-schema.org"
