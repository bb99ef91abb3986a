"""Text of strangers, made fit to be shown: on a terminal, in a log line, in an error. Pure.

Devices, models and brokers choose names and words. Shown raw they move the cursor, colour or
hide what stands beside them, turn the direction of reading, begin a log line of their own, or
stop the line that holds them (lone surrogates can't be encoded). What no printer shows is
written as an escape instead. Addresses lose their user names and passwords on the way, and the
secrets of this process are never shown, whoever says them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

LONGEST = 2000  # characters of a message
CUT = "…"
HIDDEN = "***"
SHORTEST = 12  # characters; a shorter secret could be any word

# "user:password@" or "user@" after "://", or a whole address with a password and no scheme.
# Counted, so that a long text takes time linear in its length. A port and its path are no secret.
_USER = re.compile(
    r"(?<=://)(?:[^\s/?#@]{0,300}@)+|(?<=://)[^\s:/@?#]{0,200}:(?!\d{1,5}[/?#])(?:[^\s@]{0,300}@)+"
)
_secrets: frozenset[str] = frozenset()


def hide(secrets: Iterable[str]) -> None:
    """Never show these from now on, in any text that passes here."""
    global _secrets
    _secrets |= {secret for secret in secrets if len(secret) >= SHORTEST}


def masked(text: str) -> str:
    """Without the user names and passwords of addresses, and without this process's secrets."""
    for secret in _secrets:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    return _USER.sub(f"{HIDDEN}@", text) if "@" in text and "://" in text else text


def line(text: str, limit: int = LONGEST) -> str:
    """One line of at most `limit` characters."""
    return _shown(masked(text), limit, _escaped)


def lines(text: str, limit: int = 1_000_000) -> str:
    """The same for what has several lines by right: a trace, an answer, a document."""
    if "\n" not in text:
        return line(text, limit)
    return "\n".join(line(one, limit) for one in text[: limit + 1].split("\n"))


def shown(text: str) -> str:
    """As it is, but for what a terminal would obey."""
    return "\n".join(_shown(one, len(one), _escaped) for one in text.split("\n"))


def json_lines(document: str) -> str:
    """A JSON document whose text a terminal only shows; it means the same as before."""
    return "\n".join(_shown(one, len(one), _json) for one in document.split("\n"))


def _shown(text: str, limit: int, escape: Callable[[str], str]) -> str:
    if len(text) > limit:
        text = text[: limit - 1] + CUT
    if text.isprintable():  # what str.isprintable refuses is what must not be shown
        return text
    return "".join(char if char.isprintable() else escape(char) for char in text)


def _escaped(char: str) -> str:
    if char == "\u00a0":  # of French, and of dates
        return " "
    return char.encode("unicode_escape").decode("ascii")


def _json(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
