"""The checks within one flow: names, conditions, and keys that don't go together."""

from __future__ import annotations

import re
from collections.abc import Mapping

from service.flows.check_collect import check_collect
from service.flows.check_every import check_every
from service.flows.check_recent import check_recent
from service.flows.check_schema import check_json, check_schema
from service.flows.check_tool import check_tools
from service.flows.flow import Flow, Provider
from service.flows.keys import Place, keys_of, walk
from service.flows.kinds import Mark
from service.flows.lines import Path
from service.flows.model_names import DEFAULT_PROVIDER, INSTEAD, ModelRef, end_of_life
from service.flows.placeholders import Names, misnamed_levels
from service.flows.report import Report, show, suggest
from service.flows.tables import FlowKeys
from service.flows.where import check_where, levels_in_sql

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


LEAST_ENVELOPE = 160  # bytes; of these about 100 go around the text
LEAST_SUMMED = 6  # messages; below, each summary is of one or two exchanges
LEAST_TOKENS = 1000  # a summary of 150 words may take a third of them


def check_flow(flow: Flow, report: Report) -> None:
    """Report what is wrong within `flow`."""
    base: Path = ("flows", flow.name)
    own = Names.of(flow)
    tools: list[Names | None] = []  # these know the arguments, if `parameters` can be read
    for index, tool in enumerate(flow.tools):
        fine = check_schema((*base, "tools", index, "parameters"), tool.parameters, report)
        tools.append(Names.of(flow, tool.parameters, calls=True) if fine else None)
    for place in walk(flow, base):
        match place.path:
            case (_, _, "tools", int(index), *_):
                _check_value(flow, place, tools[index], report)
            case _:
                _check_value(flow, place, own, report)
    _check_topics(flow, base, report)
    _check_input(flow, base, report)
    _check_history(flow, base, report)
    _check_conversation(flow, base, report)
    _check_change(flow, base, report)
    check_recent(flow, report)
    check_every(flow, report)
    check_collect(flow, report)
    _check_output(flow, base, report)
    check_tools(flow, base, report)
    if not flow.dedupe.names:
        hint = 'it needs a value that differs, such as "${clientid}/${payload.id}"'
        report.add((*base, "dedupe"), "is the same for every message: only one would count", hint)
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


def check_models(
    flow: Flow, providers: Mapping[str, Provider], report: Report, path: Path = ()
) -> None:
    """Report providers that are unknown, and warn of models that OpenAI shuts down."""
    for place in walk(flow, ("flows", flow.name)):
        if place.mark is not Mark.MODEL or not isinstance(place.value, ModelRef):
            continue
        ref = place.value
        provider = providers.get(ref.provider)
        if provider is None:
            hint = suggest(ref.provider, providers.keys() - {DEFAULT_PROVIDER}) or (
                f"add [providers.{ref.provider}], or write "
                f'"{DEFAULT_PROVIDER}/{ref}" if the default server calls it so'
            )
            report.add(path or place.path, f'unknown provider "{ref.provider}"', hint)
        elif day := end_of_life(ref, provider.base_url):
            said = f"OpenAI's last day for {ref.model} is {day}"
            report.warn(path or place.path, said, INSTEAD)


def _check_value(flow: Flow, place: Place, names: Names | None, report: Report) -> None:
    """What a value's type tells about it."""
    match place.mark:
        case Mark.TEMPLATE if names:
            names.check(place.path, place.value, report)
            key = place.key.name in ("conversation", "dedupe", "by")
            names.check_words(place.path, place.value, report, key=key)
            if key:
                names.check_no_table(place.path, place.value, report)
            _check_picture(flow, place, report)
        case Mark.TOPIC | Mark.LOOKUP | Mark.ANSWER if names:
            names.check_topic(place.path, place.value, report)
        case Mark.SAME if names:
            names.check(place.path, place.value.left, report)
            names.check(place.path, place.value.right, report)
        case Mark.REQUEST:
            _check_request(flow, place, report)
        case Mark.REGEX:
            _check_regex(flow, place, report)
        case Mark.CONDITION:
            check_where(place.path, place.value, report, levels_in_sql(flow.request))
        case Mark.JSON:
            check_json(place.path, place.value, report)
        case Mark.SCHEMA:
            check_schema(place.path, place.value, report)


def _check_request(flow: Flow, place: Place, report: Report) -> None:
    for written, name in misnamed_levels(place.value.text):
        said = f'a level "{written}" matches nothing but that very word'
        hint = f"did you mean ${{{name}}}?"
        if written[0] in ":<":
            report.warn(place.path, said, hint)
        elif re.match(r"\$\w", written):
            # Homie's topics have levels such as $state; it is a name where it is read as one.
            if _reads(flow, name):
                report.add(place.path, said, hint)
        else:
            report.add(place.path, said, hint)
    if "*" in place.value.text.split("/"):
        said = 'a level "*" matches nothing but an asterisk'
        report.warn(place.path, said, "+ is any one level, # at the end all that follow")


