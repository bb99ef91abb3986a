"""Webhooks pipelined on one connection, as EMQX sends them: in hand at once, answered in turn."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from service.inbox import Inbox
from tests.fakes.model import hang
from tests.rig import WEBHOOK, eventually, rig


def post(id: str, *, token: str = WEBHOOK, path: str = "/webhook", payload: str = "x") -> bytes:
    fields = {"id": id, "topic": "chatgpt/request/ada", "payload": payload, "flow": "chat"}
    body = json.dumps(fields).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self) -> tuple[int, bytes]:
        async with asyncio.timeout(20):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head.decode().lower().split("\r\n")
            length = next(int(x.split(":")[1]) for x in lines if x.startswith("content-length"))
            return int(lines[0].split()[1]), await self.reader.readexactly(length)

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def connect(port: int) -> Connection:
    return Connection(*await asyncio.open_connection("127.0.0.1", port))


async def test_answers_come_in_the_order_of_the_requests_whatever_they_are(database):
    async with rig(database) as house:
        house.model.behave(lambda body: hang())
        line = await connect(house.port)
        line.writer.write(
            post("1")
            + post("2", token="wrong")
            + post("1")
            + get("/healthz")
            + post("3")
            + get("/nowhere")
            + post("4", payload="y" * 2_000_000)
            + post("5")
        )
        answers = [await line.answer() for _ in range(8)]
        assert [status for status, _ in answers] == [202, 401, 202, 200, 202, 404, 202, 202]
        assert [json.loads(answers[n][1])["duplicates"] for n in (0, 2, 4, 6, 7)] == [0, 1, 0, 0, 0]
        assert answers[3][1] == b"ok\n"
        assert len(await house.requests()) == 4
        await line.close()
        house.model.release()


async def test_pipelined_webhooks_share_a_commit(database, monkeypatch):
    batches = []
    plain = Inbox.add

    async def counted(self, entry):
        batches.append(entry.message.id)
        return await plain(self, entry)

    monkeypatch.setattr(Inbox, "add", counted)
    async with rig(database) as house:
        house.model.behave(lambda body: hang())
        line = await connect(house.port)
        line.writer.write(b"".join(post(f"m{number}") for number in range(100)))
        # All of them are with the store before the first is answered.
        assert (await line.answer())[0] == 202
        assert len(batches) == 100
        for _ in range(99):
            assert (await line.answer())[0] == 202
        await line.close()
        house.model.release()


async def test_a_request_in_pieces_and_a_caller_that_goes_away(database):
    async with rig(database) as house:
        house.model.behave(lambda body: hang())
        line = await connect(house.port)
        whole = post("pieces")
        for at in range(0, len(whole), 7):
            line.writer.write(whole[at : at + 7])
            await line.writer.drain()
        assert (await line.answer())[0] == 202
        line.writer.write(post("gone") + post("half")[:-3])
        await line.writer.drain()
        await line.close()
        await eventually(lambda: house.service.store.backlog == 2)
        assert len(await house.requests()) == 2  # what had come whole
        house.model.release()


async def test_more_than_a_connection_may_hold_is_read_later_and_none_is_lost(database):
    async with rig(database, max_backlog=10_000) as house:
        house.model.behave(lambda body: hang())
        line = await connect(house.port)
        many = 1500

        async def write() -> None:
            for number in range(many):
                line.writer.write(post(f"m{number}", payload="z" * 5000))
                await line.writer.drain()

        writing = asyncio.create_task(write())
        for _ in range(many):
            assert (await line.answer())[0] == 202
        await writing
        assert house.service.store.backlog == many
        await line.close()
        house.model.release()


def unusual(id: str, head: str, *, body: bytes | None = None) -> bytes:
    """A webhook whose head is not like the one before it."""
    whole = post(id) if body is None else body
    return whole.replace(b"host: localhost\r\n", f"host: localhost\r\n{head}".encode())


def mixed(turn: random.Random, count: int) -> list[tuple[bytes, int]]:
    """Requests, most of them alike, and what each is to be answered."""
    found = []
    for number in range(count):
        name = f"m{number}"
        long = post(name, payload="x" * turn.randrange(3000))
        chunks = unusual(name, "transfer-encoding: chunked\r\n")
        head, _, body = chunks.partition(b"\r\n\r\n")
        head = b"\r\n".join(line for line in head.split(b"\r\n") if b"content-length" not in line)
        chunked = head + b"\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        found.append(
            turn.choice(
                [
                    *[(post(name), 202), (long, 202)] * 4,
                    (post(name, token="wrong"), 401),
                    (unusual(name, "x-one: 1\r\n"), 202),
                    (unusual(name, "origin: http://elsewhere.example\r\n"), 400),
                    (chunked, 202),
                    (get("/healthz"), 200),
                    (b"\r\n" + post(name), 202),
                ]
            )
        )
    return found


@pytest.mark.parametrize("seed", range(6))
async def test_heads_that_come_again_mean_the_same_wherever_the_stream_is_cut(database, seed):
    turn = random.Random(seed)
    requests = mixed(turn, 150)
    stream = b"".join(request for request, _ in requests)
    async with rig(database) as house:
        house.model.behave(lambda body: hang())
        line = await connect(house.port)

        async def write() -> None:
            at = 0
            while at < len(stream):
                end = at + turn.choice((1, 50, 400, 5000, 40_000))
                line.writer.write(stream[at:end])
                await line.writer.drain()
                await asyncio.sleep(0)
                at = end

        writing = asyncio.create_task(write())
        assert [(await line.answer())[0] for _ in requests] == [status for _, status in requests]
        await writing
        taken = sum(
            request.lstrip()[:4] == b"POST" and status == 202 for request, status in requests
        )
        assert len(await house.requests(limit=200)) == taken
        await line.close()
        house.model.release()


async def test_what_follows_a_head_that_is_known_is_its_body_and_nothing_else(database):
    """A body that reads like requests, and one that is too short for its head."""
    async with rig(database) as house:
        house.model.behave(lambda body: hang())
        line = await connect(house.port)
        hidden = post("hidden").decode()
        for _ in range(2):
            line.writer.write(post("a", payload=hidden) + post("b"))
            assert [(await line.answer())[0] for _ in range(2)] == [202, 202]
        line.writer.write(post("b")[:-9])  # its head is known; the rest never comes
        await line.writer.drain()
        await line.close()
        assert len(await house.requests()) == 2
        house.model.release()
