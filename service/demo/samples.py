"""A message to try a flow with: from its scene where that fits, else made for it. Pure."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from service.demo.offline_model import vocabulary
from service.demo.scenes import Line, picture
from service.demo.words import ENGLISH, Words
from service.domain import Message
from service.errors import MessageError
from service.flows import Flow
from service.mqtt.templates import MISSING, Scope, Template
from service.rulesql import RuleException, SqlError, parse_where
from service.rulesql import syntax as sql
from service.rulesql.rule import holds
from service.units import Limit

CLIENT = "emqx-gpt-demo"
_TRIES = 20_000  # combinations of values that are tried to meet a `where`
# Not those of the scenes: a cooldown or a memory of the play must not be met again.
_LEVELS = {"user": "you", "name": "you", "client": "you", "room": "kitchen", "device": "oven",
           "sensor": "oven", "camera": "garden"}  # fmt: skip
_MADE = Line(b"")
_ENDLESS = Limit(1_000_000, 1.0)
_LEFT_OUT = object()  # a field that is not there
_NUMBERS = re.compile(
    r"temp|hum|level|value|volt|power|press|count|speed|age|co2|lux|weight|batt|num|amount|min|max|"
    r"percent|rate|current|energy|flow|height|width|distance|ppm|温|湿|值"
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One publish, and the topics on which something must come back: none if no answer is due."""

    topic: str
    payload: bytes
    replies: tuple[str, ...] = ()
    response_topic: str | None = None  # MQTT 5: where the reply goes in place of the flow's topic
    correlation: bytes | None = None
    line: Line = _MADE  # what it was made of


def samples(flow: Flow, say: Words = ENGLISH) -> tuple[Sample, ...]:
    """What the play publishes for this flow; empty if no message is found that it would answer."""
    scene = say.scenes.get(flow.name)
    if flow.every is not None:
        return ()  # it asks by the clock
    if scene:
        made = tuple(_sample(flow, line, scene.levels) for line in scene.lines)
        if flow.collect is not None:  # one reply to all of them
            made = (*(replace(each, replies=()) for each in made[:-1]), made[-1])
        if any(each.replies for each in made):
            return _until_silent(flow, made)
    sample = one(flow, {"user": "ada"}, say)
    return (sample,) if sample else ()


def ticked(flow: Flow) -> tuple[str, ...]:
    """The topics on which something must come when the time of a flow with `every` has come."""
    return _sample(flow, Line(b"{}"), {}).replies


