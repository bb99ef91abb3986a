"""MQTT's packets, 3.1.1 and 5: read from what a client sent, written for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from service.demo.standin.mqtt_broker.reason_codes import (
    CONNACK_311,
    ProtocolFault,
    Reason,
    malformed,
    protocol_error,
)
from service.demo.standin.mqtt_broker.wire import (
    Properties,
    Reader,
    read_properties,
    text,
    two,
    variable,
    write_properties,
)

MQTT_5 = 5


class Type(IntEnum):
    """The packets' numbers."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


@dataclass(frozen=True, slots=True)
class PublishPacket:
    """A PUBLISH, or the last will in a CONNECT."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool = False
    packet_id: int = 0
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConnectPacket:
    version: int
    clean_start: bool
    keepalive: int
    client_id: str
    username: str | None
    will: PublishPacket | None
    properties: Properties


@dataclass(frozen=True, slots=True)
class AckPacket:
    """PUBACK, PUBREC, PUBREL, PUBCOMP."""

    type: Type
    packet_id: int
    failed: bool


@dataclass(frozen=True, slots=True)
class Options:
    """How a subscriber wants its messages."""

    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


@dataclass(frozen=True, slots=True)
class SubscribePacket:
    packet_id: int
    filters: tuple[tuple[str, Options], ...]
    identifier: int | None


@dataclass(frozen=True, slots=True)
class UnsubscribePacket:
    packet_id: int
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PingPacket:
    pass


@dataclass(frozen=True, slots=True)
class DisconnectPacket:
    reason: int
    session_expiry: int | None


Packet = (
    ConnectPacket
    | PublishPacket
    | AckPacket
    | SubscribePacket
    | UnsubscribePacket
    | PingPacket
    | DisconnectPacket
)


def read(first: int, body: bytes, version: int) -> Packet:
    """A client's packet. Raises ProtocolFault."""
    kind, flags = first >> 4, first & 0x0F
    reader = Reader(body)
    if kind == Type.PUBLISH:
        return _publish(reader, flags, version)
    wanted = 2 if kind in (Type.PUBREL, Type.SUBSCRIBE, Type.UNSUBSCRIBE) else 0
    if flags != wanted:
        raise malformed("reserved flags in a packet's first byte")
    if Type.PUBACK <= kind <= Type.PUBCOMP:
        return _ack(reader, Type(kind), version)
    if kind == Type.PINGREQ:
        reader.end()
        return PingPacket()
    if kind == Type.CONNECT:
        return _connect(reader)
    if kind == Type.SUBSCRIBE:
        return _subscribe(reader, version)
    if kind == Type.UNSUBSCRIBE:
        return _unsubscribe(reader, version)
    if kind == Type.DISCONNECT:
        return _disconnect(reader, version)
    if kind == Type.AUTH and version == MQTT_5:
        words = "enhanced authentication is not supported here"
        raise ProtocolFault(Reason.BAD_AUTHENTICATION_METHOD, words)
    raise protocol_error("a packet that clients don't send")


def _connect(reader: Reader) -> ConnectPacket:
    name, version = reader.binary(), reader.byte()
    if (name, version) not in ((b"MQTT", 4), (b"MQTT", 5), (b"MQIsdp", 3)):
        if name not in (b"MQTT", b"MQIsdp"):
            raise malformed("the protocol's name is not MQTT")
        words = f"MQTT level {version} is not spoken here; 3.1.1 (4) and 5 are"
        raise ProtocolFault(Reason.UNSUPPORTED_PROTOCOL_VERSION, words)
    flags, keepalive = reader.byte(), reader.two()
    if flags & 1:
        raise malformed("a reserved flag in CONNECT")
    properties = read_properties(reader, "connect") if version == MQTT_5 else {}
    client_id = reader.text()
    will = _will(reader, flags, version)
    username = reader.text() if flags & 0x80 else None
    if flags & 0x40:
        if username is None and version != MQTT_5:
            raise malformed("a password without a user name")
        reader.binary()
    reader.end()
    return ConnectPacket(version, bool(flags & 2), keepalive, client_id, username, will, properties)


def _will(reader: Reader, flags: int, version: int) -> PublishPacket | None:
    qos, retain = flags >> 3 & 3, bool(flags & 0x20)
    if not flags & 4:
        if qos or retain:
            raise malformed("will flags without a will")
        return None
    if qos == 3:
        raise malformed("a will of QoS 3")
    properties = read_properties(reader, "will") if version == MQTT_5 else {}
    return PublishPacket(reader.text(), reader.binary(), qos, retain, properties=properties)


