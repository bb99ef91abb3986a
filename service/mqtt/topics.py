"""MQTT topics as data: what is legal, what matches what, and named levels.

A topic *name* is published to; a topic *filter* may hold `+` (one level) and `#` (all that
follow). `TopicPattern` is a filter whose levels can have names: `chatgpt/request/${user}`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from service.errors import ConfigError

MAX_BYTES = 65535  # MQTT's length prefix is two bytes
FIELDS = frozenset({"clientid", "username", "topic", "payload", "id", "qos"})
"""Names that a message brings along; a captured level can't be called so."""

_CAPTURE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class TopicError(ConfigError):
    """A topic pattern that can't be used; `hint` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def _fault_in_text(text: str) -> str | None:
    if not text:
        return "is empty"
    if "\0" in text:
        return "contains NUL"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    return f"is longer than {MAX_BYTES} bytes" if size > MAX_BYTES else None


def fault_in_name(topic: str) -> str | None:
    """Why nobody can publish to `topic`, or None."""
    if "+" in topic or "#" in topic:
        return "contains a wildcard (+ or #)"
    return _fault_in_text(topic)


def fault_in_filter(text: str) -> str | None:
    """Why nobody can subscribe to `text`, or None."""
    levels = text.split("/")
    if any("#" in level for level in levels[:-1]) or (len(levels[-1]) > 1 and "#" in levels[-1]):
        return "has # elsewhere than as its whole last level"
    if any("+" in level and level != "+" for level in levels):
        return "has + as a part of a level"
    return _fault_in_text(text)


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a subscriber of `topic_filter` gets what is published to `topic`."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for index, level in enumerate(wanted):
        if level == "#":
            return index == len(wanted) - 1  # the parent level too: a/# matches a
        if index == len(levels) or level not in ("+", levels[index]):
            return False
    return len(wanted) == len(levels)


def overlap(one: str, other: str) -> bool:
    """Whether some topic is matched by both filters."""
    a, b = one.split("/"), other.split("/")
    for first, second in ((a[0], b[0]), (b[0], a[0])):
        if first in ("+", "#") and second.startswith("$"):
            return False
    for left, right in zip(a, b, strict=False):
        if "#" in (left, right):
            return True
        if left != right and "+" not in (left, right):
            return False
    return len(a) == len(b) or max(a, b, key=len)[min(len(a), len(b))] == "#"


@dataclass(frozen=True, slots=True)
class TopicPattern:
    """A filter with names for some of its levels; made by `parse`.

    `filter` is what EMQX gets, `names` the captured levels from left to right.
    """

    text: str
    filter: str
    names: tuple[str, ...]
    _levels: tuple[tuple[str, str | None], ...] = field(repr=False)  # (filter's level, name)

    @classmethod
    def parse(cls, text: str) -> TopicPattern:
        """Read `text`; raises TopicError with a hint."""
        levels = tuple(_level(level) for level in text.split("/"))
        topic_filter = "/".join(level for level, _ in levels)
        if fault := fault_in_filter(topic_filter):
            raise TopicError(f'topic "{text}" {fault}', "wildcards stand alone: a/+/b, a/#")
        names = tuple(name for _, name in levels if name is not None)
        for name in names:
            if name in FIELDS:
                raise TopicError(
                    f"a level can't be called ${{{name}}}, a field of every message has that name",
                    "choose another name, such as ${device} or ${user}",
                )
            if names.count(name) > 1:
                raise TopicError(f"${{{name}}} stands twice in it", "give each level its own name")
        return cls(text, topic_filter, names, levels)

    def match(self, topic: str) -> dict[str, str] | None:
        """The captured levels of `topic` by name; None if it doesn't fit."""
        if not matches(self.filter, topic):
            return None
        pairs = zip(self._levels, topic.split("/"), strict=False)
        return {name: level for (_, name), level in pairs if name is not None}

    @property
    def rank(self) -> tuple[int, ...]:
        """Sorts patterns by how much they leave open: the smallest is the most specific."""
        return tuple({"+": 1, "#": 2}.get(level, 0) for level, _ in self._levels)

    def __str__(self) -> str:
        return self.text


def _level(level: str) -> tuple[str, str | None]:
    if found := _CAPTURE.fullmatch(level):
        return "+", found[1]
    if "${" not in level:
        return level, None
    if _CAPTURE.search(level):
        raise TopicError(
            f'"{level}" mixes text and a name; a name captures one whole level',
            "split it with /, as in dev/${id}",
        )
    raise TopicError(
        f'"{level}" is no level name', "a name is letters, digits and _, as in ${user}"
    )