def _reads(flow: Flow, name: str) -> bool:
    texts = [
        place.value.text
        for place in walk(flow, ())
        if place.mark in (Mark.TEMPLATE, Mark.TOPIC, Mark.LOOKUP, Mark.ANSWER)
    ]
    return any(f"${{{name}}}" in text or f"${name}" in text for text in texts)


def _check_picture(flow: Flow, place: Place, report: Report) -> None:
    reads = any(name.startswith("payload") for name in place.value.names)
    if flow.input == "image" and place.table is flow and reads:
        report.add(
            place.path,
            "reads the payload as text, but it is a picture",
            'leave ${payload} out: with input = "image" the model sees the picture itself',
        )


def _check_regex(flow: Flow, place: Place, report: Report) -> None:
    if flow.input == "image":
        hint = f"leave {place.key.name} out"
        report.add(place.path, "looks for text, but the payload is a picture", hint)
    elif "\b" in place.value.pattern:
        hint = r"write it in single quotes, as in '\bhey\b'"
        report.add(place.path, r'has a backspace: that is what "\b" is in double quotes', hint)
    elif place.value.search(""):
        report.warn(place.path, "finds something even in an empty text", "ask for a word")


def _check_topics(flow: Flow, base: Path, report: Report) -> None:
    said: dict[str, str] = {}
    for place in walk(flow, base):
        if place.mark is not Mark.TOPIC or place.table is not flow:
            continue
        text, name = place.value.text, place.key.name
        if text in said and not place.key.default_from:
            report.warn(
                place.path,
                f"is the topic of {said[text]} too: who listens can't tell them apart",
                "give it a topic of its own",
            )
        said[text] = name
    acts = any(tool.topic for tool in flow.tools) or flow.tools_from
    missing = flow.reply is None and not report.written((*base, "reply"))
    if missing and not acts and not flow.allow_response_topics:
        where = "reports/morning" if flow.every else f"{flow.request[0].text}/reply"
        hint = f'reply = "{where}" would publish it'
        report.warn(base, "has no reply topic: what the model says stays in the inbox", hint)


def _check_input(flow: Flow, base: Path, report: Report) -> None:
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


def _check_history(flow: Flow, base: Path, report: Report) -> None:
    """A window so small that to sum up what falls out of it is no bargain."""
    history = flow.history
    if history is None or history.summarize is None:
        return
    path = (*base, "history", "summarize")
    if history.messages < LEAST_SUMMED:
        said = f"with messages = {history.messages} costs a second call for every answer or two"
        report.warn(path, said, "remember more: messages = 20")
    if history.tokens is not None and history.tokens < LEAST_TOKENS:
        said = f"with tokens = {history.tokens} leaves no room for a summary beside what was said"
        report.warn(path, said, f"make tokens at least {LEAST_TOKENS}")


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


def _check_change(flow: Flow, base: Path, report: Report) -> None:
    for name in ("deadband", "within"):
        if getattr(flow, name) is not None and flow.on_change is None:
            hint = 'say which value: on_change = "${payload.temperature}"'
            report.add((*base, name), "does nothing without on_change", hint)
    if flow.on_change is not None and not flow.on_change.names:
        hint = 'it needs a value that differs, such as "${payload.state}"'
        report.add((*base, "on_change"), "is the same for every message: one would be asked", hint)


def _check_output(flow: Flow, base: Path, report: Report) -> None:
    _check_pieces(flow, base, report)
    _check_strays(flow, base, report)
    if flow.schema is None:
        return
    if flow.speak or flow.max_length is not None:
        report.warn(
            (*base, "speak" if flow.speak else "max_length"),
            "does nothing with schema: what was checked is published as it is",
            "leave one of them out",
        )
    if flow.schema.get("type") != "object" and check_schema((*base, "schema"), flow.schema, report):
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


def _check_strays(flow: Flow, base: Path, report: Report) -> None:
    """Keys of the flow below [flows.NAME.schema] or the like, which takes all that follows."""
    below: dict[str, Mapping[str, object]] = {"params": flow.params, "schema": flow.schema or {}}
    theirs = {
        "params": {"temperature", "max_tokens", "verbosity", "timeout", "prompt", *_RESERVED},
        "schema": {"format"},
    }
    for table, values in below.items():
        for key in sorted(values.keys() & keys_of(FlowKeys).keys() - theirs[table]):
            hint = f"a key of the flow stands above [{show((*base, table))}]"
            report.warn((*base, table, key), f"is a key of the flow, but stands in {table}", hint)


def _check_pieces(flow: Flow, base: Path, report: Report) -> None:
    if flow.chunk is None:
        return
    if flow.retain:
        report.add(
            (*base, "chunk"),
            "can't go with retain: of several pieces only the last one would be kept",
            "leave one of them out",
        )
    if flow.chunk < LEAST_ENVELOPE and (flow.format == "json" or flow.stream is not None):
        report.add(
            (*base, "chunk"),
            f"is too small for JSON, which needs {LEAST_ENVELOPE} bytes",
            'make it longer, or leave out stream and format = "json"',
        )
