"""What is wrong with `collect`: a batch that comes too late, or keys that look at one message."""

from __future__ import annotations

from service.flows.check_recent import names_table
from service.flows.flow import Flow
from service.flows.keys import walk
from service.flows.kinds import Mark
from service.flows.lines import Path
from service.flows.report import Report

SHORTEST, LONGEST = 0.1, 86400.0  # seconds
SMALLEST, LARGEST = 1000, 16_000_000  # bytes
_OF_ONE = {
    "require": "there are many messages: test them in the broker, with where",
    "strip": "there are many messages, and ${collected} tells of all of them",
    "on_change": "collect asks about many messages, on_change about one that differs",
    "every": "collect asks when messages came, every by the clock",
    "allow_response_topics": "many messages get one reply: write reply",
}
_OF_LEVELS = "its levels are those of the first message of many"


def check_collect(flow: Flow, report: Report) -> None:
    """Report what keeps `flow.collect` from being of use."""
    if flow.collect is None:
        return
    base: Path = ("flows", flow.name)
    here: Path = (*base, "collect")
    for name, hint in _OF_ONE.items():
        if getattr(flow, name):
            report.add((*base, name), "can't go with collect", hint)
    if flow.input == "image":
        report.add((*base, "input"), "can't go with collect", "pictures are asked about one by one")
    if flow.collect.by is not None and report.written((*base, "conversation")):
        hint = "write by alone: it says what is asked about together, and what shares memory"
        report.add((*base, "conversation"), "can't go with collect.by", hint)
    if not SHORTEST <= flow.collect.every <= LONGEST:
        hint = 'write "100ms" to "24h"; what comes by the clock is every = "0 7 * * *"'
        report.add((*here, "every"), "is no time to collect messages for", hint)
    elif flow.collect.every >= flow.deadline:
        hint = 'make deadline longer, such as deadline = "1h"'
        report.add((*here, "every"), "is as long as deadline: all of it would be too late", hint)
    if not SMALLEST <= flow.collect.size <= LARGEST:
        hint = 'write "1 KB" to "16 MB"; all of it is read at once'
        report.add((*here, "size"), "is no size that a batch may have", hint)
    if flow.collect.tokens * 3 > flow.max_input:
        hint = "make max_input three times as much, it is in bytes"
        report.add((*here, "tokens"), "is more than max_input lets through", hint)
    if any("collected" in pattern.names for pattern in flow.request):
        said = "a level of request is called ${collected}: what was collected can't be read"
        report.add(here, said, "give the level another name")
    elif flow.prompt is not None and not _is_read(flow):
        hint = "write ${collected} into prompt, or leave prompt out"
        report.add(here, "is asked about, but nothing tells the model of it", hint)
    _check_levels(flow, base, report)


def _check_levels(flow: Flow, base: Path, report: Report) -> None:
    """Messages of several topics may be one batch: a level of one is not that of all."""
    assert flow.collect is not None
    by = flow.collect.by or flow.conversation
    if by is None:
        return  # all levels
    for place in walk(flow, base):
        if place.mark is Mark.TOPIC and place.table is flow and not place.key.default_from:
            levels = {name for pattern in flow.request for name in pattern.names}
            for name in sorted(levels.intersection(place.value.names) - set(by.names)):
                hint = f'collect by it too: by = "{by}/${{{name}}}"'
                report.warn(place.path, f"has ${{{name}}}, but {_OF_LEVELS}", hint)


def _is_read(flow: Flow) -> bool:
    places = (place for place in walk(flow, ()) if place.mark is Mark.TEMPLATE)
    return any(names_table(place.value, "collected") for place in places)
