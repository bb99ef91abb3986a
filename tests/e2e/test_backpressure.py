"""When nothing can be stored EMQX is told to keep its messages, in time; nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time

import asyncpg
import pytest

from service.inbox import sqlite
from tests.fakes.model import hang, ok
from tests.rig import counter, eventually, message, rig

TOPIC = "chatgpt/request/ada"


class Lock:
    """Another program that holds SQLite's write lock."""

    def __init__(self, database: str) -> None:
        path = database.removeprefix("sqlite:///")
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=10)

    def __enter__(self) -> Lock:
        self._connection.execute("BEGIN IMMEDIATE")
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.rollback()
        self._connection.close()


async def refused_in_time(house):
    """Twenty webhooks at once: all get 503, so that EMQX keeps them, within 5 s."""

    async def post(number):
        began = time.monotonic()
        body = {"id": str(number), "topic": TOPIC, "payload": "x", "flow": "chat"}
        return await house.webhook(body), time.monotonic() - began

    for answer, took in await asyncio.gather(*(post(number) for number in range(20))):
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["code"] == "store_busy"
        assert took < 5


async def test_while_the_database_is_locked_webhooks_get_503_in_time(database):
    async with rig(database) as house:
        with Lock(database):
            await refused_in_time(house)
            ready = await house.http.get("/readyz")
            assert ready.status_code == 503
            assert ready.json()["database"]["code"] == "store_busy"
            assert (await house.http.get("/metrics")).status_code == 200
            assert (await house.http.get("/healthz")).status_code == 200
        answer = await house.webhook({"id": "0", "topic": TOPIC, "payload": "x", "flow": "chat"})
        assert answer.json() == {"accepted": 1, "duplicates": 0}  # nothing of it was stored
        await house.ended()
        assert (await house.http.get("/readyz")).status_code == 200


@contextlib.asynccontextmanager
async def locked(url):
    """Somebody's transaction in PostgreSQL that locks all tables."""
    other = await asyncpg.connect(url)
    try:
        found = await other.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        names = ", ".join(row["tablename"] for row in found)
        lock = f"BEGIN; LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"
        while True:
            try:
                await other.execute(lock)
                break
            except asyncpg.DeadlockDetectedError:  # with what the service was doing
                await other.execute("ROLLBACK")
        yield
    finally:
        await other.close()


async def test_while_postgresql_is_locked_webhooks_get_503_in_time(shared_database):
    """A migration, or somebody's forgotten transaction."""
    async with rig(shared_database) as house:
        async with locked(shared_database):
            await refused_in_time(house)
            ready = await house.http.get("/readyz")
            assert ready.status_code == 503
            assert ready.json()["database"]["ok"] is False
            assert (await house.http.get("/metrics")).status_code == 200
            assert (await house.http.get("/healthz")).status_code == 200
        body = {"id": "late", "topic": TOPIC, "payload": "x", "flow": "chat"}
        assert (await house.webhook(body)).status_code == 202
        await house.ended()


async def test_emqx_keeps_what_came_while_the_database_was_locked(database):
    async with rig(database) as house, house.mqtt("chatgpt/response/ada") as ada:
        with Lock(database):
            for number in range(3):
                await ada.publish(TOPIC, f"q{number}".encode())

            async def refused():
                text = (await house.http.get("/metrics")).text
                return counter(text, "emqx_gpt_refused_total", code="store_busy")

            await eventually(refused)
        heard = [(await message(ada))[1] for _ in range(3)]
        assert heard == [b"echo: q0", b"echo: q1", b"echo: q2"]


async def test_an_answer_that_comes_while_the_database_is_locked_is_not_paid_for_again(database):
    async with rig(database) as house, house.mqtt("chatgpt/response/ada") as ada:
        house.model.script(hang(ok("dear")))
        await ada.publish(TOPIC, b"hi")
        await house.model.wait_for_calls(1)
        with Lock(database):
            house.model.release()
            await house.model.wait_idle()
            await eventually(lambda: house.service.store.trouble is not None)
        assert (await message(ada))[1] == b"dear"
        (request,) = await house.ended()
        assert request["state"] == "done"
        assert len(house.model.calls) == 1


