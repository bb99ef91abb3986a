"""What an endpoint is: how it is called, by whom, with what, and what it answers.

`routes` lists all of them; the application, /openapi.json and /docs are made of that list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from service.domain import State
from service.errors import BadRequest

LARGEST = 2**62


class Needs(StrEnum):
    OPEN = "open"  # anybody
    WEBHOOK = "webhook"  # who has WEBHOOK_TOKEN
    LOOK = "look"  # any token but the webhook's
    ACT = "act"  # an operator's


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of the query, or (`where` "path" or "header") of another place."""

    name: str
    about: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    where: str = "query"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`name` is the handler's. `act` is what is written down when it is called; `errors` are the
    statuses that it answers beside those that all have; `html`: a page for people."""

    method: str
    path: str
    name: str
    about: str
    access: Needs = Needs.LOOK
    params: tuple[Param, ...] = ()
    body: Mapping[str, Any] | None = None
    answers: Mapping[int, str] = field(default_factory=lambda: {200: "as described"})
    answer: Mapping[str, Any] | None = None  # schema of the first of `answers`
    errors: tuple[int, ...] = ()
    act: str | None = None
    media: str = "application/json"
    open_query: bool = False  # it looks at the query itself


def number(least: int, most: int, default: int | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer", "minimum": least, "maximum": most}
    return schema if default is None else schema | {"default": default}


TIME = {
    "type": "string",
    "description": "ISO 8601 with a time zone, or milliseconds since 1970",
    "examples": ["2026-11-26T17:00:00Z"],
    "maxLength": 40,
}
TEXT = {"type": "string", "minLength": 1, "maxLength": 200}


def query(endpoint: Endpoint, given: Mapping[str, str]) -> dict[str, Any]:
    """The query's parameters, checked; those that are not there are None or their default.
    An empty one counts as not there. Raises BadRequest."""
    return checked(tuple(one for one in endpoint.params if one.where == "query"), given)


def checked(params: tuple[Param, ...], given: Mapping[str, str]) -> dict[str, Any]:
    """The same for these parameters."""
    known = {param.name: param for param in params}
    for name in given:
        if name not in known:
            there = ", ".join(known) or "none"
            text = f"unknown parameter {name[:40]!r}; there are: {there}"
            raise BadRequest(text, code="bad_parameter")
    found: dict[str, Any] = {}
    for name, param in known.items():
        text = given.get(name, "")
        found[name] = _read(param, text) if text else param.schema.get("default")
    return found


def _read(param: Param, text: str) -> Any:
    schema = param.schema
    if schema is TIME:
        return moment(param.name, text)
    if schema.get("type") == "integer":
        least, most = schema["minimum"], schema["maximum"]
        if not text.isdecimal() or len(text) > 20 or not least <= int(text) <= most:
            words = f"{param.name} is a number from {least} to {most}"
            raise BadRequest(words, code="bad_parameter")
        return int(text)
    if "enum" in schema and text not in schema["enum"]:
        words = f"no {param.name} {text[:40]!r}; one of {', '.join(schema['enum'])}"
        raise BadRequest(words, code="bad_parameter")
    if len(text) > schema.get("maxLength", 2000):
        words = f"{param.name} has at most {schema['maxLength']} characters"
        raise BadRequest(words, code="bad_parameter")
    return text


def moment(name: str, text: str) -> int:
    """Epoch ms. Raises BadRequest."""
    if text.isdecimal() and len(text) <= 15:
        return int(text)
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))  # "+" that nobody quoted in a URL
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return int(at.timestamp() * 1000)
    except (ValueError, OverflowError):
        words = f"{name} is a time like 2026-11-26T17:00:00Z, or milliseconds since 1970"
        raise BadRequest(words, code="bad_parameter") from None


FILTERS = (
    Param("state", "only in this state", {"type": "string", "enum": [str(one) for one in State]}),
    Param("flow", "only of this flow", TEXT),
    Param("conversation", "only of this conversation; with `flow` it is found at once", TEXT),
    Param("error", "only with this error code", TEXT),
    Param(
        "text",
        "only where the topic, or the first 4 KB of question or reply, has this; in any case of"
        " a-z",
        TEXT,
    ),
    Param("since", "only accepted at this time or later", TIME),
    Param("until", "only accepted before this time", TIME),
)
PAGE = (
    Param("limit", "most items of a page", number(1, 500, 50)),
    Param("before", "`next` of the page before: what stands behind it", number(1, LARGEST)),
)
