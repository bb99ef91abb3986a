"""HOCON as EMQX reads it: no environment, no includes, placeholders must be filled before."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping

import pyhocon
import pyparsing
from pyhocon.exceptions import ConfigException

# texts and comments are skipped as a whole, so that what remains is outside of them
_PIECE = re.compile(
    r'"""(?:.|\n)*?"""(?!")|"(?:[^"\\\n]|\\.)*"|(?:\#|//)[^\n]*'
    r"|(?P<hole>\$\{(?P<optional>\?)?(?P<name>[^}]*)\})"
    r'|(?P<include>\binclude\s*(?="|\w+\())'
)

_EPOCH = datetime.datetime(1970, 1, 1)
_BARE = re.compile(r"(?!(?:true|false|null)$)[A-Za-z_][A-Za-z0-9_]*")


class HoconError(ValueError):
    """A text that is no HOCON here; `errors` is what EMQX answers in its `errors`."""

    def __init__(self, errors: object) -> None:
        super().__init__(str(errors))
        self.errors = errors


def load(text: str) -> dict[str, object]:
    """The tree. Raises HoconError: syntax, unfilled placeholders, includes."""
    optional: list[str] = []
    holes: list[tuple[str, int]] = []
    for piece in _PIECE.finditer(text):
        line = text.count("\n", 0, piece.start()) + 1
        if piece["include"]:
            raise HoconError({"line": line, "reason": "include is not allowed here"})
        if piece["hole"] and not piece["optional"]:
            holes.append((piece["name"].strip(), line))
        elif piece["hole"]:
            optional.append(piece["name"].strip())
    try:
        tree = pyhocon.ConfigFactory.parse_string(text, resolve=False)
        for name, line in holes:
            if tree.get(name, None) is None:
                said = f'failed_to_resolve <<\\"{name}\\">> at_line {line}'
                raise HoconError(f'{{resolve_error,<<"{said}">>}}')
        for name in optional:  # pyhocon would look into the environment
            if tree.get(name, None) is None:
                text = text.replace("${?" + name + "}", "")
        if holes or optional:
            tree = pyhocon.ConfigFactory.parse_string(text)
    except pyparsing.ParseBaseException as exc:
        reason = "syntax error before: " + "".join(text[exc.loc :].split()[:1])
        raise HoconError(_parse_error(exc.lineno, reason)) from None
    except ConfigException as exc:
        raise HoconError(_parse_error(1, str(exc))) from None
    if not isinstance(tree, Mapping):
        raise HoconError(_parse_error(1, "not an object"))
    plain = _plain(tree)
    assert isinstance(plain, dict)
    return plain


def _parse_error(line: int, reason: str) -> dict[str, object]:
    return {"line": line, "reason": reason, "type": "parse_error"}


def _plain(value: object) -> object:
    """pyhocon's trees as plain ones: it keeps quotes around keys and reads `10m` as a time."""
    if isinstance(value, Mapping):
        return {str(key).strip('"'): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    # A timedelta, or dateutil's relativedelta where that is installed: both add to a date.
    length = _EPOCH + value - _EPOCH  # type: ignore[operator]
    return _duration(length // datetime.timedelta(milliseconds=1))


def _duration(milliseconds: int) -> str:
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def dump(value: object, indent: int = 0) -> str:
    """A tree as HOCON, keys sorted, the way EMQX prints it."""
    pad = "  " * indent
    if value in ({}, []):
        return "{}" if value == {} else "[]"
    if isinstance(value, Mapping):
        lines = []
        for key, item in sorted(value.items()):
            sign = " " if isinstance(item, Mapping) else " = "
            lines.append(f"{pad}  {_key(str(key))}{sign}{dump(item, indent + 1)}\n")
        return "{\n" + "".join(lines) + pad + "}"
    if isinstance(value, list):
        inside = ",\n".join(f"{pad}  {dump(item, indent + 1)}" for item in value)
        return f"[\n{inside}\n{pad}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, str) and not _BARE.fullmatch(value):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    return str(value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"'
