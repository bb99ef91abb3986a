"""What of an MCP server's tools a model is offered: which, under what names, with what
safeguards, and with schemas that models' servers take. Pure, but for a look at the clock.

The server's words are a stranger's: bounded, and what can't be used leaves its tool out.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any

import orjson

from service.bodies import too_deep
from service.flows import McpServer
from service.flows.check_mcp import BETWEEN
from service.flows.check_schema import check_schema
from service.flows.lines import Lines
from service.flows.report import Report
from service.flows.schemas import Schema, patterns_of
from service.mcp.pattern_cost import cost

LONGEST_NAME = 64  # characters, as OpenAI takes them
LONGEST_DESCRIPTION = 1024
LARGEST_SCHEMA = 16 << 10  # bytes of JSON
MOST = 128  # tools of one server; a model's server takes no more
LOOKED_AT = 1000  # tools that `allow` names; what comes after them is not there
WORK = 1.0  # seconds of computing for one list; what is left of it then is left out
MOST_STATES = 100_000  # of all patterns of a schema, which take about a microsecond each

_BAD = re.compile(r"[^A-Za-z0-9_-]")
_DATA = frozenset({"const", "enum", "default", "examples", "required"})
_NAMED = frozenset({"properties", "$defs", "definitions", "dependentSchemas"})
_STRANGE = frozenset({"$schema", "$id", "$comment", "$vocabulary"})
# OpenAI refuses the whole question where one of these stands at the top of a tool's schema.
_NOT_AT_TOP = ("anyOf", "oneOf", "allOf", "not", "enum", "const", "if", "then", "else")


# By the digest of a schema: what was made of it, or why it can't be used.
Kept = dict[bytes, Schema | str]


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


def allowed(server: McpServer, tool: str) -> bool:
    """Whether `allow` names it."""
    return any(fnmatchcase(tool, pattern) for pattern in server.allow)


def offer(
    server: McpServer, listed: Iterable[Listed], kept: Kept | None = None
) -> tuple[tuple[OfferedTool, ...], dict[str, str]]:
    """The tools that can be offered, and of those that `allow` names and that are not, why.

    `kept` is handed from one list of a server to the next: what did not change costs nothing. All
    of it takes not much longer than WORK, and a thread that does it lets others in between.
    """
    found: dict[str, Listed] = {}
    for tool in islice((tool for tool in listed if allowed(server, tool.name)), LOOKED_AT):
        found.setdefault(tool.name, tool)
    names = {own: name_of(server.name, own) for own in found}
    uses = Counter(names.values())
    schemas = _Schemas({} if kept is None else kept)
    made: list[OfferedTool] = []
    left: dict[str, str] = {}
    for own, tool in found.items():
        try:
            if uses[names[own]] > 1:
                raise ValueError(f"another tool would be called {names[own]} too")
            if _destructive(tool) and server.confirm is None:
                raise ValueError(
                    "it may destroy something, and nobody is asked before (confirm in"
                    f" [mcp.{server.name}] says who is, or false: nobody)"
                )
            if len(made) == MOST:
                raise ValueError(f"a model takes {MOST} tools, and so many go before; narrow allow")
            made.append(_offered(server, tool, names[own], schemas.of(tool)))
        except ValueError as error:
            left[own] = str(error)
    schemas.keep()
    return tuple(made), left


class _Schemas:
    """Those of one list, each looked at once, and no longer than WORK in all."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._now: Kept = {}
        # Of this thread alone: what the machine is busy with beside it leaves no tool out.
        self._until = time.thread_time() + WORK

    def of(self, tool: Listed) -> Schema:
        """Raises ValueError with the reason."""
        written = _written(tool.schema)
        key = hashlib.sha256(written).digest()
        if key not in self._now:
            self._now[key] = self._kept[key] if key in self._kept else self._made(tool.schema)
        made = self._now[key]
        if isinstance(made, str):
            raise ValueError(made)
        return made

    def _made(self, schema: Any) -> Schema | str:
        if time.thread_time() > self._until:
            raise ValueError("the schemas of the tools before it take too long to read")
        try:
            return clean(schema)
        except ValueError as error:
            return str(error)

    def keep(self) -> None:
        self._kept.clear()
        self._kept.update(self._now)


def _destructive(tool: Listed) -> bool:
    # What a server says nothing of is as MCP has it: it may destroy, and must not be repeated.
    return tool.read_only is not True and tool.destructive is not False


def _offered(server: McpServer, tool: Listed, name: str, schema: Schema) -> OfferedTool:
    read_only = tool.read_only is True
    destructive = _destructive(tool)
    repeatable = read_only or tool.idempotent is True
    return OfferedTool(
        name=name,
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


def name_of(server: str, tool: str) -> str:
    """`plant__get_state`; where the tool's own name can't stand, the end is a digest of it. It
    hangs on nothing else: what a model calls must be the same tool whatever is listed beside it."""
    fit = _BAD.sub("_", tool)
    name = f"{server}{BETWEEN}{fit}"
    if len(name) <= LONGEST_NAME and fit == tool:
        return name
    digest = hashlib.sha256(tool.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9]}_{digest}"


def clean(schema: Any) -> Schema:
    """A tool's schema as models' servers take it. Raises ValueError with the reason.

    What is left out is checked by the tool's own server: patterns in another kind of regular
    expression, choices at the top, words that only say where the schema is from.
    """
    if too_deep(_written(schema)):
        raise ValueError("its schema is nested too deeply")
    made = {key: one for key, one in _cleaned(schema).items() if key not in _NOT_AT_TOP}
    if made.get("type", "object") != "object":
        raise ValueError("its schema is not of an object")
    if not isinstance(made.get("properties", {}), Mapping):
        raise ValueError("its schema can't be used: properties is no object")
    made = {**made, "type": "object", "properties": made.get("properties", {})}
    states = sum(cost(one) or 0 for one in {one for _, one in patterns_of((), made)})
    if states > MOST_STATES:
        raise ValueError("its schema can't be used: its patterns take too long to compile")
    report = Report("", Lines({}))
    if not check_schema((), made, report):
        raise ValueError(f"its schema can't be used: {report.faults[0].message}"[:300])
    return Schema(made)


def _written(schema: Any) -> bytes:
    """As JSON. Raises ValueError if it is none, or too large."""
    if not isinstance(schema, Mapping):
        raise ValueError("its schema is no object")
    try:
        written = orjson.dumps(schema)
    except TypeError:
        raise ValueError("its schema has what no JSON has") from None
    if len(written) > LARGEST_SCHEMA:
        raise ValueError(f"its schema has {len(written)} bytes; {LARGEST_SCHEMA} is the most")
    return written


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
    return cost(pattern) is not None
