"""Cross-checks: what a key alone can't show, between flows and within one.

The rule behind the topic checks: the service publishes with a key that may write anywhere, so
where it publishes is decided here, in the file, and never reaches a request topic.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from service.flows.check_flow import check_flow
from service.flows.check_tool_topics import check_tool_topics
from service.flows.flow import Flow, Flows
from service.flows.keys import walk
from service.flows.kinds import Mark
from service.flows.lines import Path
from service.flows.report import Report
from service.mqtt.topics import TopicPattern, overlap
from service.rulesql.reserved import RESERVED_TOPICS, landing


def check(flows: Flows, report: Report) -> None:
    """Report what is wrong between keys and between flows."""
    for flow in flows.flows.values():
        check_flow(flow, report)
        _check_reserved(flow, report)
        for path, text, topic_filter in _published(flow):
            for other in flows.flows.values():
                _check_loop(flow, path, text, topic_filter, other, report)
    check_tool_topics(flows, report)
    for first, second in combinations(flows.flows.values(), 2):
        _check_overlap(first, second, report)


def _published(flow: Flow) -> Iterator[tuple[Path, str, str]]:
    """Every topic or filter that is published to, with its place and where it leads."""
    for place in walk(flow, ("flows", flow.name)):
        if place.mark is Mark.TOPIC:
            yield place.path, place.value.text, landing(place.value.topic_filter)
        elif place.mark is Mark.RESPONSE:
            yield place.path, place.value, landing(place.value)


def _sources(flow: Flow, *marks: Mark) -> Iterator[tuple[Path, TopicPattern]]:
    """Every topic whose messages come to us, with its place."""
    for place in walk(flow, ("flows", flow.name)):
        if place.mark in marks:
            yield place.path, place.value


def _check_loop(
    flow: Flow, path: Path, text: str, topic_filter: str, other: Flow, report: Report
) -> None:
    for _, pattern in _sources(other, Mark.REQUEST):
        if overlap(topic_filter, pattern.filter):
            whose = "its own" if other is flow else f'flow "{other.name}"\'s'
            report.add(
                path,
                f'"{text}" can reach {whose} request topic "{pattern}":'
                " what is said there would be asked again",
                "let the two differ in a level that is plain text",
            )


def _check_reserved(flow: Flow, report: Report) -> None:
    """Such a topic carries where to publish: nobody else may write or read it."""
    for reserved in RESERVED_TOPICS:
        hint = f'"{reserved}" belongs to the reply rule in EMQX; choose narrower topics'
        for path, text, topic_filter in _published(flow):
            if overlap(topic_filter, reserved):
                report.add(path, f'"{text}" can reach the internal topic of the replies', hint)
        for path, text, topic_filter in _read(flow):
            if overlap(topic_filter, reserved):
                said = f'"{text}" listens on the internal topic of the replies'
                report.add(path, said, hint)


def _read(flow: Flow) -> Iterator[tuple[Path, str, str]]:
    """Every topic from which messages come to us, with its place and its filter."""
    for path, pattern in _sources(flow, Mark.REQUEST, Mark.WATCHED):
        yield path, pattern.text, pattern.filter
    for place in walk(flow, ("flows", flow.name)):
        if place.mark in (Mark.ANSWER, Mark.LOOKUP):
            yield place.path, place.value.text, place.value.topic_filter


def _check_overlap(first: Flow, second: Flow, report: Report) -> None:
    pairs = ((one, two) for one in first.request for two in second.request)
    found = next(((a, b) for a, b in pairs if overlap(a.filter, b.filter)), None)
    if found is None:
        return
    said = f'"{found[1]}" overlaps with "{found[0]}" of flow "{first.name}"'
    path: Path = ("flows", second.name, "request")
    if first.where is None or second.where is None:
        lacking = " and ".join(flow.name for flow in (first, second) if flow.where is None)
        report.add(
            path,
            f"{said}: both would answer the same message",
            f'narrow the topics, or tell them apart: "where" is missing in {lacking}',
        )
    elif " ".join(first.where.split()) == " ".join(second.where.split()):
        hint = "make the conditions differ, or narrow the topics"
        report.add(path, f"{said}, with the same condition: both would answer", hint)
    else:
        report.warn(
            path,
            f"{said}: a message that meets both conditions is answered twice",
            "fine if the conditions exclude each other",
        )
