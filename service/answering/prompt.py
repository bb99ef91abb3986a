"""A stored message → what the model is asked. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from service.bodies import parsed
from service.domain import Message, Turn
from service.errors import MessageError
from service.flows import Flow
from service.flows.schemas import fault_in
from service.llm.contents import documents_of
from service.mcp.offer import OfferedTool
from service.mqtt.payloads import picture
from service.mqtt.templates import MISSING, NamedValues, Scope

STEPPED = 4  # exchanges; a shorter memory is no prefix that a server would cache
PICTURE = 50  # bytes of a picture for each one of max_input
MEMORY = 256 << 10  # bytes that a conversation remembers, at most
BEFORE = "In short: what did we say before?"
"""What a summary answers."""
IMAGE_TOKENS = 1000  # what a picture costs, roughly


class Ignored(Exception):
    """This message is not meant for the model; `reason` is for the operator."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Asked:
    """What was understood of a message: the user's words and what templates may read."""

    text: str
    scope: Scope
    image: str | None = None  # a data: URL


def understand(
    flow: Flow,
    message: Message,
    captured: Mapping[str, str],
    tables: Mapping[str, NamedValues] | None = None,
) -> Asked:
    """Decode, strip, require; `tables` is what `${recent}` and `${collected}` stand for.

    Raises Ignored, or MessageError that its sender is told.
    """
    extras = dict(tables or {})
    payload = message.payload
    if flow.collect is not None:
        told = extras["collected"].text
        scope = Scope(message, captured, extras, text=told)
        text = told if flow.prompt is None else flow.prompt.render(scope)
        _bound(flow, len(text.encode("utf-8", "replace")))
        return Asked(text, scope)
    if not payload:
        raise Ignored("empty")
    _bound(flow, len(payload) // (PICTURE if flow.input == "image" else 1))
    if flow.input == "image":
        image = _data_url(payload)
        scope = Scope(message, captured, extras)
        text = flow.prompt.render(scope) if flow.prompt else "Describe this picture."
        _bound(flow, len(text.encode("utf-8", "replace")))
        return Asked(text, scope, image)
    said = flow.heard(decode(payload))
    if said is None:
        raise Ignored("require")
    if not said.strip():
        raise Ignored("empty")
    scope = Scope(message, captured, extras, text=said)
    if flow.input == "json" and scope.payload is MISSING:
        raise MessageError("the payload is not JSON, as this topic expects", code="not_json")
    text = flow.prompt.render(scope) if flow.prompt is not None else said
    _bound(flow, len(text.encode("utf-8", "replace")))
    return Asked(text, scope)


def _bound(flow: Flow, size: int) -> None:
    if size > flow.max_input:
        raise MessageError(
            f"the message is too long: {size} bytes to ask, and max_input of flow {flow.name} is "
            f"{flow.max_input}",
            code="input_too_long",
        )


def decode(payload: bytes) -> str:
    """Payload bytes as text. Raises MessageError; EMQX writes U+FFFD for bytes it lost."""
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError:
        text = "\ufffd"
    if "\ufffd" in text:
        raise MessageError("the payload is not UTF-8 text", code="undecodable")
    return text


def _data_url(payload: bytes) -> str:
    found = picture(payload)
    if found is None:
        raise MessageError("the payload is no JPEG, PNG, GIF or WebP picture", code="not_an_image")
    kind, data = found
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def estimate(text: str) -> int:
    """Tokens of a text, roughly: a third of its UTF-8 bytes (English ÷4, Chinese ÷2)."""
    return len(text.encode("utf-8", "replace")) // 3 + 1


def estimate_of(messages: Sequence[Mapping[str, Any]]) -> int:
    """Tokens of a whole question; a picture counts as one, and not as its base64."""
    total = 0
    for message in messages:
        content = message["content"]
        parts = [{"text": content}] if isinstance(content, str) else content
        total += sum(estimate(part["text"]) if "text" in part else IMAGE_TOKENS for part in parts)
    return total


def remembered(flow: Flow, turns: Sequence[Turn], now: int) -> list[Turn]:
    """The turns that still count: young enough, and within messages and tokens."""
    if flow.history is None:
        return []
    summary, turns = _parted(turns)
    kept: list[Turn] = []
    room = flow.history.tokens
    left = MEMORY
    for turn in summary:
        left -= _bytes(turn)
        if room is not None:
            room -= _size(turn)
    for turn in reversed(turns):
        left -= _bytes(turn)
        if left < 0:
            break
        if flow.history.ttl is not None and turn.at < now - flow.history.ttl * 1000:
            break
        if 2 * (len(kept) + 1) > flow.history.messages:
            break
        if room is not None:
            room -= _size(turn)
            if room < 0:
                break
        kept.append(turn)
    kept.reverse()
    since = 0 if flow.history.ttl is None else now - flow.history.ttl * 1000
    return [*(turn for turn in summary if turn.at >= since), *kept]


def _parted(turns: Sequence[Turn]) -> tuple[Sequence[Turn], Sequence[Turn]]:
    """The summary, if there is one, and the exchanges after it."""
    count = 1 if turns and turns[0].summary else 0
    return turns[:count], turns[count:]


def young(flow: Flow, turns: Sequence[Turn], now: int) -> list[Turn]:
    """Those that `ttl` has not ended."""
    if flow.history is None or flow.history.ttl is None:
        return list(turns)
    since = now - flow.history.ttl * 1000
    return [turn for turn in turns if turn.at >= since]


def summary_of(flow: Flow, turns: Sequence[Turn], now: int) -> bool:
    """Whether a summary that still counts stands before these."""
    return bool(_parted(young(flow, turns, now))[0])


def fallen(flow: Flow, turns: Sequence[Turn], now: int) -> bool:
    """Whether some of what is stored is told no more, is in no summary, and not too old."""
    turns = young(flow, turns, now)
    return len(remembered(flow, turns, now)) < len(turns)


def recent(flow: Flow, turns: Sequence[Turn], now: int, *, crowded: bool = False) -> int:
    """How many of the newest turns stay as they are when the rest is summed up: half of what is
    told, so that the same beginning is sent for a while. All of them if nothing fell out, and the
    model had room (not `crowded`)."""
    if not crowded and not fallen(flow, turns, now):
        return len(turns)
    told = _parted(remembered(flow, turns, now))[1]
    return max(1, len(told) // 2)


def kept(flow: Flow, turns: Sequence[Turn], new: Turn) -> int:
    """How many turns to keep in memory, `new` included, after those that were remembered; with
    `summarize` after all that are stored, and beside their summary.

    A full memory, unless it is short, loses half of itself at once: what stays the same at the
    front of the next questions is what a model's server has in its cache.
    """
    if flow.history is None:
        return 0
    most = max(1, flow.history.messages // 2)
    count = len(turns) + 1
    if flow.history.summarize is not None:  # what falls out waits for its summary
        summary, turns = _parted(young(flow, turns, new.at))
        left = 2 * MEMORY - sum(map(_bytes, summary))
        sizes = [_bytes(turn) for turn in (*turns, new)]
        count = min(len(sizes), 2 * most + 1)
        while count > 0 and sum(sizes[-count:]) > left:
            count -= 1
        return count
    if count > most:
        count = most - most // 2 if most >= STEPPED else most
    room = flow.history.tokens
    if room is not None:
        sizes = [turn.tokens or _size(turn) for turn in (*turns, new)]
        if sum(sizes[-count:]) > room:
            while count > 1 and sum(sizes[-count:]) > room // 2:
                count -= 1
    sizes = [_bytes(turn) for turn in (*turns, new)]
    if sum(sizes[-count:]) > MEMORY:
        while count > 0 and sum(sizes[-count:]) > MEMORY // 2:
            count -= 1
    return count


def _bytes(turn: Turn) -> int:
    return sum(len(text.encode("utf-8", "replace")) for text in (turn.user, turn.assistant))


def _size(turn: Turn) -> int:
    return estimate(turn.user) + estimate(turn.assistant)


def compose(flow: Flow, asked: Asked, turns: Sequence[Turn]) -> tuple[Mapping[str, Any], ...]:
    """Chat Completions messages: system, memory, question."""
    messages: list[Mapping[str, Any]] = []
    if flow.system is not None:
        messages.append({"role": "system", "content": flow.system.render(asked.scope)})
    for turn in turns:
        messages.append({"role": "user", "content": BEFORE if turn.summary else turn.user})
        messages.append({"role": "assistant", "content": turn.assistant})
    content: Any = asked.text
    if asked.image is not None:
        content = [
            {"type": "text", "text": asked.text},
            {"type": "image_url", "image_url": {"url": asked.image}},
        ]
    messages.append({"role": "user", "content": content})
    return tuple(messages)


def options_of(flow: Flow, remote: Iterable[OfferedTool] = ()) -> dict[str, Any]:
    """Optional fields of the request; nothing is sent that the flow does not set. `remote` are the
    tools of MCP servers."""
    extra: dict[str, Any] = dict(flow.params)
    if flow.temperature is not None:
        extra["temperature"] = flow.temperature
    if flow.effort is not None:
        extra["reasoning_effort"] = flow.effort
    if flow.verbosity is not None:
        extra["verbosity"] = flow.verbosity
    if flow.schema is not None:
        schema = {"name": flow.name.replace(".", "_")[:64], "schema": flow.schema}
        extra["response_format"] = {"type": "json_schema", "json_schema": schema}
    tools = [(tool.name, tool.description, tool.parameters) for tool in flow.tools]
    tools += [(tool.name, tool.description, tool.schema) for tool in remote]
    if tools:
        extra["tools"] = [
            {
                "type": "function",
                "function": {"name": name, "description": description, "parameters": parameters},
            }
            for name, description, parameters in tools
        ]
    return extra


def check_schema(text: str, schema: Mapping[str, Any]) -> tuple[str | None, str]:
    """(fault, document): the first JSON of the answer that fits, wherever it stands in it."""
    fault = None
    for document in documents_of(text):
        try:
            value = parsed(document)
        except ValueError:
            continue
        if (found := fault_in(value, schema)) is None:
            return None, orjson.dumps(value).decode()
        fault = fault or found[:300]
    return fault or "it is not JSON", text
