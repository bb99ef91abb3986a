"""Durations ("1h30m"), sizes ("8 MB") and limits ("10/min") as people write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_UNITS = {"": "s", "sec": "s", "second": "s", "min": "m", "minute": "m", "hour": "h", "day": "d"}
DURATION = r"([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+"
LIMIT = r"[0-9]+ ?/ ?[0-9]*(s|sec|second|m|min|minute|h|hour|d|day)"
SIZE = r"([0-9]+)\s*([kKmMgG]?[bB]?)"
_TEN_YEARS = 315_360_000
_SIZES = {"": 1, "B": 1, "KB": 1000, "MB": 1_000_000, "GB": 1_000_000_000}


@dataclass(frozen=True, slots=True)
class Limit:
    """`count` requests in `per` seconds."""

    count: int
    per: float

    def __str__(self) -> str:
        return f"{self.count}/{show_seconds(self.per)}"


def seconds(text: str) -> float:
    """Seconds of "7d", "30s", "1h30m", nothing at all included; raises ValueError."""
    if not re.fullmatch(DURATION, text.strip()):
        raise ValueError(f"{text!r} is not a duration; write for example 30s, 15m, 24h or 7d")
    parts = re.findall(r"([0-9.]+)([a-z]+)", text)
    return float(sum(float(number) * _SECONDS[unit] for number, unit in parts))


def size(text: str) -> int:
    """Bytes of "8 MB"; raises ValueError."""
    found = re.fullmatch(SIZE, text.strip())
    unit = found[2].upper() if found else "?"
    unit = unit if unit in _SIZES else unit + "B"
    if not found or unit not in _SIZES:
        raise ValueError(f"{text!r} is not a size; write for example 8 MB")
    return int(found[1]) * _SIZES[unit]


def duration(value: Any) -> float:
    """Seconds of "5m", "24h", "1h30m"; raises ValueError with what to write."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f'a number needs a unit: write "{value}s"')
    if not isinstance(value, str) or not re.fullmatch(DURATION, value):
        said = 'a duration is text such as "90s", "5m", "24h" or "1h30m"'
        raise ValueError(said + _meant_duration(value))
    lasts = seconds(value)
    if not 0 < lasts <= _TEN_YEARS:
        raise ValueError("a duration lies between 1ms and ten years")
    return lasts


def whole_seconds(value: Any) -> int:
    """Like `duration`, for what MQTT counts in seconds."""
    lasts = duration(value)
    if lasts < 1:
        raise ValueError("it is counted in whole seconds: at least 1s")
    return int(lasts)


def limit(value: Any) -> Limit:
    """A Limit of "10/min", "100/h", "5/10s"; raises ValueError with what to write."""
    if not isinstance(value, str) or not re.fullmatch(LIMIT, value):
        said = 'a limit is text such as "10/min", "100/h", "5/10s" or "1000/day"'
        raise ValueError(said + _meant_limit(value))
    count, _, window = value.replace(" ", "").partition("/")
    number, unit = re.fullmatch(r"([0-9]*)([a-z]+)", window).groups()  # type: ignore[union-attr]
    per = duration(f"{number or 1}{_UNITS.get(unit, unit)}")
    if not 0 < int(count) <= 1_000_000_000:
        raise ValueError("a limit allows at least one request")
    return Limit(int(count), per)


def _meant_duration(value: Any) -> str:
    """What to write for "30", "5 minutes" and the like; nothing if that can't be told."""
    found = (
        re.fullmatch(r"([0-9]+) *([a-zA-Z]*)", value.strip()) if isinstance(value, str) else None
    )
    unit = _unit(found[2] or "s") if found else ""
    return f'; write "{found[1]}{unit}"' if found and unit else ""


def _meant_limit(value: Any) -> str:
    """What to write for 10, "10 per minute" and the like; nothing if that can't be told."""
    text = "" if isinstance(value, bool) else str(value).strip()
    if re.fullmatch(r"[0-9]+", text):
        return f'; write "{text}/min", or what time it is for'
    found = re.fullmatch(r"([0-9]+) *(?:/|per|a|an|in) *(?:each |a )?([0-9]*) *([a-zA-Z]+)", text)
    unit = _unit(found[3]) if found else ""
    unit = "min" if unit == "m" else unit
    return f'; write "{found[1]}/{found[2]}{unit}"' if found and unit else ""


def _unit(word: str) -> str:
    """The unit that a word such as "minutes" means, or nothing."""
    bare = word.lower()
    bare = bare[:-1] if len(bare) > 2 and bare.endswith("s") else bare
    known = {**_UNITS, "hr": "h", "week": "w", "wk": "w", "msec": "ms", "millisecond": "ms"}
    return bare if bare in _SECONDS and bare else known.get(bare, "")


def show_seconds(lasts: float) -> str:
    """90.0 as "90s", 86400.0 as "24h": the largest unit that divides it."""
    for unit in ("h", "m", "s"):
        if lasts >= _SECONDS[unit] and lasts % _SECONDS[unit] == 0:
            return f"{int(lasts // _SECONDS[unit])}{unit}"
    return f"{lasts:g}s"
