"""What of an MCP server's tools a model is offered: which, under what names, with what
safeguards, and with schemas that models' servers take. Pure.

The server's words are a stranger's: bounded, and what can't be used leaves its tool out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import orjson

from service.bodies import too_deep
from service.flows import McpServer
from service.flows.check_mcp import BETWEEN
from service.flows.check_schema import check_schema
from service.flows.lines import Lines
from service.flows.regex import RegexError, in_schema
from service.flows.report import Report
from service.flows.schemas import Schema

LONGEST_NAME = 64  # characters, as OpenAI takes them
LONGEST_DESCRIPTION = 1024
LARGEST_SCHEMA = 16 << 10  # bytes of JSON

_BAD = re.compile(r"[^A-Za-z0-9_-]")
_DATA = frozenset({"const", "enum", "default", "examples", "required"})
_NAMED = frozenset({"properties", "$defs", "definitions", "dependentSchemas"})
_STRANGE = frozenset({"$schema", "$id", "$comment", "$vocabulary"})
# OpenAI refuses the whole question where one of these stands at the top of a tool's schema.
_NOT_AT_TOP = ("anyOf", "oneOf", "allOf", "not", "enum", "const", "if", "then", "else")


@dataclass(frozen=True, slots=True)
class Listed:
    """A tool as its server lists it. The hints are its server's word, None where it has none."""

    name: str
    description: str = ""
    schema: Any = None
    read_only: bool | None = None
    destructive: bool | None = None
    idempotent: bool | None = None


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool as a model is offered it. `at_most_once`: a call that may have been made is not made
    again; `confirm`: a person has to be asked before. `timeout` in seconds."""

    name: str
    server: str
    own_name: str
    description: str
    schema: Schema
    destructive: bool
    idempotent: bool
    read_only: bool
    confirm: bool
    at_most_once: bool
    timeout: float


def offer(
    server: McpServer, listed: Sequence[Listed]
) -> tuple[tuple[OfferedTool, ...], dict[str, str]]:
    """The tools that can be offered, and of those that `allow` names and that are not, why."""
    made: dict[str, OfferedTool] = {}
    left: dict[str, str] = {}
    for tool in listed:
        if not any(fnmatchcase(tool.name, pattern) for pattern in server.allow):
            continue
        try:
            schema = clean(tool.schema)
        except ValueError as error:
            left[tool.name] = str(error)
            continue
        one = _offered(server, tool, schema, made.keys())
        if one.confirm:
            left[tool.name] = (
                "it may destroy something, and nobody can be asked before"
                f" (confirm = false in [mcp.{server.name}] offers it all the same)"
            )
        else:
            made[one.name] = one
    return tuple(made.values()), left


def _offered(
    server: McpServer, tool: Listed, schema: Schema, taken: Mapping[str, Any] | Any
) -> OfferedTool:
    read_only = tool.read_only is True
    # What a server says nothing of is as MCP has it: it may destroy, and must not be repeated.
    destructive = not read_only and tool.destructive is not False
    repeatable = read_only or tool.idempotent is True
    return OfferedTool(
        name=name_of(server.name, tool.name, taken),
        server=server.name,
        own_name=tool.name,
        description=tool.description.strip()[:LONGEST_DESCRIPTION] or tool.name,
        schema=schema,
        destructive=destructive,
        idempotent=repeatable,
        read_only=read_only,
        confirm=destructive and server.confirm is not False,
        at_most_once=not repeatable if server.at_most_once is None else server.at_most_once,
        timeout=server.timeout,
    )


def name_of(server: str, tool: str, taken: Any = ()) -> str:
    """`plant__get_state`; of a long or taken name the end is a digest of all of it."""
    name = f"{server}{BETWEEN}{_BAD.sub('_', tool)}"
    if len(name) > LONGEST_NAME or name in taken:
        digest = hashlib.sha256(tool.encode("utf-8", "replace")).hexdigest()[:8]
        name = f"{name[: LONGEST_NAME - 9]}_{digest}"
    return name


def clean(schema: Any) -> Schema:
    """A tool's schema as models' servers take it. Raises ValueError with the reason.

    What is left out is checked by the tool's own server: patterns in another kind of regular
    expression, choices at the top, words that only say where the schema is from.
    """
    if not isinstance(schema, Mapping):
        raise ValueError("its schema is no object")
    try:
        written = orjson.dumps(schema)
    except TypeError:
        raise ValueError("its schema has what no JSON has") from None
    if len(written) > LARGEST_SCHEMA:
        raise ValueError(f"its schema has {len(written)} bytes; {LARGEST_SCHEMA} is the most")
    if too_deep(written):
        raise ValueError("its schema is nested too deeply")
    made = {key: one for key, one in _cleaned(schema).items() if key not in _NOT_AT_TOP}
    if made.get("type", "object") != "object":
        raise ValueError("its schema is not of an object")
    if not isinstance(made.get("properties", {}), Mapping):
        raise ValueError("its schema can't be used: properties is no object")
    made = {**made, "type": "object", "properties": made.get("properties", {})}
    report = Report("", Lines({}))
    if not check_schema((), made, report):
        raise ValueError(f"its schema can't be used: {report.faults[0].message}"[:300])
    return Schema(made)


def _cleaned(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_cleaned(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    return dict(_kept(schema))


def _kept(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in schema.items():
        if key in _STRANGE or key.startswith("x-"):
            continue
        if key in _DATA:
            yield key, value
        elif key == "pattern":
            if isinstance(value, str) and _known(value):
                yield key, value
        elif key == "patternProperties" and isinstance(value, Mapping):
            if all(map(_known, value)):
                yield key, {name: _cleaned(one) for name, one in value.items()}
        elif key in _NAMED and isinstance(value, Mapping):
            yield key, {name: _cleaned(one) for name, one in value.items()}
        else:
            yield key, _cleaned(value)


def _known(pattern: str) -> bool:
    try:
        in_schema(pattern)
    except RegexError:
        return False
    return True
