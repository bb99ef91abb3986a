"""The checks of a flow's tools: keys that don't go together, and questions nobody could answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from service.flows.flow import Flow, Flows
from service.flows.keys import walk
from service.flows.kinds import Mark
from service.flows.lines import Path
from service.flows.report import Report, show
from service.flows.tool import Confirm, Tool
from service.mqtt.templates import Template
from service.mqtt.topics import overlap
from service.rulesql.reserved import landing

PIN = re.compile(r"[0-9]{3,12}")


def check_tools(flow: Flow, base: Path, report: Report) -> None:
    """Report what is wrong with each tool alone."""
    seen: set[str] = set()
    for index, tool in enumerate(flow.tools):
        path: Path = (*base, "tools", index)
        if tool.name in seen:
            report.add((*path, "name"), f'a second tool "{tool.name}"', "give it another name")
        seen.add(tool.name)
        _check_tool(tool, path, report)


def _check_tool(tool: Tool, path: Path, report: Report) -> None:
    if tool.topic is None and tool.read is None:
        hint = "topic: where a call is published; read: whose retained message is told"
        report.add(path, "has neither topic nor read: it would do nothing", hint)
    if tool.topic is not None and tool.read is not None:
        report.add((*path, "read"), "can't go with topic in one tool", "make two tools of it")
    if tool.payload is not None and tool.topic is None:
        report.add((*path, "payload"), "is never published", "it goes with topic")
    if tool.parameters.get("type") != "object":
        hint = 'write type = "object"; the arguments are its properties'
        report.add((*path, "parameters", "type"), "the arguments are always an object", hint)
    if tool.topic is None:
        for key in ("answer", "response_topic", "confirm", "bounds", "verify"):
            if getattr(tool, key):
                report.add((*path, key), "does nothing without topic", "it is for a command")
    if tool.answer is None:
        for key in ("match", "response_topic", "answer_timeout"):
            if report.written((*path, key)):
                report.add((*path, key), "does nothing without answer", "where does it answer?")
    if tool.bounds is not None:
        _check_bounds(tool, path, report)
    if tool.verify is not None and (tool.verify.read is None) == (tool.verify.answer is None):
        hint = "read: a retained message tells; answer: the device tells on a topic"
        report.add((*path, "verify"), "needs one of read and answer", hint)


def _check_bounds(tool: Tool, path: Path, report: Report) -> None:
    name = tool.bounds.argument if tool.bounds is not None else ""
    declared = tool.parameters.get("properties", {}).get(name)
    place: Path = (*path, "bounds", "argument")
    if declared is None:
        known = ", ".join(tool.parameters.get("properties", {})) or "it has none"
        report.add(place, f'"{name}" is no argument of {tool.name}', f"its arguments: {known}")
    elif isinstance(declared, dict) and declared.get("type") not in ("number", "integer"):
        report.add(place, f'"{name}" is no number', 'write type = "number" in parameters')
    elif name not in tool.parameters.get("required", ()):
        said = f'"{name}" may be missing from a call'
        report.add(place, said, f'write required = ["{name}", …] in parameters')


# Topics that are listened to


def listened(flow: Flow) -> Iterator[tuple[Path, Template]]:
    """Every topic on which a device or a person answers."""
    for place in walk(flow, ("flows", flow.name)):
        if place.mark is Mark.ANSWER:
            yield place.path, place.value


def check_answers(flows: Flows, report: Report) -> None:
    """Report topics on which nobody else can answer, or on which we would hear ourselves."""
    published = [
        (path, topic, landing(topic.topic_filter))
        for flow in flows.flows.values()
        for path, topic in _published(flow)
    ]
    sources = [(flow, pattern) for flow in flows.flows.values() for pattern in flow.request]
    for flow in flows.flows.values():
        for path, topic in listened(flow):
            where = topic.topic_filter
            if where.startswith("$"):
                said = f'"{topic}" is a topic of the broker: no device or person can publish to it'
                report.add(path, said, "name a topic that does not begin with $")
            for other, said_topic, reached in published:
                if overlap(reached, where):
                    _heard_ourselves(path, topic, other, said_topic, report)
            for source, pattern in sources:
                if overlap(pattern.filter, where):
                    said = f'"{topic}" is a request topic of flow "{source.name}" too'
                    hint = "what is answered there is asked as a question as well"
                    report.warn(path, said, hint)


def _heard_ourselves(
    path: Path, topic: Template, other: Path, said: Template, report: Report
) -> None:
    mine = path[:-1] == other[:-1]
    if mine and other[-1] == "ask":
        report.add(
            path,
            f'"{topic}" is where the question is asked: the question would answer itself',
            "let the two differ in a level that is plain text",
        )
        return
    report.add(
        path,
        f'"{topic}" can be reached by {show(other)}, "{said}": our own message would be the answer',
        "let the two differ in a level that is plain text",
    )


def _published(flow: Flow) -> Iterator[tuple[Path, Template]]:
    for place in walk(flow, ("flows", flow.name)):
        if place.mark is Mark.TOPIC:
            yield place.path, place.value


def check_commands(flows: Flows, report: Report) -> None:
    """Warn of replies that could reach a tool's topic: what a model says is no command."""
    tools = [
        (tool.name, tool.topic, tool.topic.topic_filter)
        for flow in flows.flows.values()
        for tool in flow.tools
        if tool.topic is not None
    ]
    for flow in flows.flows.values():
        for path, topic in _published(flow):
            if path[2] == "tools" and path[-1] == "topic":
                continue
            for name, command, reached in tools:
                if overlap(landing(topic.topic_filter), reached):
                    report.warn(
                        path,
                        f'"{topic}" can reach "{command}" of the tool {name}: what would go to '
                        "such a topic is not published, since it is no command",
                        "let the two differ in a level that is plain text",
                    )


def _asking(flow: Flow) -> Iterator[tuple[Path, Confirm]]:
    for index, tool in enumerate(flow.tools):
        if tool.confirm is not None:
            yield ("flows", flow.name, "tools", index, "confirm"), tool.confirm
    for server, confirm in flow.asks.items():
        yield ("flows", flow.name, "asks", server), confirm


def check_variables(flows: Flows, environ: Mapping[str, str], report: Report) -> None:
    """Report PINs that are not there: such a tool could never be confirmed."""
    for flow in flows.flows.values():
        for base, confirm in _asking(flow):
            if confirm.pin_env is None:
                continue
            path: Path = (*base, "pin_env")
            name = confirm.pin_env
            value = environ.get(name)
            if not value:
                hint = f"set {name} in the environment or in .env, to 3 to 12 digits"
                report.add(path, f"{name} is not set", hint)
            elif not PIN.fullmatch(value):
                hint = "people say or type it: 3 to 12 digits"
                report.add(path, f"{name} is no PIN of digits", hint)
