"""What is wrong with a text that is no TOML, and how it is written instead.

tomllib stops at the first fault. Where the cure is plain the line is mended, so that whoever
wrote the file is told of the next faults too; what was mended is only read on, never used.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass

from service.errors import Fault
from service.flows.keys import keys_of, tables_in
from service.flows.lines import syntax_line

_MOST = 50  # faults of this kind; after so many it is another kind of file
_MOST_IN_LINE = 5  # each may make the line longer
_QUOTES = "“”„‟″‘’‚‛«»「」"
_ALIKE = {"＝": "=", "＂": '"', "：": ":", "，": ",", "［": "[", "］": "]", "｛": "{", "｝": "}"}
_ALIKE |= {"．": ".", "＃": "#", "–": "-", "—": "-", "−": "-", "＿": "_"}
_BLANKS = "\u00a0\u1680\u2000-\u200f\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
_PAIR = re.compile(r"\s*(?P<key>[A-Za-z0-9_.\"'-]+)\s*=\s*(?P<value>.*?)\s*$")
_COMMENT = re.compile(r"\s+#.*$")
_TEXTS = re.compile(r'"(?:\\.|[^"\\])*"')
_NO_ESCAPE = re.compile(r'\\(?![btnfr"\\uU])|\\(?=u(?![0-9a-fA-F]{4})|U(?![0-9a-fA-F]{8}))')
_HIDDEN = ("system", "prompt", "on_error", "description", "payload", "messages")
_SECRET = re.compile(r"key|token|secret|passw", re.IGNORECASE)
_OTHERWISE = "quote text, close brackets, write each key once"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where tomllib stopped, and why; `at` counts from 0 in the line."""

    lines: list[str]
    number: int  # of the line, from 0
    at: int
    reason: str

    @property
    def line(self) -> str:
        return self.lines[self.number]

    @property
    def rest(self) -> str:
        return self.line[self.at :]

    @property
    def key(self) -> str:
        found = _PAIR.match(self.line)
        return found["key"] if found else ""

    @property
    def value(self) -> str:
        """All that stands after the = but a comment."""
        found = _PAIR.match(self.line)
        return _COMMENT.sub("", found["value"]) if found else ""

    def shown(self, value: str) -> str:
        """`key = value`, where the value is nobody's secret and no prompt."""
        last = self.key.rpartition(".")[2].strip("\"'")
        secret = _SECRET.search(last) and not value.isdigit()  # max_tokens = 5 is none
        if last in _HIDDEN or secret or "sk-" in value or len(value) > 60:
            value = f"{value[0]}…{value[-1]}"
        return f"{self.key} = {value}"

    def put(self, value: str) -> str:
        """The line with another value."""
        found = _PAIR.match(self.line)
        return self.line[: found.start("value")] + value if found else self.line


@dataclass(frozen=True, slots=True)
class _Cure:
    message: str
    hint: str
    line: str | None = None  # the line as it is read on; None if that can't be told


def mended(text: str, source: str) -> tuple[str | None, list[Fault]]:
    """The faults of a text that is no TOML, and a text of as many lines that is read on in its
    place; None if there is no telling what was meant."""
    faults: list[Fault] = []
    lines = text.replace("\r\n", "\n").split("\n")
    tries = [0] * len(lines)
    while len(faults) < _MOST:
        try:
            tomllib.loads("\n".join(lines))
            return "\n".join(lines), faults
        except tomllib.TOMLDecodeError as error:
            place = _place(error, lines)
        cure = _cure(place)
        fault = Fault(source, f"no valid TOML: {cure.message}", place.number + 1, cure.hint)
        if fault not in faults:
            faults.append(fault)
        tries[place.number] += 1
        if cure.line in (None, place.line) or tries[place.number] == _MOST_IN_LINE:
            break
        lines[place.number] = cure.line or ""
    return None, faults


def _place(error: tomllib.TOMLDecodeError, lines: list[str]) -> _Place:
    number = min(syntax_line(error, "\n".join(lines)), len(lines)) - 1
    column = re.search(r"column (\d+)", str(error))
    at = int(column[1]) - 1 if column else len(lines[number])
    return _Place(lines, number, at, re.sub(r" \(at .*\)$", "", str(error)).lower())


def _cure(place: _Place) -> _Cure:
    for cure in (_characters, *_CURES):
        if found := cure(place):
            return found
    return _Cure(place.reason, _OTHERWISE)


