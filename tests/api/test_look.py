"""GET /requests with its filters, and GET /events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import orjson

from service.operations import live
from tests.api.conftest import QUICK
from tests.fakes.model import hang, status
from tests.rig import Rig, eventually, rig


async def ask(house: Rig, text: str, flow: str = "chat", **more: Any) -> str:
    body = {"text": text, "topic": f"chatgpt/request/{more.pop('user', 'ada')}", **more}
    answer = await house.http.post(f"/ask/{flow}", json=body, headers={"prefer": "wait=30"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def found(house: Rig, **query: Any) -> list[str]:
    return [one["id"] for one in await house.requests(**query)]


CHAT = """
[flows.chat]
request = "chatgpt/request/${user}"
reply = "chatgpt/response/${user}"
"""


async def test_filters(database: str) -> None:
    # Not the shipped flows: one of them asks at seven, and the clock may jump over that.
    async with rig(database, flows=CHAT) as house:
        first = await ask(house, "Is the Window open? 100% _sure_", user="ada")
        house.clock.ahead += 3_600_000
        middle = house.clock()
        house.clock.ahead += 3_600_000
        second = await ask(house, "什么 tür?", user="bob")
        assert await found(house) == [second, first]
        assert await found(house, text="wINDOW") == [first]
        assert await found(house, text="request/BOB") == [second]
        assert await found(house, text="什么") == [second]
        assert await found(house, text="100%") == [first]
        assert await found(house, text="w_ndow") == []
        assert await found(house, text="o' OR 1=1 --") == []
        assert await found(house, flow="chat", conversation="bob") == [second]
        assert await found(house, conversation="bob") == [second]
        assert await found(house, until=middle) == [first]
        assert await found(house, since=middle) == [second]
        assert await found(house, since=middle, text="window") == []
        assert await found(house, state="done", flow="chat") == [second, first]
        assert await found(house, state="failed") == []
        assert await found(house, error="expired") == []
        said = (await house.requests())[0]["said"]
        assert second in await found(house, text=said[:4].upper())


async def test_what_a_query_can_not_say(database: str) -> None:
    async with rig(database) as house:
        for query in (
            {"sate": "done"},
            {"state": "dead"},
            {"limit": "0"},
            {"limit": "501"},
            {"limit": "-1"},
            {"before": "x"},
            {"before": str(2**63)},
            {"since": "yesterday"},
            {"until": "2026-99-01"},
            {"text": "x" * 201},
        ):
            answer = await house.http.get("/requests", params=query)
            assert answer.status_code == 400, query
            error = answer.json()["error"]
            assert error["code"] == "bad_parameter"
            assert next(iter(query)) in error["message"]


async def test_pages_hold_while_requests_arrive(database: str) -> None:
    async with rig(database) as house:
        old = [await ask(house, f"old {n}", user=f"u{n}") for n in range(5)]
        seen: list[str] = []
        before: dict[str, int] = {}
        while True:
            page = (await house.http.get("/requests", params={"limit": 2, **before})).json()
            seen += [one["id"] for one in page["requests"]]
            if page["next"] is None:
                break
            before = {"before": page["next"]}
            await ask(house, "new", user="new")
        assert seen == old[::-1]


@contextlib.asynccontextmanager
async def events(house: Rig) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
    async with house.http.stream("GET", "/events") as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _parsed(answer)


async def _parsed(answer: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    name = ""
    async for line in answer.aiter_lines():
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, orjson.loads(line[6:])


async def test_events_tell_of_a_request_until_its_end(database: str) -> None:
    async with rig(database) as house, events(house) as stream:
        name, data = await anext(stream)
        assert name == "hello"
        assert data["totals"]["open"] == 0
        id = await ask(house, "hi")
        async with asyncio.timeout(20):
            while True:
                name, data = await anext(stream)
                assert name == "changes"
                told = {one["id"]: one["state"] for one in data["requests"]}
                if told.get(id) == "done":
                    break
        assert data["totals"]["open"] == 0


async def test_events_tell_what_waits_how_the_parts_are_and_what_came_last(database: str) -> None:
    async with rig(database) as house:
        house.model.behave(lambda body: hang())
        async with house.mqtt() as client:
            await client.publish("chatgpt/request/ada", b"x" * 1000)
        await house.model.wait_for_calls(1)
        async with events(house) as stream:
            name, data = await anext(stream)
            assert name == "hello"
            assert data["totals"]["states"] == {"answering": 1}
            assert data["totals"]["flows"] == {"chat": {"answering": 1}}
            assert {part: one["ok"] for part, one in data["links"].items()} == {
                "database": True,
                "broker": True,
                "model": True,
            }
            (latest,) = data["latest"]
            assert (latest["conversation"], latest["state"]) == ("ada", "answering")
            assert latest["text"] == "x" * 120
            assert data["paused"] == []
        house.model.release()
        await house.ended(1)


async def test_events_end_with_the_service(database: str) -> None:
    async with rig(database) as house, events(house) as stream:
        await anext(stream)
        draining = asyncio.create_task(house.service.drain())
        async with asyncio.timeout(20):
            async for _ in stream:
                pass
        await draining
        assert (await house.http.get("/events")).status_code == 503


async def test_events_of_another_replica(shared_database: str) -> None:
    async with rig(shared_database) as house, house.replica() as other, events(house) as stream:
        await anext(stream)
        flow = other.flows.flows["chat"]
        await other.intake.ask(
            flow, "hi", topic="chatgpt/request/eve", conversation=None, publish=False, key=None,
            id="f" * 32,
        )  # fmt: skip
        async with asyncio.timeout(20):
            while "f" * 32 not in {one["id"] for one in (await anext(stream))[1]["requests"]}:
                pass


def test_a_page_that_does_not_read_is_dropped() -> None:
    page = live.OpenPage()
    taken = [page.put(b"x") for _ in range(live.BEHIND + 3)]
    assert taken == [True] * live.BEHIND + [False] * 3


async def test_a_closed_page_costs_nothing_more(database: str) -> None:
    async with rig(database) as house:
        async with events(house) as stream:
            await anext(stream)
            assert house.service.live.pages == 1
        await eventually(lambda: house.service.live.pages == 0)


async def test_who_waits_for_a_model_that_is_not_called_sees_why(database: str) -> None:
    policy = replace(QUICK, account_pause=2.0)
    async with rig(database, max_attempts=8, policy=policy) as house:
        house.model.behave(lambda body: status(401, message="no such key"))
        async with house.mqtt() as client:
            await client.publish("chatgpt/request/ada", b"first")
            await eventually(lambda: house.service.breakers.states())
            await client.publish("chatgpt/request/bob", b"second")

            async def waits() -> Any:
                found = await house.requests(conversation="bob")
                if not found:
                    return None
                timeline = (await house.request(found[0]["id"]))["timeline"]
                now = [one for one in timeline if one["what"] == "waited" and one["until"] is None]
                # It may just have been asked, when the circuit was tried.
                return [one for one in now if one["reason"] == "circuit"]

            (wait,) = await eventually(waits)
            assert (wait["reason"], wait["code"]) == ("circuit", "model_unauthorized")
        house.model.behave(None)
        await house.ended(2)
