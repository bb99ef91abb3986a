"""POST /publish and /publish/bulk: checks and answers as recorded."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson

from service.demo.standin.message import Message, new_id
from service.demo.standin.mqtt_broker.wire import MAX_PACKET_SIZE
from service.demo.standin.schema import Invalid

if TYPE_CHECKING:
    from service.demo.standin.mqtt_broker.core import MqttBroker

CLIENT_ID = "http_api"
_PROPERTIES = {
    "content_type": "Content-Type",
    "correlation_data": "Correlation-Data",
    "message_expiry_interval": "Message-Expiry-Interval",
    "payload_format_indicator": "Payload-Format-Indicator",
    "response_topic": "Response-Topic",
}
_EMPTY_BATCH = 'error, {case_clause,{errror,<<"empty_batch">>}}, []'

Answer = tuple[int, object]


class NotJson(Exception):
    """The body is not JSON."""


class _Refused(Exception):
    def __init__(self, message: str, reason_code: int) -> None:
        super().__init__(message)
        self.answer = {"message": message, "reason_code": reason_code}


def parse_json(body: bytes) -> object:
    """Raises NotJson."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise NotJson from None


def publish(broker: MqttBroker, body: object) -> Answer:
    """Status and answer for one message. Raises Invalid."""
    try:
        message = _message(body)
    except _Refused as exc:
        return 400, exc.answer
    result, reached = _sent(broker, message)
    return (200 if reached else 202), result


def publish_bulk(broker: MqttBroker, body: object) -> Answer:
    """Status and answers in order; one bad message and nothing is published. Raises Invalid."""
    if not isinstance(body, list):
        raise Invalid("root", "expected an array", body)
    if not body:  # EMQX's own slip, recorded
        return 500, {"code": "INTERNAL_ERROR", "message": _EMPTY_BATCH}
    try:
        messages = [_message(item) for item in body]
    except _Refused as exc:
        return 400, exc.answer
    results = [_sent(broker, message) for message in messages]
    status = 200 if all(reached for _, reached in results) else 202
    return status, [result for result, _ in results]


def _sent(broker: MqttBroker, message: Message) -> tuple[dict[str, object], int]:
    reached = broker.publish(message)
    if reached:
        return {"id": message.id}, reached
    return {"message": "no_matching_subscribers", "reason_code": 16}, 0


def _message(body: object) -> Message:
    """Raises Invalid for what EMQX's schema refuses, _Refused for what its broker does."""
    if not isinstance(body, Mapping):
        raise Invalid("root", "expected an object", body)
    topic = _string(body, "topic")
    payload = _string(body, "payload").encode("utf-8", "replace")
    qos = body.get("qos", 0)
    if not isinstance(qos, int) or isinstance(qos, bool) or not 0 <= qos <= 2:
        raise Invalid("root.qos", "Unable to parse string", qos)
    retain = body.get("retain", False)
    if not isinstance(retain, bool):
        raise Invalid("root.retain", "expected a boolean", retain)
    if body.get("payload_encoding", "plain") not in ("plain", "base64"):
        raise Invalid("root.payload_encoding", "not one of plain, base64", body["payload_encoding"])
    if body.get("payload_encoding") == "base64":
        try:
            payload = base64.b64decode(payload, validate=True)
        except binascii.Error:
            raise _Refused("bad_payload_encoding", 144) from None
    if not topic or "+" in topic or "#" in topic or "\0" in topic:
        raise _Refused("topic_name_invalid", 144)
    if len(topic.encode()) + len(payload) > MAX_PACKET_SIZE:
        raise _Refused("packet_too_large", 151)
    return Message(
        topic=topic,
        payload=payload,
        qos=qos,
        retain=retain,
        clientid=CLIENT_ID,
        properties=_properties(body.get("properties", {})),
        source=f"rest-{new_id()}",
    )


def _string(body: Mapping[str, object], key: str) -> str:
    if key not in body:
        raise Invalid(f"root.{key}", "required_field")
    value = body[key]
    if not isinstance(value, str):
        raise Invalid(f"root.{key}", {"expected": "binary()"}, value)
    return value


def _properties(given: object) -> dict[str, object]:
    if not isinstance(given, Mapping):
        raise Invalid("root.properties", "expected an object", given)
    user = given.get("user_properties", {})
    if not isinstance(user, Mapping):
        raise Invalid("root.properties.user_properties", "expected an object", user)
    pairs = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in user.items()
    }
    properties: dict[str, object] = {"User-Property": pairs}
    if pairs:
        properties["User-Property-Pairs"] = [{"key": k, "value": v} for k, v in pairs.items()]
    for name, value in given.items():
        if name == "user_properties":
            continue
        if name not in _PROPERTIES:
            raise Invalid(f"root.properties.{name}", "unknown_fields", value)
        number = name in ("message_expiry_interval", "payload_format_indicator")
        if not isinstance(value, int if number else str) or isinstance(value, bool):
            raise Invalid(f"root.properties.{name}", "wrong type", value)
        properties[_PROPERTIES[name]] = value
    return properties
