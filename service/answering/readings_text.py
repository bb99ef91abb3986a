"""Readings of a window → what a prompt tells of them: a table, and figures. Pure.

The table is CSV, which models read well and which takes the fewest tokens. What does not fit is
thinned out evenly; the figures below it are of all readings.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from service.domain import Reading
from service.flows import Collect, Recent
from service.mqtt.templates import MISSING, NamedValues, as_text, decode_json
from service.units import show_seconds

VALUE = "value"
"""What a payload is called that is no JSON object."""
COLUMNS = 12  # without `fields`; those that came first
CELL = 200  # characters
DEEP = 3  # levels of objects that are looked through for values, without `fields`
_DAY = 86_400_000


NOT_KEPT = NamedValues("(what was published then is not known any more)", {})
"""For a request that is asked again long after."""


@dataclass(slots=True)
class _Column:
    """One value over time."""

    numbers: list[tuple[float, int]] = field(default_factory=list)  # and when
    last: Any = MISSING

    def add(self, value: Any, at: int) -> None:
        self.last = value
        if isinstance(value, int | float) and not isinstance(value, bool):
            number = _float(value)
            if math.isfinite(number):
                self.numbers.append((number, at))

    def figures(self) -> dict[str, Any]:
        told: dict[str, Any] = {} if self.last is MISSING else {"last": self.last}
        if not self.numbers:
            return told
        only = [number for number, _ in self.numbers]
        mean = math.fsum(number / len(only) for number in only)
        return {
            "mean": float(f"{mean:.6g}"),
            "min": min(only),
            "max": max(only),
            "last": self.last,
            "count": len(only),
        }


def told(table: Recent | Collect, readings: Sequence[Reading]) -> NamedValues:
    """What `${recent}` or `${collected}` stands for; `readings` are oldest first."""
    if not readings and isinstance(table, Recent):
        nothing = f"(nothing was published in the last {show_seconds(table.for_)})"
        return NamedValues(nothing, {"count": 0})
    rows = [(one, _values(table, one)) for one in readings]
    names = _names(table, [values for _, values in rows])
    columns = {name: _Column() for name in names}
    for one, values in rows:
        for name in names:
            if name in values:
                columns[name].add(values[name], one.at)
    figures = {name: column.figures() for name, column in columns.items()}
    parts: dict[str, Any] = {"count": len(readings)}
    for name, known in figures.items():
        _nest(parts, name.split("."), known)
    text = _fitting(table, rows, names, list(_lines(columns, readings[-1].at - readings[0].at)))
    return NamedValues(text, parts)


def _values(table: Recent | Collect, one: Reading) -> Mapping[str, Any]:
    value = decode_json(one.text.encode("utf-8", "replace"))
    if not isinstance(value, dict):
        return {VALUE: one.text if value is MISSING else value}
    if table.fields:
        found = {name: _at(value, name.split(".")) for name in table.fields}
        return {name: each for name, each in found.items() if each is not MISSING}
    return dict(_flat(value, "", DEEP))


def _at(value: Any, path: Sequence[str]) -> Any:
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return MISSING
        value = value[name]
    return value


def _flat(value: Mapping[str, Any], before: str, deep: int) -> Iterator[tuple[str, Any]]:
    for name, each in value.items():
        if isinstance(each, dict):
            if deep > 1:
                yield from _flat(each, f"{before}{name}.", deep - 1)
        elif not isinstance(each, list):
            yield before + name, each


def _names(table: Recent | Collect, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns, as `fields` says or as they came."""
    seen = dict.fromkeys(name for values in rows for name in values)
    if table.fields:
        # What is no JSON object all the same is not kept from the model.
        return [*table.fields, *([VALUE] if VALUE in seen and VALUE not in table.fields else [])]
    return list(seen)[:COLUMNS]


def _nest(parts: dict[str, Any], path: Sequence[str], figures: Mapping[str, Any]) -> None:
    *above, last = path
    for name in above:
        parts = parts.setdefault(name, {})
        if not isinstance(parts, dict):
            return  # a value and an object of one name
    if isinstance(parts.get(last), dict):
        parts[last] = {**parts[last], **figures}
    else:
        parts.setdefault(last, dict(figures))


def _lines(columns: Mapping[str, _Column], span: int) -> Iterator[str]:
    """The figures of each value that is a number somewhere."""
    for name, column in columns.items():
        if not column.numbers:
            continue
        known = column.figures()
        low = min(column.numbers)
        high = max(column.numbers, key=lambda each: (each[0], -each[1]))
        yield (
            f"{name}: min {as_text(low[0])} at {_time(low[1], span)}, mean {as_text(known['mean'])}"
            f", max {as_text(high[0])} at {_time(high[1], span)}, last {_cell(known['last'])}"
        )


def _fitting(
    table: Recent | Collect,
    rows: Sequence[tuple[Reading, Mapping[str, Any]]],
    names: Sequence[str],
    lines: Sequence[str],
) -> str:
    """The table with as many rows as `tokens` allow; the first and the last one are among them."""
    span = rows[-1][0].at - rows[0][0].at
    topics = any(one.topic for one, _ in rows)
    head = [
        f"time ({'UTC' if span < _DAY else 'date, UTC'})",
        *(["topic"] if topics else []),
        *names,
    ]
    made = [
        _csv([_time(one.at, span), *([one.topic] if topics else []), *_cells(values, names)])
        for one, values in rows
    ]
    day = datetime.fromtimestamp(rows[-1][0].at / 1000, UTC).date().isoformat()
    below = "\n".join(lines)
    room = table.tokens * 3 - len(f"{_csv(head)}{below}".encode("utf-8", "replace")) - 80
    sizes = [len(row.encode("utf-8", "replace")) + 1 for row in made]
    count = len(made)
    chosen = range(count)
    while count > 1 and sum(sizes[at] for at in chosen) > room:
        count = min(count - 1, max(1, count * 9 // 10))
        chosen = _spread(len(made), count)  # type: ignore[assignment]
    said = f"{len(made)} messages until {day} {_time(rows[-1][0].at, 0)} UTC"
    if count < len(made):
        said += f", {count} of them shown"
    shown = "\n".join([_csv(head), *(made[at] for at in chosen)])
    return f"{said}\n{shown}" + (f"\n{below}" if below else "")


def _spread(total: int, count: int) -> list[int]:
    if count == 1:
        return [total - 1]
    return [round(at * (total - 1) / (count - 1)) for at in range(count)]


def _cells(values: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [_cell(values[name]) if name in values else "" for name in names]


def _cell(value: Any) -> str:
    text = as_text(value)
    return text if len(text) <= CELL else text[:CELL] + "…"


def _csv(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def _time(at: int, span: int) -> str:
    """Of a table that spans so many ms."""
    try:
        moment = datetime.fromtimestamp(at / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return "?"
    return moment.strftime("%H:%M:%S" if span < _DAY else "%Y-%m-%d %H:%M:%S")


def _float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
