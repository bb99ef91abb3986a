"""Long answers for small devices: cut at a sentence, or in numbered pieces. Pure.

All lengths are bytes of UTF-8, as a device's buffer counts them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator

_SENTENCE = re.compile(r"[.!?…]+[\"'”’»)]*(?=\s)|[。！？…]+[”’」』）]*|\n")
_ELLIPSIS = "…"
_ZWJ = "\u200d"
_CJK = 0x2E80  # from here on scripts without blanks


def size(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text.encode("utf-8", "replace"))


def shortened(text: str, limit: int) -> str:
    """The text in at most `limit` bytes: whole sentences, else whole words and an ellipsis."""
    end = _fits(text, 0, limit)
    if end == len(text):
        return text
    ends = [found.end() for found in _SENTENCE.finditer(text, 0, end + 1) if found.end() <= end]
    if ends and (kept := text[: ends[-1]].rstrip()):
        return kept
    room = limit - size(_ELLIPSIS)
    if room <= 0:
        return text[:end]
    return text[: _word_end(text, 0, _fits(text, 0, room))].rstrip() + _ELLIPSIS


def numbered(text: str, limit: int) -> tuple[str, ...]:
    """Pieces "1/3 Some words", each of at most `limit` bytes with its number. Without the
    numbers, and joined, they are the text."""
    digits = 1
    while True:
        pieces = tuple(split(text, limit - 2 * digits - 2))
        count = str(len(pieces))
        if len(count) <= digits:
            return tuple(f"{at}/{count} {piece}" for at, piece in enumerate(pieces, 1))
        digits = len(count)


def split(text: str, limit: int, measure: Callable[[str], int] = size) -> Iterator[str]:
    """Pieces of at most `limit` by `measure`, at blanks where there are any; each has at least
    one visible character, also where that is more than `limit`."""
    at = 0
    while True:
        end = _fits(text, at, limit, measure)
        if end == len(text):
            yield text[at:]
            return
        end = _word_end(text, at, end)
        yield text[at:end]
        at = end


def _word_end(text: str, start: int, end: int) -> int:
    """`end`, or before the word that it cuts in two, where the piece has another before it.

    The blank stays with the word before it. Chinese has no blanks: any character will do.
    """
    before, after = text[end - 1 : end], text[end : end + 1]
    if not (_in_word(before) and _in_word(after)):
        return end
    at = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
    return at + 1 if at > start else end


def _in_word(char: str) -> bool:
    return bool(char) and not char.isspace() and ord(char) < _CJK


def _fits(text: str, start: int, limit: int, measure: Callable[[str], int] = size) -> int:
    """Where a piece from `start` ends at the latest: within `limit`, and not in the middle of
    what is seen as one character; beyond `start` in any case."""
    used, at = 0, start
    while at < len(text):
        used += measure(text[at])
        if used > limit:
            break
        at += 1
    end = at
    while start < end < len(text) and _joins(text[end - 1], text[end]):
        end -= 1
    if end > start:
        return end
    end = max(at, start + 1)
    while end < len(text) and used <= limit and _joins(text[end - 1], text[end]):
        end += 1
    return min(end, len(text))


def _joins(before: str, after: str) -> bool:
    """Whether two characters are seen as one."""
    return (
        _ZWJ in (before, after)
        or unicodedata.combining(after) != 0
        or after in "\ufe0e\ufe0f\u20e3"
        or "\U0001f3fb" <= after <= "\U0001f3ff"
        or (_flag(before) and _flag(after))
    )


def _flag(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"
