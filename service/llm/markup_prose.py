"""Where a token of a model's markup stands in text that only speaks of it. Pure."""

from __future__ import annotations

import re

LINE = 1000  # characters of a line that are looked at
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)", re.DOTALL)
# "the <think> tag": a tag within a sentence, as nobody writes who means it.
_SENTENCE = re.compile(r"[^\W\d_],? $")
_QUOTES = {'"': '"', "'": "'", "“": "”", "„": "“", "«": "»", "「": "」", "『": "』", "(": ")"}
_GOES_ON = re.compile(r" [a-zß-öø-ÿ]|[.,;:!?)。，、；：！？）](?!\w)")
_CJK = "[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
_SENTENCE_CJK = re.compile(rf"{_CJK} ?$")
_GOES_ON_CJK = re.compile(rf" ?{_CJK}")
BETWEEN = re.compile(r"\s*(?:\w{1,4}|…|\.{3}|[,/–-])?\s*")  # "<think> and </think>"


def mentioned(before: str, after: str, *, cjk: bool = False) -> bool:
    """Whether a token stands within a sentence that speaks of it."""
    if before and after and _QUOTES.get(before[-1]) == after[0]:
        return True
    if cjk and _SENTENCE_CJK.search(before) and _GOES_ON_CJK.match(after):
        return True
    return bool(_SENTENCE.search(before) and _GOES_ON.match(after))


def rest_of_line(after: str, final: bool) -> tuple[str, bool]:
    """(the rest of the line as far as it is looked at, whether that is all of it)"""
    line, newline, _ = after.partition("\n")
    return line[:LINE], bool(newline) or final or len(line) >= LINE


def fence_after(fence: str, line: str) -> str:
    """The open code fence after this line; "" for none."""
    found = FENCE.match(line)
    if found is None:
        return fence
    if not fence:
        return found[1] if "`" not in found[2] or found[1][0] == "~" else ""
    closes = found[1].startswith(fence) and not found[2].strip()
    return "" if closes else fence
