"""Is it JSON, and is it JSON Schema: `schema`, a tool's `parameters`, `params`."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema_rs

from service.flows.lines import Path
from service.flows.regex import RegexError, in_schema
from service.flows.report import Report, suggest
from service.flows.schemas import LARGEST, CompiledSchema, extent, patterns_of, target

_TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")


def check_schema(path: Path, schema: Mapping[str, Any], report: Report) -> bool:
    """Report what makes `schema` unusable; whether it is usable."""
    if not check_json(path, schema, report):
        return False
    fine = True
    for place, pattern in patterns_of(path, schema):
        try:
            in_schema(pattern)
        except RegexError as error:
            fine = False
            report.add(place, error.message, error.hint)
    if not fine:
        return False
    try:
        jsonschema_rs.meta.validate(dict(schema))
    except jsonschema_rs.ValidationError as error:
        message, hint = _worded(error)
        report.add((*path, *error.instance_path), message, hint)
        return False
    for place, value in _walk(path, schema):
        if place[-1] == "$ref" and isinstance(value, str) and (fault := _fault(value, schema)):
            fine = False
            report.add(place, *fault)
    return fine and _compiles(path, schema, report)


def _compiles(path: Path, schema: Mapping[str, Any], report: Report) -> bool:
    if extent(schema) > LARGEST:
        hint = "what points to it twice doubles it: say it once, or with fewer levels"
        report.add(path, f"stands for more than {LARGEST} schemas, each $ref written out", hint)
        return False
    try:
        CompiledSchema(schema)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        said = str(getattr(error, "message", error)).splitlines()
        report.add(path, f"can't be used: {said[0] if said else error}"[:200], "say it simpler")
        return False
    return True


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
    if target(schema, ref) is None:
        return f'"{ref}" points to nothing', "it counts from the top of this schema"
    return None


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


def _worded(error: jsonschema_rs.ValidationError) -> tuple[str, str]:
    """For a wrong type it is said that it is "not valid under any of the schemas"."""
    place = error.instance_path
    if place and place[-1] == "type" and isinstance(error.instance, str):
        hint = suggest(error.instance, _TYPES) or f"one of {', '.join(_TYPES)}"
        return f'"{error.instance}" is no type of JSON Schema', hint
    return f"is no JSON Schema: {error.message}"[:200], "see json-schema.org"
