"""Strangers on the port: bounded in memory, lines and time, while others are served."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from pathlib import Path
from random import Random

import pytest

from tests.attacks.neighbour import attacker, percentile, waits
from tests.attacks.port import ATTACKS
from tests.process import house
from tests.rig import OPERATOR, WEBHOOK

SECONDS = 2.0
GROWTH = 120 << 20  # bytes, of up to 600 connections; each of these once cost hundreds of MB
PATIENCE = 1.0  # seconds, p99 of the neighbour, on machines busy with other tests


@pytest.mark.parametrize("name", ATTACKS)
async def test_strangers_cost_little_and_stop_nobody(
    tmp_path: Path, name: str, record_property: pytest.RecordProperty
) -> None:
    async with house(tmp_path) as (process, _, _, _):
        await waits(process.port, 1.0)
        before = process.memory()
        attack = attacker("port", name, process.port, SECONDS + 0.5)
        await asyncio.sleep(0.3)  # until it is at work
        waited = await waits(process.port, SECONDS)
        grown = process.memory() - before
        _, said = await asyncio.to_thread(attack.communicate, timeout=60)
        assert attack.returncode == 0, said.decode()
        p99 = percentile(waited, 0.99)
        record_property("p99 in ms", round(p99 * 1000, 1))
        print(f"ATTACK {name}: p50 {percentile(waited, 0.5) * 1000:.1f} ms, "
              f"p99 {p99 * 1000:.1f} ms, {grown / 1e6:.0f} MB")  # fmt: skip
        assert grown < GROWTH
        assert p99 < PATIENCE
        log = process.log.read_text()
        assert "Traceback" not in log
        assert len([line for line in log.splitlines() if "nobody/asked" not in line]) < 20


async def answers(port: int, raw: bytes) -> bytes:
    """All that is said until the service closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    async with asyncio.timeout(20):
        said = await reader.read()
    writer.close()
    return said


HEAD = f"POST /webhook HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {WEBHOOK}\r\n".encode()
BODY = b'{"id": "1", "topic": "a"}'


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"
AMBIGUOUS = {
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
    "length and chunks": CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "chunks and length": HEAD + b"Content-Length: 5\r\n" + CHUNKED[len(HEAD) :] + b"\r\n0\r\n\r\n",
    "gzip": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": CHUNKED + CHUNKED[len(HEAD) :] + b"\r\n0\r\n\r\n",
    "space before the colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a trailer": CHUNKED + b"\r\n0\r\nx: y\r\n\r\n",
    "a long chunk": CHUNKED + b"\r\nfffffffffffffffff\r\n",
    "a signed length": HEAD + b"Content-Length: +5\r\n\r\n12345",
    "a list of lengths": HEAD + b"Content-Length: 5,5\r\n\r\n12345",
    "a long length": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "bare LF": HEAD + b"Content-Length: 5\nx: y\r\n\r\n12345",
    "bare CR": HEAD + b"x: a\rb\r\nContent-Length: 0\r\n\r\n",
    "a folded length": HEAD + b"Content-Length: \r\n 5\r\n\r\n12345",
    "NUL in a name": HEAD + b"x\0y: a\r\nContent-Length: 0\r\n\r\n",
    "two hosts": HEAD + b"Host: y\r\nContent-Length: 0\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "chunks in HTTP/1.0": CHUNKED.replace(b"/1.1", b"/1.0") + b"\r\n0\r\n\r\n",
    "another protocol": HEAD
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}",
    "no such version": b"GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("name", AMBIGUOUS)
async def test_what_two_readers_could_read_in_two_ways_is_refused(
    tmp_path: Path, name: str
) -> None:
    follow = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with house(tmp_path) as (process, _, _, _):
        said = await answers(process.port, AMBIGUOUS[name] + follow)
        assert said.startswith(b"HTTP/1.1 400 ")
        assert b'{"error":{"code":"bad_request"' in said
        assert said.count(b"HTTP/1.1 ") == 1  # what follows is not read


async def test_a_refusal_waits_for_the_answers_before_it(tmp_path: Path) -> None:
    async with house(tmp_path) as (process, _, _, _):
        post = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
        ask = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        said = await answers(process.port, post + ask + post + ask + b"NONSENSE\r\n\r\n" + post)
        statuses = [part[:3] for part in said.split(b"HTTP/1.1 ")[1:]]
        assert statuses == [b"202", b"200", b"202", b"200", b"400"]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"a" * 9_000), b"414"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nx: %b\r\n\r\n" % (b"a" * 60_000), b"431"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (b"a: b\r\n" * 101), b"431"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"408"),
        (HEAD.replace(WEBHOOK.encode(), b"?") + b"Content-Length: 100000\r\n\r\n{", b"401"),
    ],
)
async def test_each_bound_says_what_it_is(tmp_path: Path, raw: bytes, status: bytes) -> None:
    async with house(tmp_path) as (process, _, _, _):
        said = await answers(process.port, raw)
        assert said.startswith(b"HTTP/1.1 " + status)
        assert b'"message":' in said


async def test_a_body_in_chunks_is_taken(tmp_path: Path) -> None:
    async with house(tmp_path) as (process, _, _, _):
        chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (1, BODY[i : i + 1]) for i in range(len(BODY)))
        raw = HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunks
        assert (await answers(process.port, raw + b"0\r\n\r\n")).startswith(b"HTTP/1.1 202")


