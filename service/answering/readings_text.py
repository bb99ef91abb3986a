"""Readings of a window → what a prompt tells of them: a table, and figures. Pure.

The table is CSV, which models read well and which takes the fewest tokens. What does not fit is
thinned out evenly; the figures below it are of all readings. Whatever devices send, the text is no
longer than `tokens` says, has only the lines that are made here, and can be written as UTF-8.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any

import orjson

from service.bodies import too_deep
from service.domain import Reading
from service.flows import Collect, Recent
from service.mqtt.templates import MISSING, NamedValues, as_text, decode_json
from service.units import show_seconds

VALUE = "value"
"""What a payload is called that is no JSON object."""
COLUMNS = 12  # of the table, without `fields`; those that came first
FIGURED = 1000
"""Values that have figures, without `fields`, in the table or not: which of them a prompt names is
not known here. Those in most messages, so that nobody who makes up names crowds out the others."""
LEVELS = 32  # of such a name: each costs memory, and `a.a.a…` has as many as a payload has bytes
CELLS = (200, 50, 12)  # characters; shorter ones where longer ones leave no room for all columns
DEEP = 3  # levels of objects that are looked through for values, without `fields`
_DAY = 86_400_000  # ms
_DIGITS = 6  # of a mean, at least
_SAFE_DIGITS = 15  # a float has so many without noise
_HUGE = 1 << 1023  # an integer beyond it may be no float
_NINES = bytes.maketrans(b"012345678", b"9" * 9)
_LONG = b"9" * 19  # digits; may be an integer beyond 64 bits, which orjson rounds
_NESTED = frozenset({dict, list})
_NO_TEXT = re.compile("[\ud800-\udfff]")  # halves of characters, as JSON can write them
# Line breaks of every kind, and what else is no character to be read.
_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

Row = Mapping[str, Any]
"""The values of one message by their names."""


NOT_KEPT = NamedValues("(what was published then is not known any more)", {})
"""For a request that is asked again long after."""


@dataclass(frozen=True, slots=True)
class _Figures:
    """Those of one value that is a number somewhere; integers stay such, however large."""

    low: int | float
    high: int | float
    mean: int | float
    count: int

    @classmethod
    def of(cls, values: Iterable[Any]) -> _Figures | None:
        # By type: a bool is an int for isinstance. JSON's floats are finite.
        numbers = [
            each
            for each in values
            if type(each) is float or (type(each) is int and -_HUGE < each < _HUGE)
        ]
        if not numbers:
            return None
        low, high = min(numbers), max(numbers)
        return cls(low, high, _mean(numbers, low, high), len(numbers))


def told(table: Recent | Collect, readings: Sequence[Reading]) -> NamedValues:
    """What `${recent}` or `${collected}` stands for; `readings` are oldest first."""
    if not readings and isinstance(table, Recent):
        nothing = f"(nothing was published in the last {show_seconds(table.for_)})"
        return NamedValues(nothing, {"count": 0})
    read = _reader(table)
    rows = [read(_decoded(one.text)) for one in readings]
    seen = Counter(chain.from_iterable(rows))
    names = _columns(table, seen)
    found: dict[str, list[Any]] = {name: [] for name in chain(names, _figured(seen))}
    for row in rows:
        for name, value in row.items():
            if name in found:
                found[name].append(value)
    figures = {name: _Figures.of(values) for name, values in found.items()}
    parts: dict[str, Any] = {"count": len(readings)}
    for name, values in found.items():
        if values and (table.fields or name.count(".") < LEVELS):
            _nest(parts, name.split("."), _by_name(values, figures[name], table.tokens * 3))
    whole = _Table(readings, rows, names, any(one.topic for one in readings))
    return NamedValues(_fitting(whole, figures, table.tokens * 3 - 1), parts)


def _decoded(text: str) -> Any:
    """A payload's JSON, else its text; as `decode_json`, but made for thousands at once."""
    data = text.encode("utf-8", "replace")
    try:
        value = decode_json(data) if _LONG in data.translate(_NINES) else orjson.loads(data)
    except ValueError:
        value = decode_json(data)  # no JSON, or such as orjson refuses: half a character
    return text if value is MISSING or too_deep(data) else value


