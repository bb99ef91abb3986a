"""A resource's configuration as EMQX shows it, and typed looks at it."""

from __future__ import annotations

import re
from collections.abc import Mapping

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])", re.IGNORECASE)
_SIZES = {"": 1, "b": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3}
_SIZE = re.compile(r"(\d+)\s*([kmg]?b)?", re.IGNORECASE)


def seconds(value: object) -> float:
    """`10m`, `1h30m`, `infinity` or a number of milliseconds. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value / 1000
    if value == "infinity":
        return float("inf")
    parts = _DURATION.findall(value) if isinstance(value, str) else []
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise ValueError(f"not a duration: {value!r}")
    return sum(float(number) * _UNITS[unit.lower()] for number, unit in parts)


def size(value: object) -> int:
    """`256MB` or a number of bytes. Raises ValueError."""
    match = _SIZE.fullmatch(str(value))
    if match is None or isinstance(value, bool):
        raise ValueError(f"not a size: {value!r}")
    return int(match[1]) * _SIZES[(match[2] or "").lower()]


class Settings(dict[str, object]):
    """A checked configuration: every default is in it, every value has its type."""

    def section(self, *path: str) -> Settings:
        found: object = self
        for key in path:
            assert isinstance(found, Mapping)
            found = found.get(key, {})
        assert isinstance(found, Mapping)
        return Settings(found)

    def _at(self, path: tuple[str, ...]) -> object:
        return self.section(*path[:-1])[path[-1]]

    def seconds(self, *path: str) -> float:
        return seconds(self._at(path))

    def bytes(self, *path: str) -> int:
        return size(self._at(path))

    def integer(self, *path: str) -> int:
        value = self._at(path)
        assert isinstance(value, int)
        return value
