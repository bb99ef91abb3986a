"""What people write in a condition who know another language, and how EMQX's SQL says it.

Only asked about a condition that EMQX refuses, so each is a guess at what was meant; a text in
single quotes is never looked into.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_VALUE = r"[\w.'\[\]]+"
_LONGEST = 60


@dataclass(frozen=True, slots=True)
class Foreign:
    """`said` is what stands at `line` and `column` (from 1), `hint` what to write."""

    said: str
    hint: str
    line: int
    column: int


# The first that fits at a place counts. \1 and so on in a hint are what was found.
_WORDS: tuple[tuple[str, str, str], ...] = (
    (r"===?", "EMQX's SQL compares with one =", "write ="),
    (r"!==", "EMQX's SQL knows no !==", "write !="),
    (r"=>", "EMQX's SQL knows no =>", "write >="),
    (r"=<", "EMQX's SQL knows no =<", "write <="),
    (r"&&?", "EMQX's SQL knows no &", "write and"),
    (r"\|\|?", "EMQX's SQL knows no |", "write or"),
    (
        rf"!\s*({_VALUE})(?=\s*(?:$|&|\||\)|and\b|or\b))",
        "EMQX's SQL knows no !",
        r"write \1 = false",
    ),
    (r"!(?!=)", "EMQX's SQL knows no !", "write not (…)"),
    (
        rf"({_VALUE})\s+(?i:is\s+not)\s+(?i:null|none|undefined|nil)\b",
        "EMQX's SQL knows no is not",
        r"write is_not_null_var(\1)",
    ),
    (
        rf"({_VALUE})\s+(?i:is)\s+(?i:null|none|undefined|nil)\b",
        "EMQX's SQL knows no is",
        r"write is_null_var(\1)",
    ),
    (r"\b(?i:is\s+not)\b", "EMQX's SQL knows no is not", "write !="),
    (r"\b(?i:is)\b", "EMQX's SQL knows no is", "write ="),
    (r"\b(?i:in)\s*\[([^\]]*)\]", "after in stand parentheses", r"write in (\1)"),
    (r"\b(?i:in)\s*('[^']*'|[0-9.]+)", "after in stand parentheses", r"write in (\1)"),
    (
        rf"({_VALUE})\s+(?i:not\s+between)\s+(\S+)\s+(?i:and)\s+(\S+)",
        "EMQX's SQL knows no between",
        r"write (\1 < \2 or \1 > \3)",
    ),
    (
        rf"({_VALUE})\s+(?i:between)\s+(\S+)\s+(?i:and)\s+(\S+)",
        "EMQX's SQL knows no between",
        r"write \1 >= \2 and \1 <= \3",
    ),
    (
        rf"({_VALUE})\s+(?i:like|ilike|contains|matches|regexp|rlike)\s+('[^']*')",
        "EMQX's SQL knows no such word between two values",
        r"write regex_match(\1, 'robot'), with a regular expression",
    ),
    (
        r"([\w.]+)\.(?:startswith|startsWith|endswith|endsWith|includes|contains|match|test)\s*\(",
        "a value has no functions of its own",
        r"write regex_match(\1, '^on'), with a regular expression",
    ),
    (
        r"([\w.]+)\.(lower|upper|toLowerCase|toUpperCase)\s*\(\s*\)",
        "a value has no functions of its own",
        r"write lower(\1) or upper(\1)",
    ),
    (r"\bpayload\s*\[\s*['\"]([\w]+)['\"]\s*\]", "keys follow a point", r"write payload.\1"),
    (r"\$\.([\w.]+)", "EMQX's SQL knows no $", r"write payload.\1"),
    (
        r"^\s*(?i:select)\b.*?\b(?i:where)\b",
        "only the condition stands here",
        "leave out all up to WHERE",
    ),
    (
        r"^\s*(?i:select)\b",
        "only a condition stands here",
        "such as qos > 0; the topics are those of request",
    ),
    (r"^\s*(?i:where)\b", "only the condition stands here", "leave the word WHERE out"),
    (r"[‘’“”„«»]", "this is no quote of SQL", "write texts in plain single quotes: 'on'"),
    (r"[0-9]\s*(°\s*[CF]?|%(?!\s*[0-9]))", "a number has no unit", "write the number alone"),
)


def _groupless(pattern: str) -> str:
    return re.sub(r"(?<!\\)\((?!\?)", "(?:", pattern)


_FOREIGN = re.compile(
    r"(?P<text>'(?:[^']|'')*')|"
    + "|".join(f"(?P<w{n}>{_groupless(pattern)})" for n, (pattern, *_) in enumerate(_WORDS)),
    re.DOTALL,
)


def foreign(where: str) -> list[Foreign]:
    """All that is another language's, in the order of the text."""
    return list(_found(where))


def translated(where: str) -> str:
    """The condition with the operators of other languages as EMQX's, so that it can be looked at
    for more; it may still be none."""
    return _OPERATORS.sub(lambda found: _MEANT.get(found[0], found[0]), where)


_MEANT = {
    "==": "=",
    "===": "=",
    "!==": "!=",
    "=>": ">=",
    "=<": "<=",
    "&&": " and ",
    "||": " or ",
    "!": " not ",
}
_OPERATORS = re.compile(r"'(?:[^']|'')*'|===?|!==|!=|<=|>=|=>|=<|&&|\|\||!", re.DOTALL)


def _found(where: str) -> Iterator[Foreign]:
    seen: set[str] = set()
    for found in _FOREIGN.finditer(where):
        name = found.lastgroup or ""
        if not name.startswith("w"):
            continue
        pattern, said, hint = _WORDS[int(name[1:])]
        whole = re.compile(pattern, re.DOTALL).match(where, found.start())
        if whole is None:
            continue
        hint = whole.expand(hint)
        if len(hint) > _LONGEST + 20:
            hint = hint[:_LONGEST] + "…"
        if said in seen:
            continue
        seen.add(said)
        at = found.start()
        yield Foreign(
            said, hint, where.count("\n", 0, at) + 1, at - (where.rfind("\n", 0, at) + 1) + 1
        )
