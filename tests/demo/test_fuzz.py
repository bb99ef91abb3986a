"""A thousand broken packets and frames: nothing stops, nothing slows, nothing gets through."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable

import pytest
from websockets.frames import Frame, Opcode

from service.demo.standin.broker import StandIn
from service.demo.standin.mqtt_broker import client_connection
from tests.demo.raw_mqtt import (
    Raw,
    ack,
    connect,
    packet,
    props,
    publish,
    subscribe,
    unsubscribe,
)
from tests.demo.webhook import until

COUNT = 1000
UPGRADE = (
    b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
)


def good(rng: random.Random, version: int) -> bytes:
    """A packet as a client would send it, with something of everything."""
    topic, payload = rng.choice(["a", "a/b", "$SYS/x", ""]), rng.randbytes(rng.choice([0, 3, 300]))
    qos, pid = rng.randrange(3), rng.randrange(65536)
    kinds: list[Callable[[], bytes]] = [
        lambda: publish(version, topic, payload, qos, pid, retain=rng.random() < 0.2),
        lambda: publish(5, topic, payload, qos, pid, alias=rng.randrange(9), expiry=pid),
        lambda: publish(5, topic, b"", qos, pid, user=[("a", "b")], correlation=b"\0\xff"),
        lambda: subscribe(version, (rng.choice(["a/#", "+", "$share/g/a"]), rng.randrange(64))),
        lambda: unsubscribe(version, "a/#", pid=pid),
        lambda: ack(rng.choice(["PUBACK", "PUBREC", "PUBREL", "PUBCOMP"]), pid),
        lambda: packet(0xC0),
        lambda: packet(0xE0, b"\0" + props(session_expiry=pid)),
        lambda: connect(version, "again"),
        lambda: packet(0xF0, b"\x18" + props(method="x", data=b"y")),
    ]
    return rng.choice(kinds)()


def broken(rng: random.Random, version: int) -> bytes:
    """Some packets, one of them damaged."""
    data = bytearray(b"".join(good(rng, version) for _ in range(rng.randrange(1, 4))))
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data))
        match rng.randrange(6):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at:]
            case 2:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 3:
                data[at : at + 4] = b"\xff\xff\xff\xff"
            case 4:
                del data[at : at + rng.randrange(1, 9)]
            case _:
                data = bytearray(rng.randbytes(rng.randrange(1, 200)))
        data = data or bytearray(b"\0")
    return bytes(data)


def frames(rng: random.Random, data: bytes) -> bytes:
    """The bytes in WebSocket frames: cut anywhere, empty ones between, or damaged."""
    found = b""
    while data or rng.random() < 0.5:
        size = rng.randrange(len(data) + 1)
        opcode = rng.choice([Opcode.BINARY] * 6 + [Opcode.CONT, Opcode.TEXT, Opcode.PING])
        if opcode is Opcode.PING:
            found += Frame(opcode, b"").serialize(mask=True)
            continue
        found += Frame(opcode, data[:size], fin=rng.random() < 0.9).serialize(mask=True)
        data = data[size:]
    if rng.random() < 0.2:
        found += rng.choice([b"", rng.randbytes(20), Frame(Opcode.CLOSE, b"").serialize(mask=True)])
    return found


async def send(port: int, data: bytes) -> None:
    """Sends, and waits until the broker has hung up or has had its say."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 20)
    except ConnectionError:
        pass
    finally:
        await hang_up(writer)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize("listener", ["tcp", "websocket"])