def _reader(table: Recent | Collect) -> Callable[[Any], Row]:
    """What takes the values that are told out of a payload."""
    paths = {name: name.split(".") for name in table.fields}

    def read(value: Any) -> Row:
        if not isinstance(value, dict):
            return {VALUE: value}
        if not paths:
            return _flat(value)
        found = {name: _at(value, path) for name, path in paths.items()}
        return {name: each for name, each in found.items() if each is not MISSING}

    return read


def _at(value: Any, path: Sequence[str]) -> Any:
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return MISSING
        value = value[name]
    return value


def _flat(value: Row) -> Row:
    if _NESTED.isdisjoint(map(type, value.values())):
        return value
    return dict(_flattened(value, "", DEEP))


def _flattened(value: Row, before: str, deep: int) -> Iterator[tuple[str, Any]]:
    for name, each in value.items():
        if isinstance(each, dict):
            if deep > 1:
                yield from _flattened(each, f"{before}{name}.", deep - 1)
        elif not isinstance(each, list):
            yield before + name, each


def _columns(table: Recent | Collect, seen: Mapping[str, int]) -> list[str]:
    """Those of the table, as `fields` says or as they came."""
    if table.fields:
        # What is no JSON object all the same is not kept from the model.
        return [*table.fields, *([VALUE] if VALUE in seen and VALUE not in table.fields else [])]
    return list(islice(seen, COLUMNS))


def _figured(seen: Counter[str]) -> Iterable[str]:
    """The values that have figures, beside those of the table."""
    return seen if len(seen) <= FIGURED else (name for name, _ in seen.most_common(FIGURED))


def _by_name(values: Sequence[Any], figures: _Figures | None, most: int) -> dict[str, Any]:
    """What a prompt may name of a value; a text is no longer than `most` bytes."""
    last = values[-1]
    if not isinstance(last, int | float | None):
        last = _cut(as_text(last), most)
    if figures is None:
        return {"last": last}
    return {
        "mean": figures.mean,
        "min": figures.low,
        "max": figures.high,
        "last": last,
        "count": figures.count,
    }


def _cut(text: str, most: int) -> str:
    data = _encodable(text[: most + 1]).encode()
    return data[:most].decode(errors="ignore") + "…" if len(data) > most else data.decode()


def _nest(parts: dict[str, Any], path: Sequence[str], figures: Mapping[str, Any]) -> None:
    """Put figures where `path` leads. A figure and a value of one name have room beside each
    other: `${recent.count}` is the first, and `${recent.count.mean}` is of the second."""
    for name in path:
        held = parts.get(name, "undefined")
        if not isinstance(held, NamedValues):
            held = parts[name] = NamedValues(as_text(held), {})
        assert isinstance(held.values, dict)
        parts = held.values
    for name, figure in figures.items():
        below = parts.get(name)
        if isinstance(below, NamedValues):
            figure = NamedValues(as_text(figure), below.values)
        parts[name] = figure


def _mean(numbers: Sequence[int | float], low: int | float, high: int | float) -> int | float:
    """With as many digits as low and high have, and more if it would not be between them."""
    try:
        mean: int | float = math.fsum(numbers) / len(numbers)
    except OverflowError:
        mean = math.fsum(each / len(numbers) for each in numbers)
    mean = min(max(mean, low), high)
    digits = min(max(_DIGITS, _digits(low), _digits(high)), _SAFE_DIGITS)
    for enough in range(digits, _SAFE_DIGITS + 2):
        rounded = float(f"{mean:.{enough}g}")
        if low <= rounded <= high:
            return rounded
    return mean


def _digits(number: int | float) -> int:
    """How many a reader sees of it: 3 of -20.5, 2 of 0.0012."""
    shown = as_text(number).partition("e")[0]
    return len(shown.replace(".", "").lstrip("-0"))


