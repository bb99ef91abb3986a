"""Regular expressions as Python writes them, matched in time linear in the text. Pure.

Devices and models write the text that is searched, so how long that takes must not be theirs to
choose. RE2 (and for schemas the engine of jsonschema-rs) gives that for all that needs no
look-around and no back reference; what Python means by a pattern is put into their words here.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from functools import cache
from typing import Final

import re2

LONGEST = 500  # characters of a pattern
_MEMORY = 8 << 20  # bytes that a compiled pattern may take, and its matcher
_REPEATS = 1000  # RE2's own bound for x{n}

_CHARS = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_SPACE = (
    r"\x{9}-\x{d}\x{1c}-\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}"
    r"\x{205f}\x{3000}"
)
_SETS = {"d": r"\p{Nd}", "w": r"\p{L}\p{N}_", "s": _SPACE}
_CODE = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})")
_OCTAL = re.compile(r"0[0-7]{0,2}|[1-3][0-7]{2}")
_COUNT = re.compile(r"\{(?:(\d+)(,?)(\d*)|(),(\d*))\}")
_GROUP = re.compile(r"\((?:\?(?:(:)|P<\w+>|([a-zA-Z-]+)([:)])|(#)[^)]*\)|(P=|<?[=!]|\(|>)))?")
_WHY = {
    "P=": ("a back reference", "write out what it repeats"),
    "=": ("a look-ahead", "match that text too; what is cut or wanted is all that matches"),
    "!": ("a look-ahead", "say what may stand there, as in [^x]"),
    "<=": ("a look-behind", "match that text too; what is cut or wanted is all that matches"),
    "<!": ("a look-behind", "say what may stand there, as in [^x]"),
    "(": ("a condition", "write both ways, as in ab|cd"),
    ">": ("an atomic group", "write (?:…): nothing is tried twice here"),
}
# Before each character of the text: whether a word begins or ends there. RE2 knows that of ASCII
# only. Neither character is ever part of a text.
_EDGE, _WITHIN = "\ufdd0", "\ufdd1"
_MARK = r"[\x{fdd0}\x{fdd1}]?"


class RegexError(Exception):
    """A pattern that can't be used; `hint` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Regex:
    """A pattern whose `.` takes line ends too and that does not heed case.

    Raises RegexError.
    """

    __slots__ = ("_compiled", "_marked", "pattern")

    def __init__(self, pattern: str) -> None:
        check(pattern, re.DOTALL | re.IGNORECASE)
        self.pattern: Final = pattern
        self._marked = re.search(r"(?<!\\)(?:\\\\)*\\[bB]", pattern) is not None
        options = re2.Options()
        options.case_sensitive = False
        options.dot_nl = True
        options.log_errors = False
        options.max_mem = _MEMORY
        text = _Translation(pattern, r"\z", "." if not self._marked else None).text
        try:
            self._compiled = re2.compile(text, options)
        except re2.error as error:
            raise RegexError(*_refused(error)) from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Regex) and other.pattern == self.pattern

    def __hash__(self) -> int:
        return hash(self.pattern)

    def __repr__(self) -> str:
        return f"Regex({self.pattern!r})"

    def search(self, text: str) -> tuple[int, int] | None:
        """Where it matches first: (start, end)."""
        if self._marked:
            text = _with_marks(text)
        try:
            found = self._compiled.search(text)
        except UnicodeEncodeError:  # lone surrogates
            found = self._compiled.search(text.encode("utf-8", "replace").decode())
        if found is None:
            return None
        start, end = found.span()
        return (start // 2, end // 2) if self._marked else (start, end)


def in_schema(pattern: str) -> str:
    """A schema's pattern for jsonschema-rs. Raises RegexError."""
    check(pattern, 0)
    dot = r"[\x{0}-\x{10ffff}]" if re.search(r"\(\?[a-z]*s", pattern) else r"[^\n]"
    return _Translation(pattern, "$", dot, marks=False).text


def check(pattern: str, flags: int) -> None:
    """Raises RegexError for what Python would not read."""
    if len(pattern) > LONGEST:
        raise RegexError(f"is longer than {LONGEST} characters", "say less")
    try:
        with warnings.catch_warnings():  # of what may mean something else one day
            warnings.simplefilter("ignore")
            re.compile(pattern, flags)
    except (re.error, RecursionError, OverflowError) as error:
        hint = "in '…' quotes TOML leaves backslashes alone"
        raise RegexError(f"is no regular expression: {error}", hint) from None


def _refused(error: Exception) -> tuple[str, str]:
    said = error.args[0] if error.args else ""
    said = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    return f"is too much for one regular expression: {said}"[:200], "say less, or repeat less often"


def _slow(what: str, cure: str) -> RegexError:
    message = f"has {what}, which can take longer than the text is long to look for"
    return RegexError(message, cure)


class _Translation:
    """`end` is the end of the text there; `dot` any character; None: the text has marks."""

    def __init__(self, pattern: str, end: str, dot: str | None, *, marks: bool = True) -> None:
        self._pattern = pattern
        self._end = end
        self._marked = dot is None
        self._native = not marks  # the engine knows Python's \b
        self._dot = dot or r"[^\x{fdd0}\x{fdd1}]"
        self._lines = re.search(r"\(\?[a-z]*m", pattern) is not None
        self._at = 0
        self._out: list[str] = []
        while self._at < len(pattern):
            self._step(pattern[self._at])

    @property
    def text(self) -> str:
        return "".join(self._out)

    def _step(self, char: str) -> None:
        match char:
            case "\\":
                self._at += 1
                self._escape()
            case "[":
                self._set()
            case "(":
                self._group()
            case "*" | "+" | "?":
                self._at += 1
                self._repeat(char)
            case "{" if found := _COUNT.match(self._pattern, self._at):
                self._at = found.end()
                self._counted(found)
            case "$":
                self._at += 1
                self._out.append(self._line_end())
            case "^" | "|" | ")":
                self._at += 1
                self._out.append(char)
            case ".":
                self._at += 1
                self._atom(self._dot)
            case _:
                self._at += 1
                self._atom(_literal(char))

    def _atom(self, text: str) -> None:
        self._out.append(f"(?:{_MARK}{text})" if self._marked else text)

    def _line_end(self) -> str:
        mark = _MARK if self._marked else ""
        # Python's $ also stands before a line end that ends the text.
        return f"{mark}$" if self._lines else rf"(?:{mark}\n?{mark}{self._end})"

    def _escape(self) -> None:
        char = self._pattern[self._at]
        if char in "dws":
            self._at += 1
            self._atom(f"[{_SETS[char]}]")
        elif char in "DWS":
            self._at += 1
            marks = r"\x{fdd0}\x{fdd1}" if self._marked else ""
            self._atom(f"[^{_SETS[char.lower()]}{marks}]")
        elif char in "bB":
            self._at += 1
            mark = f"\\{char}" if self._native else _literal(_EDGE if char == "b" else _WITHIN)
            if self._native or not self._out or self._out[-1] != mark:
                self._out.append(mark)
        elif char == "A":
            self._at += 1
            self._out.append("^" if self._native else r"\A")
        elif char in "Zz":
            self._at += 1
            self._out.append((_MARK if self._marked else "") + self._end)
        else:
            self._atom(_literal(self._character()))

    def _character(self) -> str:
        """The one character that an escape stands for; `_at` is behind its backslash."""
        char = self._pattern[self._at]
        if found := _CODE.match(self._pattern, self._at):
            self._at = found.end()
            return chr(int(next(filter(None, found.groups())), 16))
        if found := _OCTAL.match(self._pattern, self._at):
            self._at = found.end()
            return chr(int(found[0], 8))
        if char.isdecimal():
            raise _slow(*_WHY["P="])
        if char == "N":
            end = self._pattern.index("}", self._at)
            name = self._pattern[self._at + 2 : end]
            self._at = end + 1
            return unicodedata.lookup(name)
        self._at += 1
        return _CHARS.get(char, char)

    def _set(self) -> None:
        pattern, out = self._pattern, ["["]
        self._at += 1
        if pattern[self._at] == "^":
            self._at += 1
            out.append("^" + (r"\x{fdd0}\x{fdd1}" if self._marked else ""))
        first = True
        while first or pattern[self._at] != "]":
            first = False
            char = pattern[self._at]
            self._at += 1
            if char != "\\":
                out.append("-" if char == "-" else _literal(char))
                continue
            kind = pattern[self._at]
            if kind in "dwsDWS":
                self._at += 1
                out.append(_SETS[kind] if kind in _SETS else _all_but(kind.lower()))
            elif kind == "b":
                self._at += 1
                out.append(r"\x{8}")
            else:
                out.append(_literal(self._character()))
        self._at += 1
        self._atom("".join(out) + "]")

    def _group(self) -> None:
        found = _GROUP.match(self._pattern, self._at)
        if found is None:
            raise RegexError("has a group that is not known here", "write (?:…)")
        self._at = found.end()
        _, flags, closes, comment, other = found.groups()
        if other:
            raise _slow(*_WHY[other])
        if comment:
            return
        if flags is None:
            self._out.append("(?:")
            return
        if odd := set(flags) - set("imsu-"):
            text = f'has the flag "{min(odd)}", which is not known here'
            raise RegexError(text, "i, m and s are; write the pattern without the others")
        known = flags.replace("u", "").removesuffix("-")
        if known or closes == ":":
            self._out.append(f"(?{known}{closes}")

    def _counted(self, found: re.Match[str]) -> None:
        low, comma, high, _, only = found.groups()
        if low is None:
            low, comma, high = "0", ",", only
        if max(int(low), int(high or 0)) > _REPEATS:
            raise RegexError(f"repeats more than {_REPEATS} times", "write * or +, or say less")
        self._repeat(f"{{{low}{comma}{high}}}")

    def _repeat(self, sign: str) -> None:
        after = self._pattern[self._at : self._at + 1]
        if after == "+":
            raise _slow("a possessive repeat", "leave out the second +: nothing is tried twice")
        lazy = after == "?"
        self._at += lazy
        self._out.append(sign + "?" * lazy)


def _literal(char: str) -> str:
    return char if char.isascii() and char.isalnum() else f"\\x{{{ord(char):x}}}"


@cache
def _all_but(kind: str) -> str:
    """What is not in a set, as ranges: within […] nothing else can say it."""
    member = re.compile(f"\\{kind}")
    out, start = [], None
    for code in range(0x110001):
        inside = code == 0x110000 or member.match(chr(code)) is not None
        if not inside and start is None:
            start = code
        elif inside and start is not None:
            out.append(f"\\x{{{start:x}}}-\\x{{{code - 1:x}}}")
            start = None
    return "".join(out)


def _with_marks(text: str) -> str:
    text = text.replace(_EDGE, "\ufffd").replace(_WITHIN, "\ufffd")
    runs = re.findall(r"\w+|\W+", text)
    if not runs:
        return _WITHIN
    first, last = (_EDGE if re.match(r"\w", run) else _WITHIN for run in (runs[0], runs[-1]))
    return first + _EDGE.join(_WITHIN.join(run) for run in runs) + last
