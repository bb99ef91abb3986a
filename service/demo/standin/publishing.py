"""POST /publish and /publish/bulk: checks and answers as recorded."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson

from service.demo.standin.mqtt_broker.wire import MAX_PACKET_SIZE
from service.demo.standin.published import Message, new_id
from service.demo.standin.refusal import Invalid, expected, unknown_fields

if TYPE_CHECKING:
    from service.demo.standin.mqtt_broker.core import MqttBroker

CLIENT_ID = "http_api"
# what Erlang's io_lib does not take for printable
_UNPRINTABLE = re.compile("[\0-\x07\x0e-\x1a\x1c-\x1f\x7f-\x9f\ufffe\uffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_FIELDS = ("clientid", "payload", "payload_encoding", "properties", "qos", "retain", "topic")
_TEXTS = {
    "content_type": "Content-Type",
    "correlation_data": "Correlation-Data",
    "response_topic": "Response-Topic",
}
_NUMBERS = {
    "message_expiry_interval": "Message-Expiry-Interval",
    "payload_format_indicator": "Payload-Format-Indicator",
}
_PROPERTIES = (*_TEXTS, *_NUMBERS, "user_properties")
_EMPTY_BATCH = 'error, {case_clause,{errror,<<"empty_batch">>}}, []'

Answer = tuple[int, object]


class NotJson(Exception):
    """The body is not JSON."""


class _Refused(Exception):
    def __init__(self, message: str, reason_code: int) -> None:
        super().__init__(message)
        self.answer = {"message": message, "reason_code": reason_code}


def parse_json(body: bytes) -> object:
    """What is no UTF-8 becomes U+FFFD, as in EMQX. Raises NotJson."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body.decode("utf-8", "replace"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise NotJson from None


def _refuse(name: str) -> object:
    raise ValueError(name)  # NaN and Infinity are Python's, not JSON's


def publish(broker: MqttBroker, body: object) -> Answer:
    """Status and answer for one message. Raises Invalid."""
    try:
        message = _message(body, "root", f"rest-{new_id()}")
    except _Refused as exc:
        return 400, exc.answer
    result, reached = _sent(broker, message)
    return (200 if reached else 202), result


def publish_bulk(broker: MqttBroker, body: object) -> Answer:
    """Status and answers in order; one bad message and nothing is published. Raises Invalid."""
    if isinstance(body, Mapping):
        raise Invalid("root", None, bad_array_index_keys=list(body))
    if not isinstance(body, list):
        raise Invalid("root", "expected an array", body)
    if not body:  # EMQX's own slip, recorded
        return 500, {"code": "INTERNAL_ERROR", "message": _EMPTY_BATCH}
    source = f"rest-{new_id()}"  # one process publishes all of them, in order
    try:
        messages = [_message(item, f"root.{n}", source) for n, item in enumerate(body, 1)]
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


def _message(body: object, path: str, source: str) -> Message:
    """Raises Invalid for what EMQX's schema refuses, _Refused for what its broker does."""
    if not isinstance(body, Mapping):
        raise Invalid(path, "expected an object", body)
    unknown_fields(body, _FIELDS, path)
    topic = _required(body, "topic", path)
    text = _required(body, "payload", path)
    qos, retain = _qos(body.get("qos", 0), path), _boolean(body.get("retain", False), path)
    encoding = body.get("payload_encoding", "plain")
    if encoding not in ("plain", "base64"):
        where = f"{path}.payload_encoding"
        raise Invalid(where, "unable_to_convert_to_enum_symbol", encoding)
    properties = _properties(body.get("properties", {}), f"{path}.properties")
    payload = text.encode()
    if encoding == "base64":
        try:
            payload = base64.b64decode(payload, validate=True)
        except binascii.Error:
            raise _Refused(f'{{decode_base64_payload_failed,<<"{text}">>}}', 131) from None
    if not topic or "+" in topic or "#" in topic or len(topic.encode()) > 65535:
        raise _Refused("topic_name_invalid", 144)
    if len(topic.encode()) + len(payload) > MAX_PACKET_SIZE:
        raise _Refused("packet_too_large", 151)
    return Message(
        topic=topic,
        payload=payload,
        qos=qos,
        retain=retain,
        dup=None,
        clientid=CLIENT_ID,
        properties=properties,
        source=source,
    )


def _required(body: Mapping[str, object], key: str, path: str) -> str:
    if body.get(key) is None:
        raise Invalid(f"{path}.{key}", "required_field")
    return _text(body[key], f"{path}.{key}")


def _text(value: object, path: str) -> str:
    """A text, or a number written as one; only what Erlang takes for printable."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    if not isinstance(value, str) or _UNPRINTABLE.search(value):
        raise Invalid(path, expected("binary"), value)
    return _SURROGATE.sub("\ufffd", value)


def _qos(value: object, path: str) -> int:
    number = int(value) if isinstance(value, str) and value in ("0", "1", "2") else value
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= 2:
        raise Invalid(f"{path}.qos", "Unable to parse string", value)
    return number


def _boolean(value: object, path: str) -> bool:
    if value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise Invalid(f"{path}.retain", expected("boolean"), value)
    return value


def _properties(given: object, path: str) -> dict[str, object]:
    if not isinstance(given, Mapping):
        raise Invalid(path, expected("map"), given)
    unknown_fields(given, _PROPERTIES, path)
    user = given.get("user_properties", {})
    if not isinstance(user, Mapping):
        raise Invalid(f"{path}.user_properties", expected("map"), user)
    pairs = {
        _SURROGATE.sub("\ufffd", key): _SURROGATE.sub(
            "\ufffd", value if isinstance(value, str) else json.dumps(value)
        )
        for key, value in user.items()
    }
    properties: dict[str, object] = {"User-Property": pairs}
    if pairs:
        properties["User-Property-Pairs"] = [{"key": k, "value": v} for k, v in pairs.items()]
    for name, value in given.items():
        if value is None or name == "user_properties":
            continue
        if name in _TEXTS:
            properties[_TEXTS[name]] = _text(value, f"{path}.{name}")
        else:
            properties[_NUMBERS[name]] = _number(value, f"{path}.{name}")
    return properties


def _number(value: object, path: str) -> int:
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        number = int(float(value))
        if not 0 <= number <= 0xFFFFFFFF:
            raise ValueError
    except (ValueError, OverflowError):
        raise Invalid(path, expected("integer"), value) from None
    return number
