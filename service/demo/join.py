"""How to join in: for each flow what to publish and where to listen, as commands to copy."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from itertools import takewhile

from rich.cells import cell_len

from service.demo.samples import CLIENT, Sample, one
from service.demo.screen import WIDTH, clean
from service.demo.words import ENGLISH, Words
from service.domain import Message
from service.errors import MessageError
from service.flows import Flow, Flows
from service.mqtt.templates import Scope

_WITH_VALUE = ("-t", "-m", "-f", "-h", "-p", "-e", "-V", "-F")


def join_lines(flows: Flows, host: str, port: int, say: Words = ENGLISH) -> Iterator[str]:
    """Lines within 80 columns: a flow's name, then the two commands of mosquitto's clients."""
    where = [] if host in ("127.0.0.1", "localhost") else ["-h", host]
    where += [] if port == 1883 else ["-p", str(port)]
    width = min(12, max(len(name) for name in flows.flows) + 2)
    for flow in flows.flows.values():
        for at, command in enumerate(_commands(flow, where, say)):
            name = flow.name if at == 0 else ""
            gap = " " * width if len(name) >= width else name.ljust(width)
            if len(name) >= width:
                yield f"  {name}"
            yield from _folded(f"  {gap}", command)


def _commands(flow: Flow, where: list[str], say: Words) -> Iterator[list[str]]:
    sample = one(flow, say=say)
    if sample is None:
        told = say(", listen on {topic}", topic=flow.reply) if flow.reply else ""
        if flow.every is not None:
            how = say("asks by the clock ({every})", every=flow.every)
        else:
            asked = say(" or ").join(pattern.text for pattern in flow.request)
            how = say("publish to {topics}", topics=asked)
        yield ["#", f"{how}{told}"]
        return
    if flow.input == "image":
        said = ["-f", "picture.jpg"]
    else:
        said = ["-m", shlex.quote(clean(sample.payload.decode(errors="replace")))]
    if sample.response_topic is not None:  # MQTT 5: question and answer in one command
        answer = ["-e", shlex.quote(sample.response_topic)]
        yield ["mosquitto_rr", *where, *_options([sample.topic]), *answer, *said]
        return
    topics = list(dict.fromkeys(sample.replies))
    if commands := _tool_filter(flow):
        topics.append(commands)
    yield ["mosquitto_sub", "-v", *where, *_options(topics)]
    yield ["mosquitto_pub", *where, *_options([sample.topic]), *said]
    for topic in _answers(flow, sample):
        # A person is asked first. MQTT 5 also shows where to answer (%R), and the call's id (%D).
        yes = [*_options([topic]), "-m", "yes"]
        yield ["mosquitto_pub", *where, *yes]
        shown = ["-F", shlex.quote("%t %p [%R %D]")]
        yield ["mosquitto_sub", "-V", "5", *where, *_options(topics), *shown]
        yield ["mosquitto_pub", "-V", "5", *where, *yes]


def _answers(flow: Flow, sample: Sample) -> Iterator[str]:
    """Where the sender of this sample says yes or no to what the flow's tools ask."""
    message = Message("0", sample.topic, sample.payload, 0, clientid=CLIENT)
    scope = Scope(message, flow.match(sample.topic) or {})
    found = dict.fromkeys(tool.confirm.answer for tool in flow.tools if tool.confirm)
    for topic in found:
        with contextlib.suppress(MessageError):  # it is an argument's: known when it is asked
            yield topic.render_topic(scope)


def _options(topics: list[str]) -> list[str]:
    return [word for topic in topics for word in ("-t", shlex.quote(clean(topic)))]


def _tool_filter(flow: Flow) -> str | None:
    """One filter for the topics of all its tools."""
    filters = [tool.topic.topic_filter for tool in flow.tools if tool.topic is not None]
    if len(filters) < 2:
        return filters[0] if filters else None
    columns = zip(*(each.split("/") for each in filters), strict=False)
    same = takewhile(lambda each: len({*each}) == 1 and each[0] != "+", columns)
    shared = [levels[0] for levels in same]
    return "/".join([*shared, "#"]) if shared else filters[0]


def _folded(head: str, words: list[str]) -> Iterator[str]:
    """The command in lines of at most 80 columns, folded as a shell takes it."""
    if words[0] == "#":
        yield f"{head}{words[1]}"
        return
    line, indent = head + words[0], " " * (len(head) + 2)
    options = words[1:]
    while options:
        size = 2 if len(options) > 1 and options[0] in _WITH_VALUE else 1
        part, options = " ".join(options[:size]), options[size:]
        room = WIDTH - (2 if options else 0)
        if cell_len(f"{line} {part}") > room:
            yield f"{line} \\"
            line = indent + part
        else:
            line += f" {part}"
    yield line
