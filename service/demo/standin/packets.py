"""The first packet of an MQTT connection, read before amqtt sees it."""

from __future__ import annotations

from dataclasses import dataclass

from amqtt.adapters import ReaderAdapter

MAX_PACKET_SIZE = 1024 * 1024  # EMQX's mqtt.max_packet_size, 1MB
_MAX_CONNECT = 256 * 1024
_CONNECT = 0x10


@dataclass(frozen=True, slots=True)
class Handshake:
    """A CONNECT: the protocol's level (4 is MQTT 3.1.1), the client's name, all bytes read."""

    level: int
    client_id: str
    read: bytes


async def read_connect(reader: ReaderAdapter) -> Handshake | None:
    """The connection's CONNECT; None when something else comes. Raises what the reader does."""
    head = await reader.read(1)
    if not head or head[0] != _CONNECT:
        return None
    length = shift = 0
    while True:
        byte = await reader.read(1)
        if not byte or shift > 21:
            return None
        head += byte
        length |= (byte[0] & 0x7F) << shift
        shift += 7
        if not byte[0] & 0x80:
            break
    if not 10 <= length <= _MAX_CONNECT:
        return None
    body = await reader.read(length)
    try:
        level, client_id = _parse(body)
    except (IndexError, ValueError):
        return None
    return Handshake(level, client_id, head + body)


def _parse(body: bytes) -> tuple[int, str]:
    at = 2 + int.from_bytes(body[:2])  # past the protocol's name
    level = body[at]
    at += 4  # level, flags, keep alive
    if level == 5:  # properties come first
        size = shift = 0
        while True:
            size |= (body[at] & 0x7F) << shift
            shift += 7
            at += 1
            if not body[at - 1] & 0x80:
                break
        at += size
    length = int.from_bytes(body[at : at + 2])
    return level, body[at + 2 : at + 2 + length].decode("utf-8", "replace")


class Replay(ReaderAdapter):  # type: ignore[misc]  # amqtt is not typed
    """Gives back what was read already, then the rest; refuses packets over the limit."""

    def __init__(self, first: bytes, rest: ReaderAdapter) -> None:
        self._first = first
        self._rest = rest

    async def read(self, n: int = -1) -> bytes:
        if n > MAX_PACKET_SIZE:
            raise ConnectionError("packet too large")
        if self._first:
            taken, self._first = self._first[:n], self._first[n:]
            return taken
        data: bytes = await self._rest.read(n)
        return data

    def feed_eof(self) -> None:
        self._rest.feed_eof()