def _characters(place: _Place) -> _Cure | None:
    """What word processors and web pages make of plain characters."""
    char, line = place.rest[:1], place.line
    if re.match(f"[{_BLANKS}]", char):
        said = f"an invisible character stands here (U+{ord(char):04X})"
        hint = "it came with what was pasted: delete it, write a plain blank"
        return _Cure(said, hint, re.sub(f"[{_BLANKS}]", " ", line))
    if char and char in _ALIKE:
        hint = f"write a plain {_ALIKE[char]}"
        mended = line[: place.at] + _ALIKE[char] + line[place.at + 1 :]
        return _Cure(f"{char} only looks like {_ALIKE[char]}", hint, mended)
    open_text = place.reason.startswith(("illegal character", "unterminated string"))
    quote = char if char and char in _QUOTES else ""
    if open_text and place.value and place.value[-1] in _QUOTES:
        quote = place.value[-1]
    if quote:
        straight = re.sub(f"[{_QUOTES}]", '"', place.value)
        hint = f"write plain quotes: {place.shown(straight)}" if straight else "write plain quotes"
        return _Cure(f"{quote} is no quote of TOML", hint, place.put(straight))
    return None


def _escape(place: _Place) -> _Cure | None:
    r"""`"\d+"`: a regular expression in double quotes."""
    if not place.reason.startswith(("unescaped '\\'", "invalid hex", "escaped character")):
        return None
    line = place.line
    spans = [found.span() for found in _TEXTS.finditer(line)]
    start, end = next((span for span in spans if span[0] < place.at <= span[1]), (0, len(line)))
    bad = _NO_ESCAPE.search(line, start)
    said = "in double quotes \\ begins an escape"
    if bad:
        said += f', and "{line[bad.start() : bad.start() + 2]}" is none'
    inner = line[start + 1 : end - 1]
    hint = r"write it in single quotes ('\d+'), or each \ twice"
    if start and "'" not in inner:
        single = "'" + inner.replace('\\"', '"').replace("\\\\", "\\") + "'"
        hint = f"write it in single quotes: {place.shown(single)}"
    fixed = line[:start] + _NO_ESCAPE.sub(r"\\\\", line[start:end]) + line[end:]
    return _Cure(said, hint, fixed)


_WORDS = {"yes": "true", "on": "true", "no": "false", "off": "false"}


def _invalid_value(place: _Place) -> _Cure | None:
    if place.reason != "invalid value":
        return None
    line, rest, value = place.line, place.rest, place.value
    whole = place.line[: place.at].count("=") == 1 and not re.search(r"[\[{]", line[: place.at])
    if re.match(r"\s*(#.*)?$", rest):
        hint = "write one after the =, or leave the key out"
        return _Cure(f"{place.key or 'this'} has no value", hint, f"#{line}" if whole else None)
    word = re.match(r"[A-Za-z]+\b", rest)
    if word and word[0].lower() in ("true", "false"):
        right = word[0].lower()
        fixed = line[: place.at] + right + rest[word.end() :]
        return _Cure(f"{word[0]} is no word of TOML", f"write {right}", fixed)
    if word and word[0].lower() in ("none", "null", "nil", "undefined"):
        hint = "leave the key out: what is not set has its default"
        return _Cure(f"{word[0]} is no value in TOML", hint, f"#{line}" if whole else None)
    if word and word[0].lower() in _WORDS and place.key in _flags():
        right = _WORDS[word[0].lower()]
        return _Cure(f"{word[0]} is no word of TOML", f"write {right}", place.put(right))
    if re.match(r"\.[0-9]", rest):
        hint = "write a digit before the point: 0" + rest.split("#")[0].strip()
        return _Cure("a number can't begin with its point", hint, f"{line[: place.at]}0{rest}")
    if whole and (found := re.match(r"[=:>]+\s*", value)):
        hint = f"write {place.shown(value[found.end() :] or '…')}"
        return _Cure(
            "one = stands between a key and its value", hint, place.put(value[found.end() :])
        )
    if whole:
        quoted = _quoted(value)
        return _Cure("text without quotes", f"write {place.shown(quoted)}", place.put(quoted))
    if token := re.match(r"[^\s,\]}]+", rest):
        quoted = _quoted(token[0])
        hint = "write each text in quotes" + (f": {quoted}" if len(quoted) < 40 else "")
        if _SECRET.search(line):
            hint = "write each text in quotes"
        fixed = line[: place.at] + quoted + rest[token.end() :]
        return _Cure("text without quotes", hint, fixed)
    return None


