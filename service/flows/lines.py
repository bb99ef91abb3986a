"""Where each key of a TOML text stands: tomllib tells values but no lines.

The text has passed tomllib before, so the scanner may trust its syntax: it only has to know
where strings, arrays and inline tables end.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from dataclasses import dataclass

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]*")
_STRINGS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r'"""(?:\\.|[^\\])*?"{3,5}',
        r"'''.*?'{3,5}",
        r'"(?:\\.|[^"\\])*"',
        r"'[^']*'",
    )
)


@dataclass(frozen=True, slots=True)
class Lines:
    """The line of each key, table header and list item, by path."""

    lines: dict[Path, int]

    def of(self, path: Path) -> int | None:
        """The line of `path`, or of the nearest table around it."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return None

    def has(self, path: Path) -> bool:
        return path in self.lines


def scan(text: str) -> Lines:
    """The lines of a valid TOML text."""
    scanner = _Scanner(text)
    scanner.document()
    return Lines(scanner.lines)


def syntax_line(error: tomllib.TOMLDecodeError, text: str) -> int:
    """The line that a syntax error of tomllib speaks of."""
    found = re.search(r"at line (\d+)", str(error))
    return int(found[1]) if found else text.count("\n") + 1


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self.items: dict[Path, int] = {}  # how many [[tables]] there are so far
        self.starts = [0, *(found.end() for found in re.finditer("\n", text))]

    def document(self) -> None:
        table: Path = ()
        while self.peek():
            if self.text.startswith("[[", self.at):
                table = self.header(2)
            elif self.peek() == "[":
                table = self.header(1)
            else:
                self.pair(table)

    def header(self, brackets: int) -> Path:
        line = self.line()
        self.at += brackets
        path = self.resolve(self.key())
        self.peek()
        self.at += brackets
        if brackets == 2:
            index = self.items[path] = self.items.get(path, -1) + 1
            self.note(path, line)
            path = (*path, index)
        self.note(path, line)
        return path

    def resolve(self, keys: tuple[str, ...]) -> Path:
        """The path of a header: under a list of tables it means the latest one."""
        path: Path = ()
        for name in keys:
            if path in self.items:
                path = (*path, self.items[path])
            path = (*path, name)
        return path

    def pair(self, table: Path) -> None:
        line = self.line()
        path = (*table, *self.key())
        self.note(path, line)
        self.peek()
        self.at += 1  # =
        self.value(path)

    def key(self) -> tuple[str, ...]:
        names = []
        while True:
            char = self.peek()
            if char in "\"'":
                quoted = self.string()
                names.append(str(tomllib.loads(f"key = {quoted}")["key"]))
            elif found := _BARE.match(self.text, self.at):
                names.append(found[0])
                self.at = found.end()
            if self.peek() != ".":
                return tuple(names)
            self.at += 1

    def value(self, path: Path) -> None:
        match self.peek():
            case '"' | "'":
                self.string()
            case "[":
                self.array(path)
            case "{":
                self.inline(path)
            case _:
                if found := _SCALAR.match(self.text, self.at):
                    self.at = found.end()

    def array(self, path: Path) -> None:
        self.at += 1
        index = 0
        while self.peek() not in "]":
            self.note((*path, index), self.line())
            self.value((*path, index))
            index += 1
            if self.peek() == ",":
                self.at += 1
        self.at += 1

    def inline(self, path: Path) -> None:
        self.at += 1
        while self.peek() not in "}":
            self.pair(path)
            if self.peek() == ",":
                self.at += 1
        self.at += 1

    def string(self) -> str:
        for pattern in _STRINGS:
            if found := pattern.match(self.text, self.at):
                self.at = found.end()
                return found[0]
        raise ValueError(f"no string at line {self.line()}")  # tomllib would have said so

    def peek(self) -> str:
        """The next character that means something; empty at the end."""
        if found := _BLANK.match(self.text, self.at):
            self.at = found.end()
        return self.text[self.at : self.at + 1]

    def line(self) -> int:
        return bisect_right(self.starts, self.at)

    def note(self, path: Path, line: int) -> None:
        for end in range(1, len(path)):
            self.lines.setdefault(path[:end], line)
        self.lines[path] = line
