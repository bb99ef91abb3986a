"""A request's timeline as bars beneath one another."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

LEAST = 0.6  # per cent: a moment is still seen


@dataclass(frozen=True, slots=True)
class Bar:
    """One event. `left` and `width` are per cent of the whole; `kind` chooses the colour."""

    event: dict[str, Any]
    kind: str
    left: float
    width: float
    offset_ms: float | None  # since the first event
    took_ms: float | None  # None: a moment
    open: bool  # it goes on


def waterfall(request: dict[str, Any]) -> list[Bar]:
    """The bars, in the order of time."""
    events = request["timeline"]
    if request["state"] == "ignored":  # it has an end, and nobody was answered
        events = [event for event in events if event["what"] != "answered"]
    times = [_ms(event[name]) for event in events for name in ("at", "until") if event.get(name)]
    if not times:
        return []
    start = min(times)
    end = max(times) if request["ended_at"] else max(*times, datetime.now(UTC).timestamp() * 1000)
    whole = max(end - start, 1.0)
    return [_bar(event, start, end, whole) for event in events]


def _bar(event: dict[str, Any], start: float, end: float, whole: float) -> Bar:
    at = _ms(event["at"]) if event["at"] else None
    until = _ms(event["until"]) if event.get("until") else None
    goes_on = "until" in event and until is None and event["what"] == "waited"
    if goes_on:
        until = end
    begin = at if at is not None else start
    width = max((until - begin) / whole * 100 if until is not None else 0.0, LEAST)
    left = min((begin - start) / whole * 100, 100 - LEAST)
    return Bar(
        event,
        _kind(event),
        round(left, 3),
        round(min(width, 100 - left), 3),
        None if at is None else at - start,
        None if until is None or at is None else max(0.0, until - at),
        goes_on,
    )


def _kind(event: dict[str, Any]) -> str:
    what = str(event["what"])
    if what == "attempt":
        return "ok" if event["result"] == "ok" else "bad"
    if what == "ended":
        return str(event["state"])
    return what


def _ms(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp() * 1000
