"""MQTT's data types, MQTT 5's properties, and packets cut out of a stream. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from service.demo.standin.mqtt_broker.reason_codes import (
    ProtocolFault,
    Reason,
    malformed,
    protocol_error,
)

MAX_PACKET_SIZE = 1024 * 1024  # EMQX's mqtt.max_packet_size, 1MB

Properties = dict[str, object]
UserProperties = list[tuple[str, str]]


class Reader:
    """Reads a packet's body from its beginning. Every method raises ProtocolFault."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if self.left < count:
            raise malformed("the packet is shorter than what it says")
        self._at += count
        return self._data[self._at - count : self._at]

    def rest(self) -> bytes:
        return self.take(self.left)

    def byte(self) -> int:
        return self.take(1)[0]

    def two(self) -> int:
        return int.from_bytes(self.take(2))

    def four(self) -> int:
        return int.from_bytes(self.take(4))

    def variable(self) -> int:
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value
        raise malformed("a variable byte integer of more than four bytes")

    def binary(self) -> bytes:
        return self.take(self.two())

    def text(self) -> str:
        try:
            found = self.binary().decode()
        except UnicodeDecodeError:
            raise malformed("a text that is not UTF-8") from None
        if "\0" in found:
            raise malformed("a text with NUL in it")
        return found

    def packet_id(self) -> int:
        found = self.two()
        if not found:
            raise protocol_error("a packet identifier of 0")
        return found

    def end(self) -> None:
        if self.left:
            raise malformed(f"{self.left} bytes more than the packet should have")


def two(value: int) -> bytes:
    return value.to_bytes(2)


def variable(value: int) -> bytes:
    """A variable byte integer, up to 268,435,455."""
    found = bytearray()
    while True:
        value, byte = divmod(value, 128)
        found.append(byte | 0x80 if value else byte)
        if not value:
            return bytes(found)


def binary(value: bytes) -> bytes:
    """Up to 65,535 bytes; longer ones are cut, since nothing can carry them."""
    value = value[:65535]
    return struct.pack("!H", len(value)) + value


def text(value: str) -> bytes:
    return binary(value.encode("utf-8", "replace"))


# ---- properties


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    form: str  # byte, two, four, variable, text, binary, pair
    packets: frozenset[str]
    least: int = 0
    most: int = 0xFFFFFFFF


def _kind(name: str, form: str, packets: str, least: int = 0, most: int = 0xFFFFFFFF) -> _Kind:
    return _Kind(name, form, frozenset(packets.split()), least, most)


_KINDS = {
    0x01: _kind("Payload-Format-Indicator", "byte", "publish will", 0, 1),
    0x02: _kind("Message-Expiry-Interval", "four", "publish will"),
    0x03: _kind("Content-Type", "text", "publish will"),
    0x08: _kind("Response-Topic", "text", "publish will"),
    0x09: _kind("Correlation-Data", "binary", "publish will"),
    0x0B: _kind("Subscription-Identifier", "variable", "publish subscribe", 1),
    0x11: _kind("Session-Expiry-Interval", "four", "connect connack disconnect"),
    0x12: _kind("Assigned-Client-Identifier", "text", "connack"),
    0x13: _kind("Server-Keep-Alive", "two", "connack"),
    0x15: _kind("Authentication-Method", "text", "connect connack auth"),
    0x16: _kind("Authentication-Data", "binary", "connect connack auth"),
    0x17: _kind("Request-Problem-Information", "byte", "connect", 0, 1),
    0x18: _kind("Will-Delay-Interval", "four", "will"),
    0x19: _kind("Request-Response-Information", "byte", "connect", 0, 1),
    0x1F: _kind("Reason-String", "text", "connack ack suback unsuback disconnect auth"),
    0x21: _kind("Receive-Maximum", "two", "connect connack", 1),
    0x22: _kind("Topic-Alias-Maximum", "two", "connect connack"),
    0x23: _kind("Topic-Alias", "two", "publish"),
    0x25: _kind("Retain-Available", "byte", "connack"),
    0x26: _kind(
        "User-Property",
        "pair",
        "connect connack publish will ack subscribe suback unsubscribe unsuback disconnect auth",
    ),
    0x27: _kind("Maximum-Packet-Size", "four", "connect connack", 1),
    0x28: _kind("Wildcard-Subscription-Available", "byte", "connack"),
    0x29: _kind("Subscription-Identifier-Available", "byte", "connack"),
    0x2A: _kind("Shared-Subscription-Available", "byte", "connack"),
}
_IDS = {kind.name: (ident, kind.form) for ident, kind in _KINDS.items()}
_NUMBERS = {"byte": 1, "two": 2, "four": 4}


def read_properties(reader: Reader, packet: str) -> Properties:
    """Those that may stand in `packet`; user properties as a list of pairs."""
    inside = Reader(reader.take(reader.variable()))
    found: Properties = {}
    users: UserProperties = []
    while inside.left:
        kind = _KINDS.get(inside.variable())
        if kind is None:
            raise malformed("an unknown property")
        if packet not in kind.packets:
            raise protocol_error(f"{kind.name} has no place in this packet")
        if kind.form == "pair":
            users.append((inside.text(), inside.text()))
            continue
        if kind.name in found:
            raise protocol_error(f"{kind.name} stands twice")
        found[kind.name] = _value(inside, kind)
    if users:
        found["User-Property"] = users
    return found


def _value(inside: Reader, kind: _Kind) -> object:
    if kind.form == "text":
        return inside.text()
    if kind.form == "binary":
        return inside.binary()
    size = _NUMBERS.get(kind.form)
    number = inside.variable() if size is None else int.from_bytes(inside.take(size))
    if not kind.least <= number <= kind.most:
        raise protocol_error(f"{kind.name} can't be {number}")
    return number


def write_properties(properties: Mapping[str, object]) -> bytes:
    """A property block with its length. Subscription identifiers may be several: a list."""
    if not properties:
        return b"\0"
    found = bytearray()
    for name, value in properties.items():
        ident, form = _IDS[name]
        items: list[Any] = value if isinstance(value, list) else [value]
        for item in items:
            found.append(ident)
            if form == "pair":
                found += text(item[0]) + text(item[1])
            elif form == "text":
                found += text(str(item))
            elif form == "binary":
                found += binary(item)
            elif form == "variable":
                found += variable(item)
            else:
                found += int(item).to_bytes(_NUMBERS[form])
    return variable(len(found)) + bytes(found)


# ---- a stream of packets


class Splitter:
    """Cuts a stream into packets: only whole ones come out, however they were sent."""

    def __init__(self, limit: int = MAX_PACKET_SIZE) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The first byte and the body of each packet complete by now. Raises ProtocolFault."""
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= 2:
                length = shift = 0
                head = at + 1
                while True:
                    if head == len(buffer):
                        return
                    byte = buffer[head]
                    length |= (byte & 0x7F) << shift
                    head += 1
                    if not byte & 0x80:
                        break
                    if (shift := shift + 7) > 21:
                        raise malformed("a packet's length of more than four bytes")
                if head - at + length > self._limit:
                    raise ProtocolFault(
                        Reason.PACKET_TOO_LARGE, f"a packet of more than {self._limit} bytes"
                    )
                if len(buffer) < head + length:
                    return
                first = buffer[at]
                at = head + length
                yield first, bytes(buffer[head:at])
        finally:
            del buffer[:at]