def _after_value(place: _Place) -> _Cure | None:
    if not place.reason.startswith("expected newline"):
        return None
    line, value, rest = place.line, place.value, place.rest.strip()
    before = line[: place.at].rstrip()
    if rest in (",", ";") or re.match(r"[,;]\s+#", rest):
        hint = f"leave the {rest[0]} out: each key has a line of its own"
        return _Cure(f"a line does not end in {rest[0]}", hint, before)
    if rest.startswith(("//", ";", "--", "/*")):
        return _Cure("a comment begins with #", "write # in its place", f"{before} # {rest}")
    if re.fullmatch(r"[0-9]+,[0-9]+", value):
        right = value.replace(",", ".")
        return _Cure("a number has a point", f"write {place.shown(right)}", place.put(right))
    counted = re.fullmatch(r"([0-9]+)([kKmM])", value)
    if counted and place.key not in _texts():
        right = counted[1] + ("000" if counted[2] in "kK" else "000000")
        hint = f"write the number out: {place.shown(right)}"
        return _Cure("a number has no unit", hint, place.put(right))
    if value[:1] in "\"'" and value and value[-1] == value[0] and len(value) > 2:
        inner = value[1:-1]
        fixed = _quoted(inner if value[0] == "'" else inner.replace('\\"', '"'))
        hint = f"write {place.shown(fixed)}"
        return _Cure(f"a {value[0]} within the text ends it", hint, place.put(fixed))
    if before.endswith("]") and rest.startswith("]"):
        return _Cure("one ] too many", f"write {before}", before)
    if re.match(r"[0-9]", value):
        quoted = _quoted(value)
        return _Cure("text without quotes", f"write {place.shown(quoted)}", place.put(quoted))
    return None


def _open_text(place: _Place) -> _Cure | None:
    ended = place.reason.startswith(("illegal character '\\n'", "unterminated string"))
    if not ended or not place.value.startswith(('"', "'")):
        return None
    if place.value.startswith(('"""', "'''")):
        return _Cure(f"the text that begins with {place.value[:3]} has no end", "close it", None)
    quote = place.value[0]
    following = next((line for line in place.lines[place.number + 1 :] if line.strip()), "[")
    alone = re.match(r"\s*([\w.-]+\s*=|\[|#)", following)
    if alone and not (place.number + 1 < len(place.lines) and _more(place, quote)):
        return _Cure(
            f"the text that begins with {quote} has no end",
            f"write a {quote} at its end",
            place.line.rstrip() + quote,
        )
    hint = f"several lines stand between {quote * 3} and {quote * 3}"
    return _Cure(f"a text in one {quote} can't go over the line's end", hint)


def _more(place: _Place, quote: str) -> bool:
    """Whether a line further down closes the text."""
    for line in place.lines[place.number + 1 :]:
        if re.match(r"\s*([\w.-]+\s*=|\[)", line):
            return False
        if quote in line:
            return True
    return False


def _no_equals(place: _Place) -> _Cure | None:
    if not place.reason.startswith("expected '='"):
        return None
    line = place.line
    if found := re.match(r"(\s*(?:- )?)([\w.-]+)\s*:\s*(.*)$", line):
        if not found[3]:
            hint = 'write [flows.NAME], and under it lines such as request = "a/b"'
            return _Cure("this is YAML", hint)
        fixed = f"{found[1]}{found[2]} = {found[3]}"
        return _Cure(f"after {found[2]} stands a :", f"write {found[2]} = …", fixed)
    if found := re.match(r"\s*([\w-]+(?: +[\w-]+)+)\s*=", line):
        joined = re.sub(r"[ -]+", "_", found[1])
        return _Cure(
            f'"{found[1]}" is no key: a key has no blanks',
            f"write {joined}" if joined in _known() else "the keys are in docs/flows.md",
            f"{joined}{line[found.end(1) :]}" if joined in _known() else None,
        )
    if found := re.fullmatch(r"\s*([\w.-]+)\s*(#.*)?", line):
        return _Cure(f"{found[1]} has no value", f"write {found[1]} = …", f"#{line}")
    return None


