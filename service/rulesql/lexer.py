"""Rule SQL as a list of tokens that know where they stand."""

from __future__ import annotations

import re
from dataclasses import dataclass

from service.rulesql.rule_errors import SqlError

_WORDS = """
and as case if else elsif from in not or select when then foreach incase end do where
"""
_KEYWORDS = frozenset(_WORDS.split())
# The longest match wins in EMQX, the first one here: so comments stand before the minus, and a
# float before an integer. A comment needs its line break: without one it is two minuses.
_TOKEN = re.compile(
    r"""(?P<space>\s+ | --[^\n]*\n)
      | (?P<float>[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)? | [0-9]{2,}[eE][+-]?[0-9]+)
      | (?P<integer>[0-9]+)
      | (?P<name>[A-Za-z][A-Za-z0-9_$@~]*)
      | (?P<string>'(?:[^']|'')*')
      | (?P<quoted>"(?:[^"]|"")*")
      | (?P<comparison>=~|~=|!=|<>|<=|>=|=|<|>)
      | (?P<op>[-+*/(),.\[\]])""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is name, keyword, string, quoted, integer, float, comparison, op or end."""

    kind: str
    text: str
    at: int

    def keyword(self) -> str:
        """A keyword in lower case, or div and mod, which stand between numbers."""
        if self.kind == "keyword":
            return self.text.lower()
        return self.text if self.kind == "name" and self.text in ("div", "mod") else ""

    def emqx(self) -> str:
        """How EMQX writes it in an error."""
        if self.kind == "end":
            return ""
        if self.kind in ("op", "comparison", "keyword"):
            return f"'{self.text.upper()}'"
        return '"' + self.text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def tokens(sql: str) -> list[Token]:
    """All tokens and one of kind `end`. Raises SqlError on a character that EMQX does not know."""
    found: list[Token] = []
    at = 0
    while at < len(sql):
        match = _TOKEN.match(sql, at)
        if match is None:
            emqx = '{"lex_error":"sql_lex"}'
            raise error(sql, at, f"unexpected {sql[at]!r}", hint=_hint(sql[at]), emqx=emqx)
        kind = match.lastgroup or ""
        if kind == "name" and match.group().lower() in _KEYWORDS:
            kind = "keyword"
        if kind != "space":
            found.append(Token(kind, match.group(), at))
        at = match.end()
    found.append(Token("end", "", at))
    return found


def error(sql: str, at: int, message: str, *, hint: str = "", emqx: str = "") -> SqlError:
    """A SqlError that points at offset `at`."""
    line = sql.count("\n", 0, at) + 1
    column = at - (sql.rfind("\n", 0, at) + 1) + 1
    return SqlError(message, line=line, column=column, hint=hint, emqx=emqx)


def _hint(character: str) -> str:
    return {
        "'": "a text that is not closed; EMQX knows no \\ before a quote",
        '"': "a name that is not closed",
        ";": "leave the semicolon out",
        "`": "a key with other characters stands in single quotes: payload.'my key'",
        "_": "a name begins with a letter; a key like this stands in single quotes",
    }.get(character, "EMQX's SQL knows no such character outside of quotes")
