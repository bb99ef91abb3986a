"""EMQX's `${a.b}` templates over a rule's output."""

from __future__ import annotations

import re
from collections.abc import Mapping

from service.rulesql import UNDEFINED, text, to_json

_HOLE = re.compile(r"\$\{([^}]*)\}")


def lookup(path: str, output: Mapping[str, object]) -> object:
    """The value at a dotted path; UNDEFINED when there is none; `.` is the whole output."""
    value: object = output
    for key in re.findall(r"'([^']*)'|([^.']+)", path):
        value = value.get(key[0] or key[1], UNDEFINED) if isinstance(value, Mapping) else UNDEFINED
    return value


def value_of(template: object, output: Mapping[str, object]) -> object:
    """A template that is one hole keeps its value's type; any other becomes a binary."""
    if not isinstance(template, str):
        return template
    whole = _HOLE.fullmatch(template)
    return lookup(whole[1], output) if whole else render(template, output)


def render(template: str, output: Mapping[str, object]) -> bytes:
    """The template with its holes filled; bytes stay what they are."""
    filled = b""
    at = 0
    for hole in _HOLE.finditer(template):
        filled += template[at : hole.start()].encode() + as_bytes(lookup(hole[1], output))
        at = hole.end()
    return filled + template[at:].encode()


def as_bytes(value: object) -> bytes:
    """A value as EMQX writes it into a template: text as it is, the rest as JSON."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    return b"undefined" if value is UNDEFINED else to_json(value)


def as_text(value: object) -> str:
    """The same as text, invalid bytes replaced."""
    return text(as_bytes(value))