def _publish(reader: Reader, flags: int, version: int) -> PublishPacket:
    qos, dup = flags >> 1 & 3, bool(flags & 8)
    if qos == 3 or (dup and not qos):
        raise malformed("a PUBLISH of QoS 3, or of QoS 0 with DUP")
    topic = reader.text()
    packet_id = reader.packet_id() if qos else 0
    properties = read_properties(reader, "publish") if version == MQTT_5 else {}
    if "Subscription-Identifier" in properties:
        raise protocol_error("Subscription-Identifier in a client's PUBLISH")
    return PublishPacket(topic, reader.rest(), qos, bool(flags & 1), dup, packet_id, properties)


def _ack(reader: Reader, kind: Type, version: int) -> AckPacket:
    packet_id = reader.packet_id()
    reason = reader.byte() if version == MQTT_5 and reader.left else 0
    if version == MQTT_5 and reader.left:
        read_properties(reader, "ack")
    reader.end()
    return AckPacket(kind, packet_id, reason >= 0x80)


def _subscribe(reader: Reader, version: int) -> SubscribePacket:
    packet_id = reader.packet_id()
    properties = read_properties(reader, "subscribe") if version == MQTT_5 else {}
    filters: list[tuple[str, Options]] = []
    while reader.left:
        topic_filter, byte = reader.text(), reader.byte()
        handling = byte >> 4 & 3
        if byte & 0xC0 or byte & 3 == 3 or handling == 3 or (version != MQTT_5 and byte > 2):
            raise malformed("subscription options that do not exist")
        options = Options(byte & 3, bool(byte & 4), bool(byte & 8), handling)
        filters.append((topic_filter, options))
    if not filters:
        raise protocol_error("a SUBSCRIBE without a topic filter")
    identifier = properties.get("Subscription-Identifier")
    assert identifier is None or isinstance(identifier, int)
    return SubscribePacket(packet_id, tuple(filters), identifier)


def _unsubscribe(reader: Reader, version: int) -> UnsubscribePacket:
    packet_id = reader.packet_id()
    if version == MQTT_5:
        read_properties(reader, "unsubscribe")
    filters: list[str] = []
    while reader.left:
        filters.append(reader.text())
    if not filters:
        raise protocol_error("an UNSUBSCRIBE without a topic filter")
    return UnsubscribePacket(packet_id, tuple(filters))


def _disconnect(reader: Reader, version: int) -> DisconnectPacket:
    reason = reader.byte() if version == MQTT_5 and reader.left else 0
    more = version == MQTT_5 and reader.left
    properties = read_properties(reader, "disconnect") if more else {}
    reader.end()
    expiry = properties.get("Session-Expiry-Interval")
    assert expiry is None or isinstance(expiry, int)
    return DisconnectPacket(reason, expiry)


# ---- for a client


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + variable(len(body)) + body


def connack(
    version: int, reason: Reason, *, present: bool = False, properties: Mapping[str, object]
) -> bytes:
    if version == MQTT_5:
        body = bytes((present, reason)) + write_properties(properties)
    else:
        body = bytes((present, CONNACK_311.get(reason, 3)))
    return _packet(Type.CONNACK << 4, body)


def publish(version: int, packet: PublishPacket) -> bytes:
    flags = packet.dup << 3 | packet.qos << 1 | packet.retain
    head = text(packet.topic) + (two(packet.packet_id) if packet.qos else b"")
    if version == MQTT_5:
        head += write_properties(packet.properties)
    size = variable(len(head) + len(packet.payload))
    return b"".join((bytes((Type.PUBLISH << 4 | flags,)), size, head, packet.payload))


def ack(version: int, kind: Type, packet_id: int, reason: Reason = Reason.SUCCESS) -> bytes:
    body = two(packet_id)
    if version == MQTT_5 and reason:
        body += bytes((reason,))
    return _packet(kind << 4 | (2 if kind is Type.PUBREL else 0), body)


def suback(version: int, packet_id: int, codes: Sequence[int]) -> bytes:
    properties = b"\0" if version == MQTT_5 else b""
    return _packet(Type.SUBACK << 4, two(packet_id) + properties + bytes(codes))


def unsuback(version: int, packet_id: int, codes: Sequence[int]) -> bytes:
    more = b"\0" + bytes(codes) if version == MQTT_5 else b""
    return _packet(Type.UNSUBACK << 4, two(packet_id) + more)


def pingresp() -> bytes:
    return _packet(Type.PINGRESP << 4, b"")


def disconnect(reason: Reason, words: str) -> bytes:
    """MQTT 5 only: before it a server just closes."""
    properties = {"Reason-String": words} if words else {}
    return _packet(Type.DISCONNECT << 4, bytes((reason,)) + write_properties(properties))