async def test_requests_one_behind_the_other_are_all_answered_in_turn(tmp_path: Path) -> None:
    """However many a stranger sends at once: they wait, and cost next to nothing meanwhile."""
    async with house(tmp_path) as (process, _, _, _):
        ask = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
        many = b"".join(ask % (b"healthz" if n % 3 else b"nowhere") for n in range(3_000))
        last = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        said = await answers(process.port, many + last)
        statuses = [part[:3] for part in said.split(b"HTTP/1.1 ")[1:]]
        assert statuses[:-1] == [b"200" if n % 3 else b"404" for n in range(3_000)]
        assert len(statuses) == 3_001


async def test_another_protocol_is_not_spoken_and_nothing_is_read_behind_it(tmp_path: Path) -> None:
    async with house(tmp_path) as (process, _, _, _):
        ask = b"GET /healthz HTTP/1.1\r\nHost: x.localhost\r\n%b\r\n"
        upgrade = ask % b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
        said = await answers(process.port, upgrade + ask % b"")
        assert said.startswith(b"HTTP/1.1 200 ")
        assert said.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("token", [WEBHOOK, "wrong"])
async def test_who_waits_to_be_asked_for_the_body_is_told_first(tmp_path: Path, token: str) -> None:
    """Refused, it never sends it: what comes next is a request, and no part of that body."""
    async with house(tmp_path, MAX_BODY="1000") as (process, _, _, _):
        head = HEAD.replace(WEBHOOK.encode(), token.encode()) + b"Expect: 100-continue\r\n"
        said = await answers(process.port, head + b"Content-Length: 5000\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 413 " if token == WEBHOOK else b"HTTP/1.1 401 ")
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(BODY))
        async with asyncio.timeout(20):
            said = await reader.readuntil(b"\r\n\r\n")
            if token == WEBHOOK:
                assert said == b"HTTP/1.1 100 Continue\r\n\r\n"
                writer.write(BODY)
                said = await reader.readuntil(b"\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 202 " if token == WEBHOOK else b"HTTP/1.1 401 ")
        writer.close()


async def test_of_too_many_bodies_on_their_way_the_oldest_gives_way(tmp_path: Path) -> None:
    """Also of those who have the token: one broken sender must not take all memory."""
    async with house(tmp_path) as (process, _, _, _):
        await waits(process.port, 0.5)
        before = process.memory()
        held = []
        for _ in range(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
            writer.write(HEAD + b"Content-Length: 7000000\r\n\r\n" + b" " * 6_000_000)
            await writer.drain()
            held.append((reader, writer))
        async with asyncio.timeout(20):
            said = await held[0][0].read()
        assert said.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: " in said
        await waits(process.port, 0.5)
        assert process.memory() - before < 150 << 20  # of 180 MB
        for _, writer in held:
            writer.close()


EVENTS = (
    f"GET /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OPERATOR}\r\n\r\n".encode()
)
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def test_who_goes_away_leaves_no_open_page_behind(tmp_path: Path) -> None:
    """Also where a request was already waiting behind the stream; 500 pages may be open."""
    async with house(tmp_path) as (process, _, _, _):
        for _ in range(520):
            reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
            writer.write(EVENTS + HEALTH)
            async with asyncio.timeout(20):
                await reader.readuntil(b"event: hello")
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
        writer.write(EVENTS)
        async with asyncio.timeout(20):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()


def _broken_off(seed: int) -> tuple[bytes, bool]:
    """Requests of all kinds, whole and not, one behind the other; and whether to end by a reset."""
    random = Random(seed)
    json = b"Content-Type: application/json\r\n"
    operator = f"Host: localhost\r\nAuthorization: Bearer {OPERATOR}\r\n".encode()
    body = b'{"id": "%d", "topic": "chatgpt/request/a", "flow": "chat", "payload": "x"}' % seed
    kinds = (
        HEAD + json + b"Content-Length: %d\r\n\r\n" % len(body) + body,
        HEAD + b"Content-Length: 900\r\n\r\n" + body,
        b"POST /webhook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n" + body,
        HEALTH,
        EVENTS,
        b"POST /login HTTP/1.1\r\nHost: localhost\r\n" + json + b"Content-Length: 500\r\n\r\n{",
        b"POST /ask/chat HTTP/1.1\r\n" + operator + json + b"Content-Length: 9000\r\n\r\n{",
        b"POST /ask/chat HTTP/1.1\r\n" + operator + b"Expect: 100-continue\r\n" + json
        + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"GET /requests?limit=500 HTTP/1.1\r\n" + operator + b"\r\n",
    )  # fmt: skip
    raw = b"".join(random.choice(kinds) for _ in range(random.randint(1, 5)))
    if random.random() < 0.3:
        raw = raw[: random.randint(1, len(raw))]
    return raw, random.random() < 0.5


async def test_connections_that_break_off_anywhere_leave_no_trace(tmp_path: Path) -> None:
    async def one(port: int, seed: int) -> None:
        raw, reset = _broken_off(seed)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(raw)
        for _ in range(seed % 4):  # some go at once, some after a first answer
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(0.05):
                    await reader.read(100)
        if reset:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with house(tmp_path) as (process, _, _, _):
        for at in range(0, 900, 60):
            await asyncio.gather(*(one(process.port, at + n) for n in range(60)))
        said = await answers(
            process.port, HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        assert said.startswith(b"HTTP/1.1 200 ")
        log = process.log.read_text()
        assert "Traceback" not in log
        assert "internal error" not in log
