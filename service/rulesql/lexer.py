"""Rule SQL as a list of tokens that know where they stand."""

from __future__ import annotations

import re
from dataclasses import dataclass

from service.rulesql.errors import SqlError

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<string>'[^']*')
      | (?P<source>"[^"]*")
      | (?P<op><>|!=|>=|<=|[-+*/=<>(),.\[\]])""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is number, name, string, source, op or end; `text` as written."""

    kind: str
    text: str
    at: int

    def word(self) -> str:
        """A name in lower case: keywords are matched without case."""
        return self.text.lower() if self.kind == "name" else ""


def tokens(sql: str) -> list[Token]:
    """All tokens and one of kind `end`. Raises SqlError on a character outside the subset."""
    found: list[Token] = []
    at = 0
    while at < len(sql):
        match = _TOKEN.match(sql, at)
        if match is None:
            raise error(sql, at, f"unexpected {sql[at]!r}", hint=_hint(sql[at]))
        if match.lastgroup != "space":
            found.append(Token(match.lastgroup or "", match.group(), at))
        at = match.end()
    found.append(Token("end", "", at))
    return found


def error(sql: str, at: int, message: str, *, hint: str = "", emqx: str = "") -> SqlError:
    """A SqlError that points at offset `at`."""
    line = sql.count("\n", 0, at) + 1
    column = at - (sql.rfind("\n", 0, at) + 1) + 1
    return SqlError(message, line=line, column=column, hint=hint, emqx=emqx)


def _hint(character: str) -> str:
    if character == "'":
        return "a text that is not closed"
    if character == '"':
        return "a topic filter that is not closed"
    return "outside the subset of EMQX's SQL that is understood here"