def _no_statement(place: _Place) -> _Cure | None:
    if not place.reason.startswith("invalid statement"):
        return None
    rest = place.rest
    if rest.startswith(("//", ";", "--", "/*", "*")):
        return _Cure("a comment begins with #", "write # in its place", f"#{place.line}")
    if rest.startswith(("```", "~~~")):
        return _Cure("this line is none of the file's", "delete it", f"#{place.line}")
    if rest.startswith("{"):
        hint = 'write [flows.NAME], and under it lines such as request = "a/b"'
        return _Cure("this is JSON", hint)
    if rest.startswith("}"):
        return _Cure("this } has no beginning", "delete it", f"#{place.line}")
    return None


def _header(place: _Place) -> _Cure | None:
    if not ("table declaration" in place.reason or place.reason.startswith("invalid initial")):
        return None
    found = re.match(r"\s*(\[\[?)\s*([^\]#]*?)\s*(\]*)\s*(#.*)?$", place.line)
    if found is None:
        return None
    closing = "]" * len(found[1])
    name = re.sub(r"[^\w.\"'-]+", "_", found[2])
    fixed = f"{found[1]}{name}{closing}"
    if found[3] != closing:
        return _Cure(f"{found[1]} is closed by {closing}", f"write {fixed}", fixed)
    if name != found[2]:
        return _Cure("a table's name is letters, digits, _ and -", f"write {fixed}", fixed)
    return None


def _twice(place: _Place) -> _Cure | None:
    if not place.reason.startswith(("cannot declare", "cannot overwrite", "cannot mutate")):
        return None
    header = re.match(r"\s*(\[\[?)\s*([^\]]+?)\s*\]", place.line)
    if header:
        name = header[2]
        if name.endswith("tools") and header[1] == "[":
            hint = f"write [[{name}]], with two brackets, above each tool"
            return _Cure(f"[{name}] stands here a second time", hint)
        first = _line(place, rf"\s*\[\[?\s*{re.escape(name)}\s*\]")
        if first:
            hint = "put the keys under the first one"
            if name.count(".") == 1:
                hint += ", or give this one another name"
            return _Cure(f"[{name}] stands here a second time, first at line {first}", hint)
        table, _, key = name.rpartition(".")
        hint = f"write all of {key} in one place" if table else "write it in one place"
        first = _line(place, rf"\s*{re.escape(key)}\s*=")
        said = f"{key} is set already" + (f", at line {first}" if first else "")
        return _Cure(said, hint)
    if found := re.match(r"\s*([\w.-]+)\s*=", place.line):
        first = _line(place, rf"\s*{re.escape(found[1])}\s*=", stop=True)
        said = f"cannot overwrite a value: {found[1]} is set already"
        said += f", at line {first}" if first else ""
        return _Cure(said, "write each key once", f"#{place.line}")
    return None


def _line(place: _Place, pattern: str, *, stop: bool = False) -> int:
    """The line before this one, from 1, that matches; 0 if none does. With `stop` it has to be
    of the same table."""
    for number in range(place.number - 1, -1, -1):
        if re.match(pattern, place.lines[number]):
            return number + 1
        if stop and re.match(r"\s*\[", place.lines[number]):
            return 0
    return 0


def _brackets(place: _Place) -> _Cure | None:
    if place.reason.startswith("unclosed array"):
        return _Cure("this list has no end", 'write ["a", "b"]: a , between, a ] at the end')
    if place.reason.startswith(("invalid initial", "unclosed inline")) and "{" in place.line:
        if not place.rest.strip() or place.rest.lstrip().startswith("#"):
            return _Cure(
                "what { begins has to end in the same line",
                "write key = { a = 1, b = 2 }, or a table of its own: [flows.NAME.KEY]",
            )
        if place.rest.startswith("}"):
            fixed = re.sub(r",\s*}", " }", place.line)
            return _Cure("a , stands before the }", "leave the , out", fixed)
    return None


_CURES: tuple[Callable[[_Place], _Cure | None], ...] = (
    _escape,
    _invalid_value,
    _after_value,
    _open_text,
    _no_equals,
    _no_statement,
    _header,
    _twice,
    _brackets,
)


def _quoted(text: str) -> str:
    if '"' not in text and "\\" not in text:
        return f'"{text}"'
    if "'" not in text:
        return f"'{text}'"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _known() -> set[str]:
    return {name for table in tables_in() for name in keys_of(table)}


def _flags() -> set[str]:
    """The keys that are true or false."""
    keys = (key for table in tables_in() for key in keys_of(table).values())
    return {key.name for key in keys if isinstance(key.default, bool)}


def _texts() -> set[str]:
    """The keys whose value is a text."""
    keys = (key for table in tables_in() for key in keys_of(table).values())
    return {key.name for key in keys if key.kind is not None}
