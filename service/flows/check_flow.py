"""The checks within one flow: names, conditions, and keys that don't go together."""

from __future__ import annotations

from collections.abc import Iterator

from service.flows.check_schema import check_json, check_schema
from service.flows.flow import Flow, Tool
from service.flows.lines import Path
from service.flows.names import Names
from service.flows.report import Report
from service.flows.where import check_where
from service.mqtt.templates import Template

_RESERVED = {
    "model": "the key model says it",
    "messages": "they are made of system, history and prompt",
    "stream": "the key stream turns it on",
    "stream_options": "the key stream turns it on",
    "tools": "they are written as [[flows.NAME.tools]]",
    "functions": "write tools: [[flows.NAME.tools]]",
    "response_format": "the key schema says it",
    "n": "one answer is all that is published",
}


def check_flow(flow: Flow, report: Report) -> None:
    """Report what is wrong within `flow`."""
    base: Path = ("flows", flow.name)
    _check_topics(flow, base, report)
    _check_templates(flow, base, report)
    _check_input(flow, base, report)
    _check_conversation(flow, base, report)
    _check_output(flow, base, report)
    _check_tools(flow, base, report)
    if flow.where is not None:
        check_where((*base, "where"), flow.where, report)
    if flow.model in flow.fallback:
        report.warn((*base, "fallback"), f"{flow.model} is the model itself", "name another one")
    if flow.deadline < flow.timeout:
        report.warn(
            (*base, "deadline"),
            "is shorter than timeout: no call would get all its time",
            "make deadline several times timeout",
        )
    for key in sorted(flow.params.keys() & _RESERVED.keys()):
        report.add((*base, "params", key), "can't be set here", _RESERVED[key])
    check_json((*base, "params"), flow.params, report)


def _check_topics(flow: Flow, base: Path, report: Report) -> None:
    names = Names.of(flow)
    said: dict[str, str] = {}
    for key in ("reply", "error", "stream", "status"):
        template: Template | None = getattr(flow, key)
        if template is None or (key == "error" and template is flow.reply):
            continue
        names.check_topic((*base, key), template, report)
        if key != "error" and template.text in said:
            report.warn(
                (*base, key),
                f"is the topic of {said[template.text]} too: who listens can't tell them apart",
                "give it a topic of its own",
            )
        said[template.text] = key
    acts = any(tool.topic for tool in flow.tools)
    if flow.reply is None and not acts and not flow.allow_response_topics:
        hint = f'reply = "{flow.request[0].text}/reply" would publish it'
        report.warn(base, "has no reply topic: what the model says stays in the inbox", hint)


def _check_templates(flow: Flow, base: Path, report: Report) -> None:
    names = Names.of(flow)
    for path, template in _texts(flow, base):
        names.check(path, template, report)
        if flow.input == "image" and any(name.startswith("payload") for name in template.names):
            report.add(
                path,
                "reads the payload as text, but it is a picture",
                'leave ${payload} out: with input = "image" the model sees the picture itself',
            )
    if not flow.dedupe.names:
        hint = 'it needs a value that differs, such as "${clientid}/${payload.id}"'
        report.add((*base, "dedupe"), "is the same for every message: only one would count", hint)


def _texts(flow: Flow, base: Path) -> Iterator[tuple[Path, Template]]:
    for key in ("conversation", "prompt", "dedupe", "system", "on_error"):
        template: Template | None = getattr(flow, key)
        if template is not None:
            yield (*base, key), template


def _check_input(flow: Flow, base: Path, report: Report) -> None:
    for key in ("strip", "require"):
        regex = getattr(flow, key)
        if regex is None:
            continue
        if flow.input == "image":
            report.add(
                (*base, key), "looks for text, but the payload is a picture", f"leave {key} out"
            )
        elif regex.search(""):
            report.warn((*base, key), "finds something even in an empty text", "ask for a word")
    if flow.input == "image" and flow.prompt is None:
        report.warn(
            (*base, "input"),
            "without a prompt the model is only asked to describe the picture",
            'say what to look for: prompt = "Is the parking lot free?"',
        )
    if flow.input == "image" and flow.history is not None:
        report.warn(
            (*base, "history"),
            "remembers what was said, but not the pictures",
            "leave it out, or let the replies carry what matters",
        )


def _check_conversation(flow: Flow, base: Path, report: Report) -> None:
    """A wildcard without a name mixes senders in one conversation."""
    if flow.conversation is not None or not (flow.ordered or flow.limit):
        return
    for pattern in flow.request:
        unnamed = pattern.text.split("/")
        if "+" in unnamed or "#" in unnamed:
            report.warn(
                (*base, "request"),
                f'"{pattern}" has a level without a name: all its senders share one conversation',
                'name the level, as in ${user}, or say conversation = "${clientid}"',
            )


def _check_output(flow: Flow, base: Path, report: Report) -> None:
    if flow.schema is None:
        return
    usable = check_schema((*base, "schema"), flow.schema, report)
    if usable and flow.schema.get("type") != "object":
        report.warn(
            (*base, "schema"),
            'is not of type = "object" at its top, which OpenAI asks for',
            "wrap it: an object with one property",
        )
    if flow.stream is not None:
        report.add(
            (*base, "stream"),
            "can't go with schema: such a reply is published only when all of it was checked",
            "leave one of them out",
        )
    if flow.format == "json":
        report.warn(
            (*base, "format"),
            'puts the reply of schema, which is JSON already, as text into "text"',
            "leave format out to publish the fields themselves",
        )


def _check_tools(flow: Flow, base: Path, report: Report) -> None:
    seen: set[str] = set()
    for index, tool in enumerate(flow.tools):
        path: Path = (*base, "tools", index)
        if tool.name in seen:
            report.add((*path, "name"), f'a second tool "{tool.name}"', "give it another name")
        seen.add(tool.name)
        _check_tool(flow, tool, path, report)


def _check_tool(flow: Flow, tool: Tool, path: Path, report: Report) -> None:
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
    if not check_schema((*path, "parameters"), tool.parameters, report):
        return
    names = Names.of(flow, tool.parameters)
    for key in ("topic", "read"):
        template: Template | None = getattr(tool, key)
        if template is not None:
            names.check_topic((*path, key), template, report)
    if tool.payload is not None:
        names.check((*path, "payload"), tool.payload, report)
