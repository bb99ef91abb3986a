"""Cross-checks: what a key alone can't show, between flows and within one.

The rule behind the topic checks: the service publishes with a key that may write anywhere, so
where it publishes is decided here, in the file, and never reaches a request topic.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from service.flows.check_flow import check_flow
from service.flows.flow import Flow, Flows
from service.flows.lines import Path
from service.flows.report import Report
from service.mqtt.reserved import INTERNAL_FILTER
from service.mqtt.templates import Template
from service.mqtt.topics import overlap


def check(flows: Flows, report: Report) -> None:
    """Report what is wrong between keys and between flows."""
    for flow in flows.flows.values():
        check_flow(flow, report)
        _check_internal(flow, report)
        for path, text, topic_filter in _published(flow):
            for other in flows.flows.values():
                _check_loop(flow, path, text, topic_filter, other, report)
    for first, second in combinations(flows.flows.values(), 2):
        _check_overlap(first, second, report)


def topics(flow: Flow) -> Iterator[tuple[Path, Template]]:
    """Every topic template of a flow that is published to, with its place."""
    base: Path = ("flows", flow.name)
    for key in ("reply", "error", "stream", "status"):
        template: Template | None = getattr(flow, key)
        if template is not None and not (key == "error" and template is flow.reply):
            yield (*base, key), template
    for index, tool in enumerate(flow.tools):
        if tool.topic is not None:
            yield (*base, "tools", index, "topic"), tool.topic


def _published(flow: Flow) -> Iterator[tuple[Path, str, str]]:
    for path, template in topics(flow):
        yield path, template.text, _landing(template.topic_filter)
    for allowed in flow.allow_response_topics:
        yield ("flows", flow.name, "allow_response_topics"), allowed, _landing(allowed)


def _landing(topic_filter: str) -> str:
    """Where a message ends up: EMQX publishes `$delayed/SECONDS/topic` to `topic`, later."""
    first, *rest = topic_filter.split("/")
    if first != "$delayed":
        return topic_filter
    return "#" if "#" in rest[:1] or len(rest) < 2 else _landing("/".join(rest[1:]))


def _check_loop(
    flow: Flow, path: Path, text: str, topic_filter: str, other: Flow, report: Report
) -> None:
    for pattern in other.request:
        if overlap(topic_filter, pattern.filter):
            whose = "its own" if other is flow else f'flow "{other.name}"\'s'
            report.add(
                path,
                f'"{text}" can reach {whose} request topic "{pattern}":'
                " what is said there would be asked again",
                "let the two differ in a level that is plain text",
            )


def _check_internal(flow: Flow, report: Report) -> None:
    """The reply rule's topic carries where to publish: nobody else may write or read it."""
    hint = f'"{INTERNAL_FILTER}" belongs to the reply rule in EMQX; choose narrower topics'
    for path, text, topic_filter in _published(flow):
        if overlap(topic_filter, INTERNAL_FILTER):
            report.add(path, f'"{text}" can reach the internal topic of the replies', hint)
    for pattern in flow.request:
        if overlap(pattern.filter, INTERNAL_FILTER):
            path = ("flows", flow.name, "request")
            report.add(path, f'"{pattern}" listens on the internal topic of the replies', hint)


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
