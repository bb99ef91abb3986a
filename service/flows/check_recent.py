"""What is wrong with `recent`: a window nobody reads, or one that no request can find."""

from __future__ import annotations

from service.flows.flow import Flow
from service.flows.keys import walk
from service.flows.kinds import Mark
from service.flows.lines import Path
from service.flows.report import Report, suggest
from service.mqtt.templates import Template

LONGEST = 31 * 86400.0  # seconds
SMALLEST, LARGEST = 1000, 16_000_000  # bytes


def check_recent(flow: Flow, report: Report) -> None:
    """Report what keeps `flow.recent` from being of use."""
    if flow.recent is None:
        return
    base: Path = ("flows", flow.name, "recent")
    _check_levels(flow, (*base, "topic"), report)
    if any("recent" in pattern.names for pattern in flow.request):
        said = "a level of request is called ${recent}: what was published lately can't be read"
        report.add(base, said, "give the level another name")
    elif not _is_read(flow):
        hint = "write ${recent} in prompt or system, or one figure such as ${recent.value.mean}"
        report.warn(base, "is kept, but nothing reads it", hint)
    if flow.history is not None and flow.prompt is not None and names_table(flow.prompt, "recent"):
        said = "is remembered with each question, as it was then"
        report.warn(base, said, "in a flow with history write ${recent} into system")
    if flow.recent.for_ > LONGEST:
        hint = 'write "31d" at most; longer times are for a database of your own'
        report.add((*base, "for"), "is longer than a window may be", hint)
    if not SMALLEST <= flow.recent.size <= LARGEST:
        hint = 'write "1 KB" to "16 MB"; all of it is read with each question'
        report.add((*base, "size"), "is no size that a window may have", hint)
    for index, field in enumerate(flow.recent.fields):
        if field.startswith("payload."):
            hint = f'write "{field.removeprefix("payload.")}"'
            report.add((*base, "fields", index), "is looked for within the payload already", hint)


def _check_levels(flow: Flow, path: Path, report: Report) -> None:
    """A request finds its window by the levels that both topics name."""
    assert flow.recent is not None
    for name in flow.recent.topic.names:
        lacking = next((one for one in flow.request if name not in one.names), None)
        if lacking is None:
            continue
        known = sorted({each for pattern in flow.request for each in pattern.names})
        close = suggest(name, known)
        hint = close.replace('"', "${", 1).replace('"', "}", 1) if close else ""
        report.add(
            path,
            f'${{{name}}} is not captured by "{lacking}": whose messages are meant?'
            if flow.every is None
            else f"${{{name}}} stands for nothing at a set time: whose messages are meant?",
            hint
            or "write + for the messages of all"
            + ("" if flow.every else f", or capture ${{{name}}} in request"),
        )


def _is_read(flow: Flow) -> bool:
    places = (place for place in walk(flow, ()) if place.mark is Mark.TEMPLATE)
    return any(names_table(place.value, "recent") for place in places)


def names_table(template: Template, table: str) -> bool:
    """Whether a text tells of `${recent}` or `${collected}`, in all or a figure of it."""
    return any(name.partition(".")[0] == table for name in template.names)