def _until_silent(flow: Flow, made: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """The samples up to the one after which the flow would not answer again so soon."""
    left = min(each.count for each in (flow.limit, flow.client_limit, _ENDLESS) if each)
    if flow.cooldown:
        left = 1
    answered = [at for at, each in enumerate(made) if each.replies][:left]
    return made[: answered[-1] + 1]


def one(flow: Flow, levels: Mapping[str, str] | None = None, say: Words = ENGLISH) -> Sample | None:
    """A single message that the flow answers, for people to try; None if none is found."""
    if flow.every is not None:
        return None  # it asks by the clock
    levels = {**_LEVELS, **(levels or {})}
    scene = say.scenes.get(flow.name)
    short = [scene.short or scene.lines[-1]] if scene else []
    for line in itertools.chain(short, _made(flow, levels)):
        sample = _sample(flow, line, levels)
        if sample.replies:
            return sample
    return None


def why_not(flow: Flow, topic: str, payload: bytes) -> str | None:
    """Why this flow will not answer the message, in words; None if it will."""
    if not _passes(flow, topic, payload):
        return "its condition (where) is not met"
    if not payload:
        return "an empty message is none"
    if flow.input != "image" and (flow.require or flow.strip):
        text = payload.decode(errors="replace")
        heard = flow.heard(text)
        if heard is None:
            return "what it waits for (require) was not said"
        if not heard.strip():
            return "nothing is left of it (strip)"
    return None


def _passes(flow: Flow, topic: str, payload: bytes) -> bool:
    """Whether the flow's rule hands this message on, as EMQX would see it."""
    if flow.where is None:
        return True
    columns: dict[str, object] = {
        "event": "message.publish", "id": "0", "clientid": CLIENT, "topic": topic,
        "payload": payload, "qos": 1, "flags": {"retain": False, "dup": False},
        "peerhost": "127.0.0.1", "pub_props": {"User-Property": {}}, "client_attrs": {},
        "publish_received_at": 0, "timestamp": 0, "node": "emqx@127.0.0.1",
    }  # fmt: skip
    try:
        return holds(parse_where(flow.where), columns)
    except SqlError:
        return True  # more than this program understands: the broker decides
    except RuleException:
        return False


def _sample(flow: Flow, line: Line, levels: Mapping[str, str]) -> Sample:
    topic, payload = request_topic(flow, levels), line.payload
    message = Message("0", topic, payload, 0, clientid=CLIENT)
    scope = Scope(message, flow.match(topic) or {})
    if why_not(flow, topic, payload) or (flow.input == "json" and scope.payload is MISSING):
        return Sample(topic, payload)
    wanted: list[str] = []
    answer_to = response_topic(flow, levels)
    reply = None if answer_to else flow.reply
    for template, count in ((flow.status, 2), (flow.stream, 1), (reply, 1)):
        try:
            wanted += [template.render_topic(scope)] * count if template else []
        except MessageError:
            return Sample(topic, payload)  # its topic can't be made: an error is told
    if answer_to is None:
        return Sample(topic, payload, tuple(wanted), line=line)
    counter = (1).to_bytes(4)  # as small devices count: most such numbers are no text
    return Sample(topic, payload, (*wanted, answer_to), answer_to, counter, line)


def response_topic(flow: Flow, levels: Mapping[str, str]) -> str | None:
    """A topic that a device may name for its answer; None where the flow allows none."""
    who = levels.get("client") or levels.get("user") or "you"
    for allowed in flow.allow_response_topics:
        made = allowed.replace("+", who).replace("#", f"{who}/1")
        if flow.allows_response_topic(made):
            return made
    return None


def request_topic(flow: Flow, levels: Mapping[str, str]) -> str:
    """A topic that the flow listens to, its open levels filled in."""
    pattern = flow.request[0]
    names = iter(pattern.names)
    parts = []
    for text, level in zip(pattern.text.split("/"), pattern.filter.split("/"), strict=True):
        name = next(names) if text.startswith("${") else ""
        parts.append(levels.get(name, "demo") if level in ("+", "#") else level)
    return "/".join(parts)


def _made(flow: Flow, levels: Mapping[str, str]) -> Iterator[Line]:
    """Lines for a flow that nobody wrote one for, the most likely first."""
    if flow.input == "image":
        yield Line(picture())
        return
    topic = request_topic(flow, levels)
    wanted = parse(flow.where)
    fields = sorted(_fields(flow) | {path[1:] for path in _paths(wanted) if len(path) > 1})
    text = question(flow)
    if fields or flow.input == "json":
        yield from _documents(flow, topic, fields or [("text",)], wanted, text)
    called = [f"{word} {text}" for word in _spoken(flow)]
    for said in (text, *called, *map(str, _constants(wanted))):
        yield Line(said.encode())


def parse(where: str | None) -> sql.Expr | None:
    """A `where` as an expression; None for none, and for what is not understood here."""
    try:
        return parse_where(where) if where else None
    except SqlError:
        return None


def question(flow: Flow) -> str:
    """What a person could say to this flow."""
    said = " ".join(str(each) for each in (flow.system, flow.prompt) if each)
    language = vocabulary.language(re.sub(r"\$\{[^}]*\}", "", said)) if said else "en"
    for tool in flow.tools:
        spoken = " ".join(vocabulary.split(tool.name))
        return f"{spoken} {_told(tool.parameters)}".strip()
    if flow.schema:
        return _told(flow.schema) or "temperature 21.5 °C, humidity 40 %"
    return {"zh": "你好，MQTT 是什么？", "de": "Hallo! Was ist MQTT?"}.get(
        language, "Hello! What is MQTT?"
    )


def _told(schema: Mapping[str, Any]) -> str:
    """A schema's properties as somebody would say them: `kitchen on brightness 50`."""
    parts = []
    for name, each in (schema.get("properties") or {}).items():
        if not isinstance(each, Mapping):
            continue
        spoken = " ".join(vocabulary.split(name))
        if options := each.get("enum"):
            parts.append(str(options[0]).replace("_", " "))
        elif each.get("type") == "boolean":
            parts.append("on" if spoken in ("on", "power", "enabled") else spoken)
        elif each.get("type") in ("number", "integer"):
            low, high = each.get("minimum", 1), each.get("maximum", 100)
            parts.append(f"{spoken} {int((low + high) / 2)}")
    return " ".join(parts)


def _fields(flow: Flow) -> set[tuple[str | int, ...]]:
    """The places in a JSON payload that the flow's templates read."""
    templates = [flow.prompt, flow.reply, flow.conversation, flow.system, flow.dedupe, flow.error]
    templates += [flow.on_error, flow.stream, flow.status]
    templates += [each for tool in flow.tools for each in (tool.topic, tool.payload, tool.read)]
    found: set[tuple[str | int, ...]] = set()
    for template in templates:
        for name in template.names if isinstance(template, Template) else ():
            root, *path = name.split(".")
            if root == "payload" and path:
                found.add(tuple(int(key) + 1 if key.isdecimal() else key for key in path))
    return found


def _documents(
    flow: Flow,
    topic: str,
    fields: list[tuple[str | int, ...]],
    wanted: sql.Expr | None,
    text: str,
) -> Iterator[Line]:
    """JSON payloads with these fields, those first that meet the `where`."""
    constants = _constants(wanted)
    choices = [[*_likely(path, text), *constants, True, False, None, _LEFT_OUT] for path in fields]
    tried = itertools.islice(itertools.product(*choices), _TRIES)
    found = 0
    for values in tried:
        document: Any = {}
        for path, value in zip(fields, values, strict=True):
            document = document if value is _LEFT_OUT else _put(document, path, value)
        payload = json.dumps(document, ensure_ascii=False).encode()
        if _passes(flow, topic, payload):
            yield Line(payload)
            found += 1
            if found == 3:
                return


def _likely(path: tuple[str | int, ...], text: str) -> list[Any]:
    name = str(path[-1]).lower()
    if _NUMBERS.search(name):
        return [21.5, 50]
    if name in ("user", "name", "device", "id", "room", "sensor"):
        return [_LEVELS.get(name, "demo"), 1]
    return [text, 21.5]


def _put(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    key, *rest = path
    if isinstance(key, int):  # SQL counts from 1
        items = document if isinstance(document, list) else []
        items = [*items, *[None] * (key - len(items))]
        items[key - 1] = _put(items[key - 1], tuple(rest), value) if rest else value
        return items
    made = dict(document) if isinstance(document, dict) else {}
    made[key] = _put(made.get(key), tuple(rest), value) if rest else value
    return made


def _paths(expr: object) -> set[tuple[str | int, ...]]:
    """Every way into the payload that the condition reads."""
    found: set[tuple[str | int, ...]] = set()
    for each in _walk(expr):
        if isinstance(each, sql.Path) and each.keys[0] == "payload":
            found.add(each.keys)
    return found


def _constants(expr: object) -> list[Any]:
    """The condition's literals, and numbers on either side of them."""
    found: list[Any] = []
    for each in _walk(expr):
        if isinstance(each, sql.Const) and each.value is not None:
            value = each.value.decode() if isinstance(each.value, bytes) else each.value
            found.append(value)
            if isinstance(value, int | float) and not isinstance(value, bool):
                found += [value + 1, value - 1, value + 5.5, -value, -value - 1, 1 - value]
    return list(dict.fromkeys(found))


def _walk(expr: object) -> Iterator[object]:
    if isinstance(expr, tuple | list):
        for each in expr:
            yield from _walk(each)
    elif isinstance(expr, sql.Const | sql.Path | sql.Call | sql.Unary | sql.Binary | sql.Case):
        yield expr
        for name in expr.__slots__:
            yield from _walk(getattr(expr, name))


def _spoken(flow: Flow) -> list[str]:
    """Words that `require` or `strip` may wait for: their patterns without the signs."""
    found = []
    for regex in (flow.require, flow.strip):
        if regex is not None:
            first = re.sub(r"\(\?[a-zA-Z:=!<]*", "(", regex.pattern)
            for way in re.split(r"\|", first):
                plain = re.sub(r"\\[bBAZsdwSDW]|\.[*+?]?\??|[\\^$()*+?\[\]{}]", "", way)
                found.append(plain.strip())
    return [each for each in found if each]