async def test_broken_packets(
    broker: StandIn, listener: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    rng = random.Random(listener)
    port = broker.mqtt_port if listener == "tcp" else broker.ws_port
    watcher = await Raw(broker.mqtt_port, 5).connect("watcher")
    await watcher.subscribe(("watch", 1))
    healthy = await Raw(broker.mqtt_port, 4).connect("healthy")

    async def attack(number: int) -> None:
        version = rng.choice([4, 5])
        will = ("will", b"x", 1, False) if number % 10 == 0 else None
        hello = connect(version, f"bad{number % 50}", will=will, clean=number % 3 > 0)
        data = (hello if number % 8 else b"") + broken(rng, version)
        await send(port, data if listener == "tcp" else UPGRADE + frames(rng, data))

    for start in range(0, COUNT, 50):
        await asyncio.gather(*(attack(number) for number in range(start, start + 50)))
        await healthy.publish("watch", b"%d" % start)
    await watcher.until(lambda: len(watcher.messages()) == COUNT // 50)
    assert [one.split()[2] for one in watcher.messages()] == [
        repr(b"%d" % start) for start in range(0, COUNT, 50)
    ]
    await watcher.leave()
    await healthy.leave()
    await until(lambda: not broker.mqtt.connection_count)
    used = time.process_time()
    await asyncio.sleep(1)
    assert time.process_time() - used < 0.5  # nothing goes on by itself
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_half_a_handshake_and_garbage_instead_of_one(broker: StandIn) -> None:
    rng = random.Random(1)
    for number in range(200):
        data = rng.randbytes(300) if number % 2 else UPGRADE[: rng.randrange(len(UPGRADE))]
        await send(broker.ws_port, data)
    for path in ("/mqtt/x", "/ws"):
        request = UPGRADE.replace(b"/mqtt", path.encode(), 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", broker.ws_port)
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(), 20)
        await hang_up(writer)
        assert b" 404 " in answer
        assert b"MQTT is at /mqtt" in answer


async def test_a_publish_cut_off_in_a_frame_is_never_published(broker: StandIn) -> None:
    hello, message = connect(4, "dev"), publish(4, "a", b"x" * 500, 1)
    for cut in (10, len(message) - 1):
        stream = b"".join(
            Frame(Opcode.BINARY, data).serialize(mask=True) for data in (hello, message[:cut], b"")
        )
        stream += Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True)
        await send(broker.ws_port, UPGRADE + stream)
    assert not broker.mqtt.published


async def test_one_byte_at_a_time(broker: StandIn) -> None:
    client = await Raw(broker.mqtt_port, 5).connect("slow")
    for byte in publish(5, "a", b"hello", 1, content_type="text/plain"):
        client.send(bytes([byte]))
        await asyncio.sleep(0)
    await client.ping()
    assert [message.payload for message in broker.mqtt.published] == [b"hello"]
    await client.leave()


async def test_a_client_that_does_not_read_holds_up_nobody(broker: StandIn) -> None:
    deaf_reader, deaf = await asyncio.open_connection("127.0.0.1", broker.mqtt_port)
    deaf.write(connect(4, "deaf", clean=False) + subscribe(4, ("#", 1)))
    await deaf_reader.readexactly(4 + 5)
    deaf.transport.pause_reading()  # type: ignore[attr-defined]
    other = await Raw(broker.mqtt_port, 4).connect("other")
    await other.subscribe(("#", 0))
    for number in range(60):
        await other.publish("t", b"x" * 900_000, pid=number + 1)
    await other.until(lambda: len(other.messages()) == 60)
    session = broker.mqtt.sessions["deaf"]
    assert session.outbox.queued_bytes <= 32 * 1024 * 1024
    assert session.outbox.dropped
    await hang_up(deaf)
    await other.leave()


class Deaf:
    """A socket that never gets rid of anything."""

    peer = ("127.0.0.1", 1)
    is_writable = True

    def __init__(self) -> None:
        self.kept = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.kept += data

    def unsent(self) -> int:
        return len(self.kept)

    def close(self) -> None:
        self.closed = True


async def test_what_nobody_reads_is_bounded(
    broker: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_connection, "MAX_UNREAD", 10_000)
    deaf = Deaf()
    client = broker.mqtt.accept(deaf)
    client.receive(connect(4, "deaf"))
    for _ in range(100):
        client.receive(packet(0xC0) * 100)
    assert deaf.closed
    assert len(deaf.kept) < 11_000
    assert "deaf" not in broker.mqtt.sessions