@dataclass(frozen=True, slots=True)
class _Table:
    """Rows and columns as they are told."""

    readings: Sequence[Reading]
    rows: Sequence[Row]
    names: Sequence[str]
    topics: bool
    longest: int = CELLS[0]  # characters of a cell

    @property
    def span(self) -> int:
        """ms"""
        return self.readings[-1].at - self.readings[0].at

    def head(self) -> str:
        time = "time (UTC)" if self.span < _DAY else "time (date, UTC)"
        topic = ["topic"] if self.topics else []
        return ",".join([time, *topic, *(_cell(name, self.longest) for name in self.names)])

    def line(self, at: int) -> str:
        one, row = self.readings[at], self.rows[at]
        topic = [_cell(one.topic, self.longest)] if self.topics else []
        cells = (_cell(row[name], self.longest) if name in row else "" for name in self.names)
        return ",".join([_time(one.at, self.span), *topic, *cells])

    def least(self) -> int:
        """Bytes of what is always told: the head and the last row."""
        return _size(self.head()) + _size(self.line(len(self.rows) - 1))

    def figures(self, name: str, known: _Figures) -> str:
        """Their line."""
        low, high = self._when(name, known.low), self._when(name, known.high)
        last = next(row[name] for row in reversed(self.rows) if name in row)
        return (
            f"{_cell(name, self.longest, ':')}: min {as_text(known.low)} at {low}, "
            f"mean {as_text(known.mean)}, max {as_text(known.high)} at {high}, "
            f"last {_cell(last, self.longest)}"
        )

    def _when(self, name: str, number: int | float) -> str:
        """The time at which it was so first."""
        for one, row in zip(self.readings, self.rows, strict=True):
            value = row.get(name)
            if value == number and not isinstance(value, bool):
                return _time(one.at, self.span)
        raise LookupError(name)


def _fitting(table: _Table, figures: Mapping[str, _Figures | None], most: int) -> str:
    """As much of it as `most` bytes have room for: first all columns, then the figures, then rows,
    the first and the last one among them."""
    total = len(table.rows)
    said = f"{total} messages until {_time(table.readings[-1].at, _DAY)} UTC"
    some = f", {total} of them shown"
    room = most - _size(said + some)
    table = _narrowed(table, room)
    room -= table.least()
    below = []
    for name in table.names:
        if known := figures[name]:
            line = table.figures(name, known)
            if _size(line) <= room:
                below.append(line)
                room -= _size(line)
    shown = _thinned(table, room + _size(table.line(total - 1)))
    if len(shown) < total:
        said += f", {len(shown)} of them shown"
    return "\n".join([said, table.head(), *shown, *below])


def _narrowed(table: _Table, room: int) -> _Table:
    """The table with cells so short, and then so few columns, that one row has room."""
    for longest in CELLS:
        table = replace(table, longest=longest)
        if table.least() <= room:
            return table
    while table.names and table.least() > room:
        table = replace(table, names=table.names[: len(table.names) * 9 // 10])
    return table if table.least() <= room else replace(table, topics=False)


def _thinned(table: _Table, room: int) -> list[str]:
    """As many rows as have room, evenly spread. Only those are made that may be told."""
    total = len(table.rows)
    made: dict[int, str] = {}

    def size(at: int) -> int:
        if at not in made:
            made[at] = table.line(at)
        return _size(made[at])

    shortest = len("12:00:00\n") + len(table.names)  # nothing but commas behind the time
    fits, over = 1, min(total, room // shortest) + 1
    while over - fits > 1:
        count = (fits + over) // 2
        if sum(map(size, _spread(total, count))) <= room:
            fits = count
        else:
            over = count
    return [made.get(at) or table.line(at) for at in _spread(total, fits)]


def _spread(total: int, count: int) -> list[int]:
    if count == 1:
        return [total - 1]
    return [round(at * (total - 1) / (count - 1)) for at in range(count)]


def _cell(value: Any, longest: int, marks: str = "") -> str:
    """A value, name or topic in one line of CSV; `marks` would end it there, as commas do."""
    text = as_text(value)
    if len(text) > longest:
        text = text[:longest] + "…"
    if not text.isprintable():
        text = _BREAKS.sub(" ", _encodable(text))
    if any(mark in text for mark in (",", '"', *marks)):
        return '"' + text.replace('"', '""') + '"'
    return text


def _encodable(text: str) -> str:
    return _NO_TEXT.sub("\ufffd", text)


def _size(line: str) -> int:
    """Bytes, with its end."""
    return len(line.encode()) + 1


def _time(at: int, span: int) -> str:
    """Of a table that spans so many ms."""
    try:
        moment = datetime.fromtimestamp(at / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return "?"
    return moment.strftime("%H:%M:%S" if span < _DAY else "%Y-%m-%d %H:%M:%S")
