"""Texts with `${name}` in them, EMQX's template syntax, and what the names stand for.

`${user}` is a captured topic level, `${clientid}`, `${username}`, `${topic}`, `${id}` and
`${qos}` are fields of the message, `${payload}` is its text and `${payload.a.0.b}` a value in
its JSON (lists count from 0). `${$}` is a plain `$`; a `$` without `{` needs no escape.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from service.bodies import too_deep
from service.domain import Message
from service.errors import ConfigError, MessageError
from service.mqtt.topics import fault_in_name

_OPEN = re.compile(r"\$\{")
_PART = re.compile(r"[\w-]+")
_INDEX = re.compile(r"\[['\"]?([\w-]+)['\"]?\]")  # other languages write a['b'], a[0]


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


@dataclass(frozen=True, slots=True)
class NamedValues:
    """A value that is a text by its name, and has values of its own by `name.part`."""

    text: str
    values: Mapping[str, Any]


MISSING: Final = _Missing()
"""What a scope gives for a name that has no value; JSON's null is None."""


class TemplateError(ConfigError):
    """A text that is no template; `position` counts its characters from 1."""

    def __init__(self, message: str, position: int, hint: str = "") -> None:
        super().__init__(f"{message} at character {position}")
        self.position = position
        self.hint = hint


