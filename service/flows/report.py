"""Collects faults with the line of the key they speak of, and words pydantic's errors."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from service.errors import Fault
from service.flows.cures import elsewhere, shape_hint
from service.flows.keys import keys_of, table_at
from service.flows.lines import Lines, Path
from service.flows.tables import File, Price

_KINDS = {
    "string_type": "must be text in quotes",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a table",
    "dataclass_type": "must be a table",
    "too_short": "is empty",
}


class Report:
    """The faults found so far. A path is a key's place: ("flows", "chat", "reply")."""

    def __init__(self, source: str, lines: Lines) -> None:
        self._source = source
        self._lines = lines
        self._faults: dict[tuple[Path, str], Fault] = {}

    def add(self, path: Path, message: str, hint: str = "", *, warning: bool = False) -> None:
        """Note a fault; the same one at the same place (in `defaults`) counts once."""
        path = self.place(path)
        said = f"{show(path)}: {message}" if path else message
        self._faults.setdefault(
            (path, message),
            Fault(self._source, said, self._lines.of(path), hint, warning),
        )

    def warn(self, path: Path, message: str, hint: str = "") -> None:
        self.add(path, message, hint, warning=True)

    def place(self, path: Path) -> Path:
        """Where the key is written: in the flow itself or in `defaults`."""
        match path:
            case ("flows", _, name, *rest) if not self._lines.has(path[:3]):
                inherited: Path = ("defaults", name, *rest)
                path = inherited if self._lines.has(inherited[:2]) else path
        # One text where a list could stand: it has no place of its own.
        return path[:-1] if path[-1:] == (0,) and not self._lines.has(path) else path

    def line(self, path: Path) -> int | None:
        """The line of a key, or of the nearest table around it."""
        return self._lines.of(path)

    def written(self, path: Path) -> bool:
        """Whether the key stands in the file, in the flow itself or in `defaults`."""
        return self._lines.has(self.place(path))

    @property
    def faults(self) -> list[Fault]:
        return sorted(self._faults.values(), key=lambda fault: fault.line or 0)

    def pydantic(self, base: Path, errors: Iterable[Any]) -> None:
        """Add the errors of a ValidationError found under `base`."""
        errors = list(errors)
        for error in errors:
            if base[:1] == ("prices",) and error["type"] == "missing" and len(errors) > 2:
                continue  # a model's name without quotes: the unknown key says it all
            path = (*base, *error["loc"])
            message, hint = _worded(error, path)
            self.add(path, message, hint)


def show(path: Path) -> str:
    """A path as people write it: flows.home.tools[0].name."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            quoted = part if part.replace("-", "").replace("_", "").isalnum() else f'"{part}"'
            text += f".{quoted}" if text else quoted
    return text


def suggest(name: str, known: Iterable[str]) -> str:
    """`did you mean "…"?`, or nothing."""
    close = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f'did you mean "{close[0]}"?' if close else ""


def _worded(error: Any, path: Path) -> tuple[str, str]:
    kind, context = error["type"], error.get("ctx", {})
    match kind:
        case "unexpected_keyword_argument":
            return _unknown_key(path, error["input"])
        case "fault":
            return context["message"], context["hint"]
        case "missing":
            return "is missing", "write it in the table of this line"
        case "literal_error":
            expected = context["expected"].replace("'", '"')
            close = suggest(str(error["input"]).lower(), expected.split('"')[1::2])
            if not close and str(error["input"]) in re.findall(r"[0-9]+", expected):
                close = f"write {error['input']}, without quotes"
            return f"must be {expected}, not {_brief(error['input'])}", close
        case "value_error":
            return f"{_brief(error['input'])} can't be used", str(context["error"])
        case "string_pattern_mismatch":
            return _pattern(path, error["input"])
    if kind in _KINDS:
        return _KINDS[kind], shape_hint(path, error["input"])
    # Ranges: pydantic's own words are fine ("Input should be greater than 0").
    return f"{_brief(error['input'])}: {error['msg'].replace('Input should', 'it should')}", ""


def _unknown_key(path: Path, value: Any) -> tuple[str, str]:
    name = str(path[-1])
    if path[0] == "prices":
        quoted = f'a name with a dot needs quotes: [prices."{path[1]}.{name}"]'
        return "unknown key", suggest(name, keys_of(Price)) or quoted
    table = table_at(path[:-1])
    known = keys_of(table)
    hint = (
        elsewhere(path, table, value) or suggest(name, known) or f"known here: {', '.join(known)}"
    )
    if path[0] == "flows" and len(path) == 3 and name in keys_of(File):
        hint = f"write it as a table of its own: [{name}]"
    return "unknown key", hint


def _pattern(path: Path, value: object) -> tuple[str, str]:
    match path[-1]:
        case "name":
            return f"{_brief(value)} is no tool name", "up to 64 letters, digits, _ and -"
        case "base_url":
            return f"{_brief(value)} is no address", 'such as "http://localhost:11434/v1"'
        case "url":  # not shown: it may hold a password
            return "is no address", 'such as "http://127.0.0.1:9000/mcp", without a user name'
        case "api_key_env" | "token_env" as name:  # not shown: it may be the key itself
            example = "OLLAMA_API_KEY" if name == "api_key_env" else "PLANT_TOKEN"
            return (
                "is no name of an environment variable",
                f"write the variable's name, such as {example}, never the key",
            )
    return f"{_brief(value)} can't be used", ""


def _brief(value: object) -> str:
    match value:
        case str():
            text = f'"{value}"'
        case bool():
            text = str(value).lower()
        case dict() | list() | tuple():
            text = "this"
        case _:
            text = str(value)
    return text if len(text) <= 60 else f'{text[:57]}…"'
