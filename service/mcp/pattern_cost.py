"""How much it takes to compile a schema's pattern, told from its text: strangers write them, and
to compile one just to see would be the work that is to be spared. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

from service.flows.regex import LONGEST, RegexError, in_schema

# What `in_schema` writes: within […] a bracket is spelt by its number.
_TOKEN = re.compile(
    r"(?P<set>\[[^]]*\])|(?P<open>\((?:\?[a-z-]*:)?)|(?P<flags>\(\?[a-z-]*\))|(?P<close>\))"
    r"|\{(?P<low>\d+)(?P<more>,?)(?P<high>\d*)\}|\\[pPx]\{\w+\}|\\.|.",
    re.DOTALL,
)
# States of the automaton, measured: \p{…} stands for hundreds of ranges, "all but" for eight ways
# to write a character in UTF-8; what else a set holds is told by its length.
_KINDS = {"\\p{L}": 1100, "\\p{N}": 250, "\\p{Nd}": 100, "[^": 8}
_STEP = 8  # characters
_BASE = 100  # for any pattern


def cost(pattern: str) -> int | None:
    """About how many states it is compiled to; None if it can't be used."""
    return _cost(pattern) if len(pattern) <= LONGEST else None


@lru_cache(4096)
def _cost(pattern: str) -> int | None:
    try:
        text = in_schema(pattern)
    except RegexError:
        return None
    return _BASE + _states(text)


def _states(text: str) -> int:
    sums, last = [0], 0
    for token in _TOKEN.finditer(text):
        if token["open"]:
            sums.append(0)
            continue
        if token["low"]:
            # The engine writes x{3,5} out as xxxx?x?
            times = max(int(token["low"]) + bool(token["more"]), int(token["high"] or 0))
            more = last * (times - 1)
            last *= times
        elif token["close"] and len(sums) > 1:
            last = more = sums.pop()
        else:
            kinds = sum(states * token[0].count(kind) for kind, states in _KINDS.items())
            last = more = 1 + len(token[0]) // _STEP + kinds
        sums[-1] += more
    return sum(sums)
