"""The checks of a flow's tools: keys that don't go together, and questions nobody could answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from service.flows.flow import Flow, Flows
from service.flows.keys import walk
from service.flows.kinds import Mark
from service.flows.lines import Path
from service.flows.report import Report
from service.flows.tool import GUARDS, Confirm, Tool
from service.mqtt.templates import Template

PIN = re.compile(r"[0-9]{3,12}")
_OFTEN = 'it is for a command; limit = "20/min" of the flow bounds how often it is asked'
_INSTEAD = {
    "rate": _OFTEN,
    "flow_rate": _OFTEN,
    "hours": "it is for a command; leave it out, since to look up changes nothing",
}


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
        for key in ("answer", "response_topic", "verify", *GUARDS):
            if getattr(tool, key):
                hint = _INSTEAD.get(key, "it is for a command")
                report.add((*path, key), "does nothing without topic", hint)
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