class Scope:
    """What the names of a template stand for, for one message.

    Captured levels come first, then the message's fields, then `extras` (a tool's arguments):
    what a model chose can never pass for the sender's name. `text` replaces `${payload}`,
    when a wake word was cut from it.
    """

    def __init__(
        self,
        message: Message,
        captured: Mapping[str, str] | None = None,
        extras: Mapping[str, Any] | None = None,
        *,
        text: str | None = None,
    ) -> None:
        self._message = message
        self._captured = captured or {}
        self._extras = extras or {}
        self._text = text
        self._json: Any = None
        self._decoded = False

    def is_captured(self, name: str) -> bool:
        return name in self._captured

    def get(self, name: str) -> Any:
        """The value of a dotted name, or MISSING."""
        root, *path = name.split(".")
        if not path and root in self._captured:
            return self._captured[root]
        match root:
            case "payload":
                return _walk(self.payload, path) if path else self.text
            case "clientid" | "username" | "topic" | "id" | "qos" if not path:
                value = getattr(self._message, root)
                return MISSING if value is None else value
        value = _walk(self._extras, [root, *path])
        return value.text if isinstance(value, NamedValues) else value

    @property
    def text(self) -> str:
        """The payload as text; bytes that are not UTF-8 become U+FFFD."""
        if self._text is None:
            self._text = self._message.payload.decode(errors="replace")
        return self._text

    @property
    def payload(self) -> Any:
        """The payload as JSON, or MISSING; decoded once."""
        if not self._decoded:
            self._decoded = True
            self._json = decode_json(self._message.payload)
        return self._json


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed text. `names` are its dotted names, each once, in order."""

    text: str
    names: tuple[str, ...]
    parts: tuple[tuple[str, bool], ...] = field(repr=False)  # (text or name, is it a name)

    @classmethod
    def parse(cls, text: str) -> Template:
        """Read `text`; raises TemplateError with position and hint."""
        parts: list[tuple[str, bool]] = []
        at = 0
        while found := _OPEN.search(text, at):
            parts.append((text[at : found.start()], False))
            end = text.find("}", found.end())
            if end < 0:
                raise TemplateError(
                    "${ without its }", found.start() + 1, "close it, or write ${$}{ for a plain ${"
                )
            name = text[found.end() : end]
            parts.append(("$", False) if name == "$" else (_name(name, found.start() + 1), True))
            at = end + 1
        parts.append((text[at:], False))
        names = dict.fromkeys(part for part, is_name in parts if is_name)
        return cls(text, tuple(names), tuple(part for part in parts if part[0]))

    def render(self, scope: Scope) -> str:
        """The text for people and models: what is missing reads `undefined`, as in EMQX.

        A client without an id or a user name is no fault: these are empty then.
        """
        return "".join(
            _shown(part, scope.get(part)) if is_name else part for part, is_name in self.parts
        )

    def render_strict(self, scope: Scope) -> str:
        """The text for keys; raises MessageError `template_missing` if a value is missing."""
        return "".join(_present(part, scope) if is_name else part for part, is_name in self.parts)

    def render_key(self, scope: Scope) -> str:
        """Like `render_strict`, but two different lists of values never make one text: where a
        value has a character that also stands between the values, a digest of them all is added.
        """
        text = self.render_strict(scope)
        values = [_present(part, scope) for part, is_name in self.parts if is_name]
        if len(values) < 2:
            return text
        between = {part for part, is_name in self.parts[1:-1] if not is_name}
        marks = set("".join(between))
        touching = any(one[1] and two[1] for one, two in pairwise(self.parts))
        if not touching and not any(char in value for char in marks for value in values):
            return text
        whole = json.dumps(values).encode()
        return f"{text}#{hashlib.sha256(whole).hexdigest()[:32]}"

    def render_topic(self, scope: Scope) -> str:
        """A topic to publish to.

        Raises MessageError: `template_missing`, or `topic_unsafe` for a value that would
        choose more than one level, since a device must not choose where we publish.
        """
        topic = "".join(_level(part, scope) if is_name else part for part, is_name in self.parts)
        if fault := fault_in_name(topic):
            raise MessageError(f"the topic made of {self.text} {fault}", code="topic_unsafe")
        if topic.startswith("$") and not self._starts_special():
            raise MessageError(f"the topic made of {self.text} starts with $", code="topic_unsafe")
        return topic

    @property
    def topic_filter(self) -> str:
        """A filter that matches every topic this template can make."""
        marked = "".join("\0" if is_name else part for part, is_name in self.parts)
        return "/".join("+" if "\0" in level else level for level in marked.split("/"))

    def _starts_special(self) -> bool:
        """Whether the author, not a value, wrote the whole level `$delayed` of `$delayed/…`."""
        first, is_name = self.parts[0]
        return not is_name and first.startswith("$") and "/" in first

    def __str__(self) -> str:
        return self.text


def decode_json(payload: bytes) -> Any:
    """The payload's JSON, or MISSING: not JSON, not UTF-8, or nested past reason."""
    try:
        value = json.loads(payload.decode(), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return MISSING
    return MISSING if too_deep(payload) else value


def as_text(value: Any) -> str:
    """A JSON value as text: strings bare, the rest as compact JSON (41 rather than 41.0)."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return "undefined"


def _refuse(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are Python's, not JSON's


def _finite(digits: str) -> float:
    if math.isinf(number := float(digits)):
        raise ValueError(digits)
    return number


def _plain(value: Any) -> Any:
    """JSON knows one kind of number; Python writes 41.0 for the one that others write 41."""
    match value:
        case float() if value.is_integer() and abs(value) < 1e15:
            return int(value)
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
    return value


def _name(name: str, position: int) -> str:
    if not name:
        raise TemplateError("${} without a name", position, "write ${payload} for the message")
    for part in name.split("."):
        if not _PART.fullmatch(part):
            hint = "names are letters, digits, _ and -, joined by dots, as in ${payload.a.b}"
            meant = _INDEX.sub(r".\1", name).strip("{} $")
            if all(_PART.fullmatch(each) for each in meant.split(".")):
                hint = f"did you mean ${{{meant}}}?"
            raise TemplateError(f'"{name}" is no name', position, hint)
    return name


def _walk(value: Any, path: list[str]) -> Any:
    for key in path:
        if isinstance(value, NamedValues):
            value = value.values
        if isinstance(value, Mapping):
            value = value.get(key, MISSING)
        elif isinstance(value, list | tuple) and key.isdecimal() and len(key) < 10:
            value = value[int(key)] if int(key) < len(value) else MISSING
        else:
            return MISSING
    return value


def _shown(name: str, value: Any) -> str:
    if value is MISSING:
        return "" if name in ("clientid", "username") else "undefined"
    return as_text(value)


def _present(name: str, scope: Scope) -> str:
    value = scope.get(name)
    if value is MISSING or value is None:
        why = f"the message has no {name}"
        if name.startswith("payload.") and scope.payload is MISSING:
            why += ": it is not JSON"
        raise MessageError(why, code="template_missing")
    return as_text(value)


def _level(name: str, scope: Scope) -> str:
    if scope.is_captured(name):
        return str(scope.get(name))  # one level of a topic already
    value = _present(name, scope)
    if not value or isinstance(scope.get(name), dict | list):
        raise MessageError(f"${{{name}}} is no topic level", code="topic_unsafe")
    if any(char in value for char in "/+#\0") or not _encodes(value):
        raise MessageError(
            f"${{{name}}} contains a character that no topic level may have", code="topic_unsafe"
        )
    return value


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