async def test_a_full_database_is_503_and_what_was_accepted_is_answered(database, monkeypatch):
    monkeypatch.setattr(sqlite, "_PRAGMAS", (*sqlite._PRAGMAS, "max_page_count=120"))
    async with rig(database) as house, house.mqtt("chatgpt/response/#") as client:
        house.model.behave(lambda body: ok("well"))
        codes = []
        while 503 not in codes:
            number = len(codes)
            body = {"id": str(number), "topic": f"chatgpt/request/u{number}", "flow": "chat"}
            answer = await house.webhook({**body, "payload": "x" * 20_000})
            codes.append(answer.status_code)
        *accepted, _ = codes
        assert set(accepted) == {202}
        assert len(accepted) >= 5
        assert int(answer.headers["retry-after"]) >= 1
        writer = house.service.store._engine._database._threads[0]
        await writer.run(
            lambda link: link.driver.execute("PRAGMA max_page_count=100000").fetchall()
        )
        heard = {(await message(client))[0] for _ in accepted}
        assert len(heard) == len(accepted)
        ends = await house.ended(len(accepted))
        assert {one["state"] for one in ends} == {"done"}
        assert len(house.model.calls) == len(accepted)  # no reply that did not fit was lost


async def test_a_full_backlog_is_kept_by_emqx_and_answered_later(any_database):
    settings = {"max_backlog": 2, "max_concurrency": 1}
    async with rig(any_database, **settings) as house, house.mqtt("chatgpt/response/#") as client:
        house.model.script(hang())
        for number in range(6):
            await client.publish(f"chatgpt/request/u{number}", f"q{number}".encode())

        async def refused():
            text = (await house.http.get("/metrics")).text
            return counter(text, "emqx_gpt_refused_total", code="backlog_full")

        await eventually(refused)
        assert len(await house.stored(2)) == 2
        house.model.release()
        heard = {(await message(client))[1] for _ in range(6)}
        assert heard == {f"echo: q{number}".encode() for number in range(6)}


async def test_http_questions_hear_of_a_full_backlog_too(database):
    async with rig(database, max_backlog=1) as house:
        house.model.script(hang())
        assert (await house.http.post("/ask/chat", json={"text": "x"})).status_code == 202
        answer = await house.http.post("/ask/chat", json={"text": "y"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "backlog_full")
        assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("chunk", [b"", b'{"id": "1", "topic": '])
async def test_a_caller_that_sends_half_a_body_is_not_waited_for(database, chunk):
    async with rig(database) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        head = (
            b"POST /webhook HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer webhook-token\r\n"
        )
        writer.write(head + b"content-length: 100\r\n\r\n" + chunk)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        body = {"id": "1", "topic": TOPIC, "payload": "x", "flow": "chat"}
        assert (await house.webhook(body)).status_code == 202
        assert await reader.read() == b""


async def test_pipelined_webhooks_are_answered_in_turn(any_database):
    """As EMQX sends them: up to a hundred on one connection before the first answer."""
    async with rig(any_database) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        head = (
            b"POST /webhook HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer webhook-token\r\n"
        )
        for number in range(50):
            text = b'{"id": "%d", "topic": "chatgpt/request/u%d", "payload": "x"}'
            body = text % (number % 40, number)
            if number == 20:
                body = b"no JSON"
            writer.write(head + b"content-length: %d\r\n\r\n%s" % (len(body), body))
        codes = []
        accepted = 0
        for _ in range(50):
            lines = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).split(b"\r\n")
            codes.append(int(lines[0].split()[1]))
            length = next(line for line in lines if line.lower().startswith(b"content-length"))
            answer = await reader.readexactly(int(length.split(b":")[1]))
            accepted += b'"accepted":1' in answer
        assert codes == [202] * 20 + [400] + [202] * 29
        assert accepted == 40 - 1  # forty ids, one of which came as no JSON
        writer.close()
        await writer.wait_closed()
        await house.ended(39)
