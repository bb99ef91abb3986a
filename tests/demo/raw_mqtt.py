"""A client that says exactly what a test wants, byte by byte, and writes down what it hears.

It shares no code with the stand-in: what it can't read, nobody could.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any, Protocol

TIMEOUT = 45

# name: (identifier, how it is written)
PROPERTIES = {
    "format": (0x01, "B"),
    "expiry": (0x02, "I"),
    "content_type": (0x03, "s"),
    "response_topic": (0x08, "s"),
    "correlation": (0x09, "b"),
    "identifier": (0x0B, "v"),
    "session_expiry": (0x11, "I"),
    "assigned": (0x12, "s"),
    "server_keepalive": (0x13, "H"),
    "method": (0x15, "s"),
    "data": (0x16, "b"),
    "will_delay": (0x18, "I"),
    "reason": (0x1F, "s"),
    "receive_maximum": (0x21, "H"),
    "alias_maximum": (0x22, "H"),
    "alias": (0x23, "H"),
    "maximum_qos": (0x24, "B"),
    "retain_available": (0x25, "B"),
    "user": (0x26, "p"),
    "maximum_packet": (0x27, "I"),
    "wildcards": (0x28, "B"),
    "identifiers": (0x29, "B"),
    "shared": (0x2A, "B"),
}
NAMES = {ident: (name, form) for name, (ident, form) in PROPERTIES.items()}
_TYPES = """
? CONNECT CONNACK PUBLISH PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE SUBACK UNSUBSCRIBE UNSUBACK
PINGREQ PINGRESP DISCONNECT AUTH
"""
TYPES = _TYPES.split()


def varint(value: int) -> bytes:
    found = b""
    while True:
        value, byte = divmod(value, 128)
        found += bytes([byte | 0x80 if value else byte])
        if not value:
            return found


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(data)) + data


def props(**values: Any) -> bytes:
    found = b""
    for name, given in values.items():
        ident, form = PROPERTIES[name]
        for value in given if isinstance(given, list) else [given]:
            found += bytes([ident])
            if form in "sb":
                found += text(value)
            elif form == "p":
                found += text(value[0]) + text(value[1])
            else:
                found += varint(value) if form == "v" else struct.pack("!" + form, value)
    return varint(len(found)) + found


def packet(first: int, body: bytes = b"") -> bytes:
    return bytes([first]) + varint(len(body)) + body


def connect(
    version: int,
    client_id: str,
    *,
    clean: bool = True,
    keepalive: int = 60,
    will: tuple[str, bytes, int, bool] | None = None,
    will_delay: int | None = None,
    username: str | None = None,
    **properties: Any,
) -> bytes:
    flags = 2 if clean else 0
    tail = text(client_id)
    if will is not None:
        topic, payload, qos, retain = will
        flags |= 4 | qos << 3 | retain << 5
        if version == 5:
            tail += props(**({} if will_delay is None else {"will_delay": will_delay}))
        tail += text(topic) + text(payload)
    if username is not None:
        flags |= 0x80
        tail += text(username)
    head = text("MQTT") + bytes([version, flags]) + struct.pack("!H", keepalive)
    return packet(0x10, head + (props(**properties) if version == 5 else b"") + tail)


def publish(
    version: int,
    topic: str,
    payload: bytes = b"",
    qos: int = 0,
    pid: int = 1,
    *,
    retain: bool = False,
    dup: bool = False,
    **properties: Any,
) -> bytes:
    body = text(topic) + (struct.pack("!H", pid) if qos else b"")
    body += (props(**properties) if version == 5 else b"") + payload
    return packet(0x30 | dup << 3 | qos << 1 | retain, body)


def ack(kind: str, pid: int) -> bytes:
    number = TYPES.index(kind)
    return packet(number << 4 | (2 if kind == "PUBREL" else 0), struct.pack("!H", pid))


def subscribe(version: int, *filters: tuple[str, int], pid: int = 1, **properties: Any) -> bytes:
    body = struct.pack("!H", pid) + (props(**properties) if version == 5 else b"")
    return packet(0x82, body + b"".join(text(name) + bytes([byte]) for name, byte in filters))


def unsubscribe(version: int, *filters: str, pid: int = 1) -> bytes:
    body = struct.pack("!H", pid) + (b"\0" if version == 5 else b"")
    return packet(0xA2, body + b"".join(map(text, filters)))


class Reader(Protocol):
    async def readexactly(self, count: int) -> bytes: ...


_LISTENING: set[asyncio.Task[None]] = set()


class Raw:
    """`heard` says it in words that two brokers can be compared by."""

    def __init__(self, port: int, version: int = 5) -> None:
        self.port = port
        self.version = version
        self.heard: list[str] = []
        self.acks = True
        self.releases = True
        self.reason: int | None = None  # of the broker's DISCONNECT
        self._pings = 0

    async def open(self) -> Raw:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._listening = asyncio.create_task(self._listen())
        _LISTENING.add(self._listening)  # also of a client that a test has no name for
        self._listening.add_done_callback(_LISTENING.discard)
        self._changed = asyncio.Condition()
        return self

    def send(self, *data: bytes) -> None:
        self._writer.write(b"".join(data))

    async def connect(self, client_id: str, **options: Any) -> Raw:
        """Opens and waits for the CONNACK, or for the end."""
        await self.open()
        self.send(connect(self.version, client_id, **options))
        await self.until(lambda: self.heard)
        return self

    async def publish(self, topic: str, payload: bytes, qos: int = 1, **options: Any) -> None:
        """Returns when the broker has dealt with it."""
        self.send(publish(self.version, topic, payload, qos, **options))
        if qos == 2:
            await self.until(lambda: any(one.startswith("PUBREC") for one in self.heard))
            self.send(ack("PUBREL", options.get("pid", 1)))
        await self.ping()

    async def subscribe(self, *filters: tuple[str, int], **properties: Any) -> None:
        self.send(subscribe(self.version, *filters, **properties))
        await self.ping()

    async def ping(self) -> None:
        """Everything said before is dealt with; or the connection is over."""
        wanted = self._pings + 1
        self.send(packet(0xC0))
        await self.until(lambda: self._pings >= wanted or "closed" in self.heard)

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(TIMEOUT), self._changed:
            await self._changed.wait_for(condition)

    async def closed(self) -> None:
        await self.until(lambda: "closed" in self.heard)

    def messages(self) -> list[str]:
        return [one for one in self.heard if one.startswith("PUBLISH")]

    async def drop(self) -> None:
        """Gone without a word."""
        self._writer.transport.abort()
        await self.closed()

    async def leave(self) -> None:
        if "closed" not in self.heard:
            self.send(packet(0xE0))
            await self.closed()

    async def _listen(self) -> None:
        try:
            while True:
                first = (await self._reader.readexactly(1))[0]
                length = shift = 0
                while True:
                    byte = (await self._reader.readexactly(1))[0]
                    length |= (byte & 0x7F) << shift
                    shift += 7
                    if not byte & 0x80:
                        break
                await self._note(first, await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        self._writer.close()
        await self._say("closed")

    async def _say(self, what: str) -> None:
        async with self._changed:
            self.heard.append(what)
            self._changed.notify_all()

    async def _note(self, first: int, body: bytes) -> None:
        kind = TYPES[first >> 4]
        if kind == "PINGRESP":
            async with self._changed:
                self._pings += 1
                self._changed.notify_all()
            return
        if kind == "PUBLISH":
            await self._say(self._message(first, body))
            return
        if kind in ("PUBREC", "PUBREL", "PUBCOMP", "PUBACK"):
            pid = int.from_bytes(body[:2])
            await self._say(f"{kind} {body[2] if len(body) > 2 else 0}")
            if kind == "PUBREL" and self.releases:
                self.send(ack("PUBCOMP", pid))
            return
        if kind == "CONNACK":
            await self._say(f"CONNACK {body[1]} present={body[0]}")
            self.properties = self._properties(body[2:])[0] if len(body) > 2 else {}
            return
        if kind == "DISCONNECT":
            self.reason = body[0] if body else 0
            return
        if kind in ("SUBACK", "UNSUBACK"):
            codes = body[2:]
            if self.version == 5:
                codes = self._properties(codes)[1]
            await self._say(f"{kind} {list(codes)}")
            return
        await self._say(f"{kind} {body!r}")

    def _message(self, first: int, body: bytes) -> str:
        qos = first >> 1 & 3
        size = int.from_bytes(body[:2])
        topic, body = body[2 : 2 + size].decode(), body[2 + size :]
        pid = 0
        if qos:
            pid, body = int.from_bytes(body[:2]), body[2:]
        found: dict[str, Any] = {}
        if self.version == 5:
            found, body = self._properties(body)
        if qos and self.acks:
            self.send(ack("PUBACK" if qos == 1 else "PUBREC", pid))
        self.last_id = pid
        shown = body if len(body) < 100 else f"{len(body)} bytes"
        more = "".join(f" {name}={found[name]}" for name in sorted(found))
        return f"PUBLISH {topic} {shown!r} q{qos} r{first & 1} d{first >> 3 & 1}{more}"

    def _properties(self, body: bytes) -> tuple[dict[str, Any], bytes]:
        length, body = _varint(body)
        inside, rest = body[:length], body[length:]
        found: dict[str, Any] = {}
        while inside:
            name, form = NAMES[inside[0]]
            inside = inside[1:]
            value: Any
            if form == "v":
                value, inside = _varint(inside)
            elif form in "sbp":
                value, inside = _binary(inside)
                if form == "p":
                    second, inside = _binary(inside)
                    value = (value.decode(), second.decode())
                elif form == "s":
                    value = value.decode()
            else:
                size = struct.calcsize("!" + form)
                (value,) = struct.unpack("!" + form, inside[:size])
                inside = inside[size:]
            if name in ("user", "identifier"):
                found.setdefault(name, []).append(value)
            else:
                found[name] = value
        return found, rest


def _varint(data: bytes) -> tuple[int, bytes]:
    value = shift = 0
    for at, byte in enumerate(data):
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, data[at + 1 :]
    raise AssertionError("a varint without end")


def _binary(data: bytes) -> tuple[bytes, bytes]:
    size = int.from_bytes(data[:2])
    return data[2 : 2 + size], data[2 + size :]
