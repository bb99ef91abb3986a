"""EMQX's body → `Message`. Pure: what a rule may send, and nothing else.

The fields are those that the SELECT in `emqx/` names; a rule made by hand in the dashboard
may lack any of them but `topic` and `id`. EMQX writes what is missing as "undefined".
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
from typing import Any, NamedTuple

import orjson

from service.bodies import DEEPEST, too_deep
from service.domain import Message
from service.errors import BadRequest

# The User-Agent of whoever only tries the webhook: no reason for a warning.
PROBE = "emqx-gpt-probe"

ANSWERS = b'"answers"'
_MISSING = "undefined"
_INT64 = 2**63 - 1


def parse(body: bytes, *, now: int, address: bool = False) -> Message:
    """One rule output → Message. `now` (ms) stands in for a missing publish_received_at.
    `address`: whether the client's is kept.

    Raises BadRequest for what can never become a request.
    """
    fields = _object(body)
    topic = fields.get("topic")
    if not isinstance(topic, str) or not topic or topic == _MISSING:
        raise BadRequest(
            'the body has no "topic": add topic to the SELECT of the rule', code="no_topic"
        )
    ident = fields.get("id")
    if not isinstance(ident, str) or not ident or ident == _MISSING:
        raise BadRequest('the body has no "id": add id to the SELECT of the rule', code="no_id")
    props = fields.get("pub_props")
    props = props if isinstance(props, dict) else {}
    received = _integer(fields.get("publish_received_at", fields.get("timestamp")))
    return Message(
        id=ident,
        topic=topic,
        payload=_payload(fields),
        received_at=now if received is None else received,
        flow=_text(fields.get("flow")),
        clientid=_client(fields.get("clientid")),
        username=_text(fields.get("username")),
        peerhost=_network(fields.get("peerhost")) if address else None,
        qos=_integer(fields.get("qos")) or 0,
        retained=fields.get("retain") is True,
        response_topic=_text(props.get("Response-Topic")),
        correlation=_correlation(fields, props),
        content_type=_text(props.get("Content-Type")),
        expiry=_integer(props.get("Message-Expiry-Interval")),
        user_properties=_user_properties(props),
    )


def answers(body: bytes) -> bool:
    """Whether a body is of the rule that brings what devices and people say to tool calls."""
    return ANSWERS in body and _object(body).get("answers") == "call"


_READING = b'"recent":"'


def may_be_reading(body: bytes) -> bool:
    """Whether it is worth a `reading`; seen without reading it."""
    return _READING in body


class Kept(NamedTuple):
    """What the rule of a window sends: `flow` is whose window it is. Without an id, so that an
    older service, which knows no windows, can't take it for a question."""

    flow: str
    topic: str
    payload: str | bytes
    received_at: int


def reading(body: bytes, *, now: int) -> Kept | None:
    """One output of a window's rule; None if it is none."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            return None
    if not isinstance(fields, dict) or "id" in fields:
        return None
    flow, topic = fields.get("recent"), fields.get("topic")
    if not isinstance(flow, str) or not isinstance(topic, str):
        return None
    payload = fields.get("payload")
    if not isinstance(payload, str) or "payload_base64" in fields:
        payload = _payload(fields)
    received = _integer(fields.get("publish_received_at"))
    return Kept(flow, topic, payload, now if received is None else received)


def _object(body: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        # orjson refuses lone surrogates and very deep nesting; the standard library takes
        # the former, and what it can't take never becomes a request.
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            raise BadRequest(
                "the body is not JSON: leave the action's body template unset", code="not_json"
            ) from None
    if too_deep(body):
        raise BadRequest(f"the body is nested deeper than {DEEPEST}", code="not_json")
    if not isinstance(fields, dict):
        raise BadRequest("the body is not a JSON object", code="not_an_object")
    return fields


def _payload(fields: dict[str, Any]) -> bytes:
    encoded = fields.get("payload_base64")
    if isinstance(encoded, str) and encoded != _MISSING:
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            return encoded.encode("utf-8", "surrogatepass")
    payload = fields.get("payload", "")
    if not isinstance(payload, str):
        # A rule made by hand may have decoded it: SELECT json_decode(payload) AS payload.
        payload = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    return payload.encode("utf-8", "surrogatepass")


def _correlation(fields: dict[str, Any], props: dict[str, Any]) -> bytes | None:
    encoded = fields.get("correlation_base64")
    if isinstance(encoded, str) and encoded not in ("", _MISSING):
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            pass
    text = props.get("Correlation-Data")
    if isinstance(text, str) and text:
        return text.encode("utf-8", "surrogatepass")
    return None


def _network(value: Any) -> str | None:
    """Whose an address is: who has one of IPv6 has 2^64 of them. A last will has none and is
    sent as "undefined"; None: the rule does not send it."""
    if not isinstance(value, str):
        return None
    try:
        address = ipaddress.ip_address(value.partition("%")[0])
    except ValueError:
        return _MISSING
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def _user_properties(props: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    pairs = props.get("User-Property-Pairs")
    if isinstance(pairs, list):
        return tuple(
            (pair["key"], pair["value"])
            for pair in pairs
            if isinstance(pair, dict)
            and isinstance(pair.get("key"), str)
            and isinstance(pair.get("value"), str)
        )
    single = props.get("User-Property")
    if isinstance(single, dict):
        return tuple((k, v) for k, v in single.items() if isinstance(v, str))
    return ()


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value not in ("", _MISSING) else None


def _client(value: Any) -> str | None:
    """Whoever calls itself "undefined" is a client like any other: EMQX names every client."""
    return value if isinstance(value, str) and value else None


def _integer(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return max(-_INT64, min(_INT64, value))
