"""Between the words of the domain and what a column may hold.

Devices send NUL, which PostgreSQL refuses in text, and lone surrogates, which both refuse.
So text columns get a cleaned copy for people and for indexes, and the exact original goes
into a blob of JSON.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from service.domain import NO_TRACE, Attempt, Entry, Message, Publish, Reading, State, Turn

MAX_KEY = 200
MAX_TEXT = 2000
_HASHED = "sha256:"
_EDGE = 1 << 62
_LONE = re.compile("[\ud800-\udfff]")


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """What every text column takes, readable, at most `limit` characters."""
    return _LONE.sub("\ufffd", text[:limit].replace("\0", "\u2400"))


def key(text: str) -> str:
    """What an index takes: the text itself, or a hash of it. Two texts never share a key."""
    try:
        short = len(text.encode()) <= MAX_KEY
    except UnicodeEncodeError:
        short = False
    if short and "\0" not in text and not text.startswith(_HASHED):
        return text
    return _HASHED + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def number(value: int) -> int:
    """Into 63 bits, so that arithmetic on it stays in a column's 64."""
    return max(-_EDGE, min(_EDGE, value))


def text_out(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def text_in(blob: bytes | None) -> str | None:
    return None if blob is None else bytes(blob).decode("utf-8", "surrogatepass")


def dumps(value: Any) -> bytes:
    """JSON; the slow way only for what orjson refuses: lone surrogates, huge integers."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()


def loads(blob: bytes) -> Any:
    try:
        return orjson.loads(blob)
    except orjson.JSONDecodeError:
        return json.loads(blob)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def entry_out(entry: Entry) -> bytes:
    """All of the message but its payload, and names whose key is not the name."""
    message = entry.message
    fields: dict[str, Any] = {
        "id": message.id,
        "topic": message.topic,
        "received_at": number(message.received_at),
    }
    if message.expiry is not None:
        fields["expiry"] = number(message.expiry)
    for name in ("flow", "clientid", "username", "peerhost", "response_topic", "content_type"):
        value = getattr(message, name)
        if value is not None:
            fields[name] = value
    if message.qos:
        fields["qos"] = message.qos
    if message.retained:
        fields["retained"] = True
    if message.correlation is not None:
        fields["correlation"] = _base64(message.correlation)
    if message.user_properties:
        fields["user_properties"] = message.user_properties
    names = {"flow": entry.flow or "", "conversation": entry.conversation}
    hashed = {name: text for name, text in names.items() if key(text) != text}
    if hashed:
        fields["names"] = hashed
    return dumps(fields)


def names_in(blob: bytes, flow: str, conversation: str) -> tuple[str | None, str]:
    """Flow and conversation by their names, from the columns that hold their keys."""
    if flow.startswith(_HASHED) or conversation.startswith(_HASHED):
        names = loads(blob).get("names", {})
        flow = names.get("flow", flow)
        conversation = names.get("conversation", conversation)
    return flow or None, conversation


def message_in(blob: bytes, payload: bytes) -> Message:
    fields = loads(blob)
    fields.pop("names", None)
    if "correlation" in fields:
        fields["correlation"] = base64.b64decode(fields["correlation"])
    if "user_properties" in fields:
        fields["user_properties"] = tuple((k, v) for k, v in fields["user_properties"])
    return Message(payload=bytes(payload), **fields)


def attempts_out(attempts: Iterable[Attempt]) -> bytes | None:
    rows = [(a.at, a.took_ms, a.model, a.result, a.message) for a in attempts]
    return dumps(rows) if rows else None


def attempts_in(blob: bytes | None) -> tuple[Attempt, ...]:
    return tuple(Attempt(*row) for row in loads(blob)) if blob else ()


RUNS = 20
"""So many runs of a request are kept: the first, and the latest."""


def trace_out(before: Mapping[str, Any], now: Mapping[str, Any]) -> bytes | None:
    """`before` with one run more."""
    if not now:
        return dumps(dict(before)) if before else None
    known = {**before, **now}
    runs = [*before.get("runs", ()), known.pop("run")]
    known["runs"] = runs if len(runs) <= RUNS else [runs[0], *runs[1 - RUNS :]]
    return dumps(known)


def trace_in(blob: bytes | None) -> Mapping[str, Any]:
    return loads(blob) if blob else NO_TRACE


def steps_out(steps: Sequence[Mapping[str, Any]]) -> bytes | None:
    return dumps(list(steps)) if steps else None


def steps_in(blob: bytes | None) -> tuple[Mapping[str, Any], ...]:
    return tuple(loads(blob)) if blob else ()


def outbox_out(outbox: Iterable[Publish]) -> bytes | None:
    rows = []
    for publish in outbox:
        fields: dict[str, Any] = {"topic": publish.topic, "qos": publish.qos}
        try:
            fields["payload"] = publish.payload.decode()
        except UnicodeDecodeError:
            fields["payload_base64"] = _base64(publish.payload)
        if publish.retain:
            fields["retain"] = True
        if publish.content_type is not None:
            fields["content_type"] = publish.content_type
        if publish.correlation is not None:
            fields["correlation"] = _base64(publish.correlation)
        if publish.expiry is not None:
            fields["expiry"] = publish.expiry
        if publish.user_properties:
            fields["user_properties"] = publish.user_properties
        if publish.response_topic is not None:
            fields["response_topic"] = publish.response_topic
        rows.append(fields)
    return dumps(rows) if rows else None


def _publish_in(fields: dict[str, Any]) -> Publish:
    if "payload_base64" in fields:
        fields["payload"] = base64.b64decode(fields.pop("payload_base64"))
    else:
        fields["payload"] = fields["payload"].encode()
    if "correlation" in fields:
        fields["correlation"] = base64.b64decode(fields["correlation"])
    if "user_properties" in fields:
        fields["user_properties"] = tuple((k, v) for k, v in fields["user_properties"])
    return Publish(**fields)


def outbox_in(blob: bytes | None) -> tuple[Publish, ...]:
    return tuple(_publish_in(fields) for fields in loads(blob)) if blob else ()


def turn_out(turn: Turn) -> bytes:
    return dumps([turn.user, turn.assistant, *([True] if turn.summary else [])])


def turn_in(blob: bytes, at: int, tokens: int) -> Turn:
    user, assistant, *summary = loads(blob)
    return Turn(user, assistant, at, tokens, bool(summary))


NEXT = b"\n"
"""Stands between what was written of readings at several times: no JSON of ours has one."""


def readings_out(readings: Iterable[Reading]) -> bytes:
    return dumps([(one.at, one.text, one.topic) for one in readings])


def readings_in(blob: bytes) -> list[Reading]:
    return [Reading(*one) for part in blob.split(NEXT) for one in loads(part)]


def state_in(value: str | None) -> State | None:
    return State(value) if value is not None else None
