"""When a flow with `every` asks: cron expressions, in a time zone. Pure.

As in Debian's cron: what falls into an hour that the clock skips in spring comes right after it,
and a time that comes twice in autumn counts once; `*` in minute or hour goes by real time.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from service.units import DURATION

_PLACES = ("a minute (0-59)", "an hour (0-23)", "a day of the month", "a month", "a weekday (0-7)")
_WORDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_HOUR, _DAY = 3_600_000, 86_400_000
_EXAMPLE = 'such as "0 7 * * *" (each day at 7:00) or "*/15 * * * *"'


class CronError(ValueError):
    """A text that is no schedule; `hint` says what to write."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Cron:
    """Five fields, checked; made by `parse`."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Cron:
        """Raises CronError."""
        fields = text.split()
        if len(fields) != 5:
            raise CronError(f'"{text}" is no cron expression: it has five fields', _meant(text))
        try:
            next(CronSim(text, datetime(2026, 1, 1, tzinfo=UTC)))
        except StopIteration:
            raise CronError(f'"{text}" never comes', "is the day in that month?") from None
        except CronSimError as error:
            if str(error).startswith("Bad day-of-month") and _fine(fields[2]):
                raise CronError(f'"{text}" never comes', "is the day in that month?") from None
            raise CronError(f'"{text}" is no cron expression: {_wrong(fields)}', _EXAMPLE) from None
        return cls(" ".join(fields))

    def after(self, at: int, zone: str) -> int | None:
        """The first time after `at`, both epoch ms; None if there is none."""
        moment = datetime.fromtimestamp(at // 1000, ZoneInfo(zone) if zone != "UTC" else UTC)
        for found in CronSim(self.text, moment):
            # In the hour that comes twice it begins with the first one.
            if (next_at := int(found.timestamp()) * 1000) > at:
                return next_at
        return None

    def last(self, after: int, until: int, zone: str) -> int | None:
        """The last time after `after` and not after `until`, epoch ms; None if there is none."""
        for back in (_HOUR, 2 * _DAY, 40 * _DAY, until):
            begin = max(after, until - back)
            found = None
            at = self.after(begin, zone)
            while at is not None and at <= until:
                found, at = at, self.after(at, zone)
            if found is not None or begin == after:
                return found
        return None

    def __str__(self) -> str:
        return self.text


def zone_of(text: str) -> str:
    """A time zone's name, checked. Raises CronError."""
    known = available_timezones()
    if text in known:
        return text
    close = difflib.get_close_matches(text, known, 1, 0.6)
    city = [name for name in known if name.lower().endswith("/" + text.lower().replace(" ", "_"))]
    hint = f'did you mean "{(city or close)[0]}"?' if city or close else ""
    raise CronError(f'"{text}" is no time zone', hint or 'such as "Europe/Berlin" or "UTC"')


def _meant(text: str) -> str:
    bare = text.strip().lower()
    if bare in _WORDS:
        return f'write "{_WORDS[bare]}"'
    if found := re.fullmatch(r"([0-9]+) ?m(?:in|inutes?)?", bare):
        return f'write "*/{found[1]} * * * *"' if 0 < int(found[1]) < 60 else _EXAMPLE
    if found := re.fullmatch(r"([0-9]+) ?h(?:ours?)?", bare):
        return f'write "0 */{found[1]} * * *"' if 0 < int(found[1]) < 24 else _EXAMPLE
    if re.fullmatch(DURATION, bare):
        return f"a schedule is by the clock, {_EXAMPLE}"
    if found := re.fullmatch(r"([0-2]?[0-9]):([0-5][0-9])", bare):
        return f'write "{int(found[2])} {int(found[1])} * * *"'
    if len(bare.split()) == 6:
        return "leave the seconds out: minute, hour, day of the month, month, weekday"
    return _EXAMPLE


def _fine(field: str) -> bool:
    return _tried(2, field)


def _wrong(fields: list[str]) -> str:
    for place, field in enumerate(fields):
        if not _tried(place, field):
            return f'"{field}" is not {_PLACES[place]}'
    return "its fields do not go together"


def _tried(place: int, field: str) -> bool:
    alone = ["*"] * 5
    alone[place] = field
    try:
        CronSim(" ".join(alone), datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError:
        return False
    return True
