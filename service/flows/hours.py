"""Times of day: `07:00-22:00 Europe/Berlin`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

HOURS = r"([01]?\d|2[0-3]):([0-5]\d) *[-–] *([01]?\d|2[0-4]):([0-5]\d)"
_SHAPE = re.compile(rf"{HOURS}(?: +(\S+))?")
_EXAMPLE = '"07:00-22:00 Europe/Berlin"'


@dataclass(frozen=True, slots=True)
class Hours:
    """From `first` until before `last` in a time zone; over midnight where `last` comes first."""

    text: str
    first: time
    last: time
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str) -> Hours:
        """Raises ValueError that says what to write."""
        found = _SHAPE.fullmatch(text.strip())
        if found is None or (found[3] == "24" and found[4] != "00"):
            raise ValueError(f"hours are such as {_EXAMPLE}")
        if found[5] is None:
            raise ValueError(f'has no time zone: write {_EXAMPLE}, or "{text.strip()} UTC"')
        try:
            zone = ZoneInfo(found[5])
        except (KeyError, ValueError, OSError):
            raise ValueError(
                f'"{found[5]}" is no time zone that is known here: such as Europe/Berlin, '
                "Asia/Shanghai or UTC"
            ) from None
        first = time(int(found[1]), int(found[2]))
        last = time(int(found[3]) % 24, int(found[4]))
        if first == last:
            raise ValueError("begins and ends at the same time; leave it out for all day")
        return cls(text, first, last, zone)

    def open(self, now: int) -> bool:
        """Whether it is such a time at `now` (epoch ms)."""
        at = datetime.fromtimestamp(now / 1000, UTC).astimezone(self.zone).time()
        if self.first < self.last:
            return self.first <= at < self.last
        return at >= self.first or at < self.last

    def __str__(self) -> str:
        return self.text
