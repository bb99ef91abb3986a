"""MQTT 5's properties of a message: as a rule sees them, and as a subscriber gets them. Pure."""

from __future__ import annotations

from service.demo.standin.mqtt_broker.wire import Properties
from service.demo.standin.published import Message

EXPIRED = -1
_PASSED_ON = (
    "Payload-Format-Indicator",
    "Content-Type",
    "Response-Topic",
    "Correlation-Data",
    "Message-Expiry-Interval",
)


def pub_props(properties: Properties) -> dict[str, object]:
    """Those of a PUBLISH or a will as EMQX's rule engine shows them."""
    found: dict[str, object] = {
        name: value for name, value in properties.items() if name in _PASSED_ON
    }
    pairs = properties.get("User-Property", [])
    assert isinstance(pairs, list)
    found["User-Property"] = dict(pairs)
    if pairs:
        found["User-Property-Pairs"] = [{"key": key, "value": value} for key, value in pairs]
    return found


def for_subscriber(message: Message, now: int) -> Properties | None:
    """What a subscriber gets of `pub_props`; None once the message has expired (`now` in ms)."""
    found: Properties = {}
    for name in _PASSED_ON:
        value = message.properties.get(name)
        if value is None:
            continue
        if name == "Correlation-Data" and isinstance(value, str):
            value = value.encode("utf-8", "replace")
        found[name] = value
    if (left := seconds_left(message, now)) is not None:
        if left == EXPIRED:
            return None
        found["Message-Expiry-Interval"] = left
    pairs = message.properties.get("User-Property-Pairs")
    if isinstance(pairs, list):
        found["User-Property"] = [(pair["key"], pair["value"]) for pair in pairs]
    return found


def seconds_left(message: Message, now: int) -> int | None:
    """Of its expiry, counted from when it was received, or EXPIRED; None without one."""
    interval = message.properties.get("Message-Expiry-Interval")
    if not isinstance(interval, int):
        return None
    passed = max(0, now - message.received_at) // 1000
    left = interval - passed
    return left if left > 0 or not passed else EXPIRED
