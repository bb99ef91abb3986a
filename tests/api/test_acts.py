"""Retry many, with an edited prompt, forget, export; pause and resume, in all replicas."""

from __future__ import annotations

from typing import Any

import orjson

from tests.api.test_look import ask, found
from tests.rig import Rig, eventually, rig

FLOWS = """
[flows.chat]
request = "chatgpt/request/${user}"
reply = "chatgpt/response/${user}"
model = "gpt-5.4-mini"
deadline = "10m"
"""


async def queue(house: Rig, text: str, user: str) -> str:
    body = {"text": text, "topic": f"chatgpt/request/{user}"}
    answer = await house.http.post("/ask/chat", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def dead(house: Rig, count: int) -> list[str]:
    """So many that came too late, since their flow was paused."""
    assert (await house.http.post("/flows/chat/pause")).status_code == 200
    ids = [await queue(house, f"dead {n}", f"u{n % 7}") for n in range(count)]
    await house.move(601_000)
    await house.ended(count, state="expired")
    assert (await house.http.post("/flows/chat/resume")).status_code == 200
    return ids


async def job_done(house: Rig, body: dict[str, Any]) -> dict[str, Any]:
    answer = await house.http.post("/requests/retry", json=body)
    assert answer.status_code == 202, answer.text

    async def look() -> dict[str, Any] | None:
        job = (await house.http.get(answer.headers["location"])).json()
        return job if job["state"] == "done" else None

    return dict(await eventually(look))


async def test_all_that_a_filter_finds_are_retried(database: str) -> None:
    async with rig(database, flows=FLOWS) as house:
        ids = await dead(house, 30)
        job = await job_done(house, {"filter": {"text": "dead 1"}})
        assert job["done"] == job["looked_at"] == 11
        await eventually(lambda: _states(house, "done", 11))
        job = await job_done(house, {"ids": [ids[0], ids[1], "nobody"]})
        assert job["done"] == 1  # the second was answered already
        await eventually(lambda: _states(house, "done", 12))
        for body in ({}, {"ids": []}, {"ids": [1]}, {"filter": {"state": "done"}},
                     {"filter": {"sate": "x"}}, {"ids": ["a"], "filter": {}},
                     {"filter": {"text": 1}}):  # fmt: skip
            answer = await house.http.post("/requests/retry", json=body)
            assert answer.status_code == 400, body
        acts = (await house.http.get("/acts")).json()["acts"]
        assert ("retry many", "ok") in [(one["act"], one["result"]) for one in acts]


async def _states(house: Rig, state: str, count: int) -> bool:
    return len(await found(house, state=state, limit=500)) == count


async def test_a_dead_letter_is_retried_with_another_text(database: str) -> None:
    async with rig(database, flows=FLOWS) as house:
        [id] = await dead(house, 1)
        answer = await house.http.post(f"/requests/{id}/retry", json={"payload": "better"})
        assert answer.status_code == 202, answer.text
        await eventually(lambda: _states(house, "done", 1))
        shown = await house.request(id)
        assert shown["payload"] == "better"
        assert "better" in shown["reply"]
        assert (await house.http.post(f"/requests/{id}/retry")).status_code == 409
        answer = await house.http.post(f"/requests/{id}/retry", json={"text": "x"})
        assert answer.status_code == 400


async def test_forget_and_export(database: str) -> None:
    async with rig(database, flows=FLOWS) as house:
        first, second = await ask(house, "one"), await ask(house, "two")
        lines = (await house.http.get("/requests/export")).text.splitlines()
        assert [orjson.loads(line)["payload"] for line in lines] == ["two", "one"]
        assert (await house.http.delete(f"/requests/{first}")).json() == {"forgotten": 1}
        assert (await house.http.delete(f"/requests/{first}")).status_code == 404
        lines = (await house.http.get("/requests/export", params={"text": "o"})).text.splitlines()
        assert [orjson.loads(line)["id"] for line in lines] == [second]


async def test_a_paused_flow_waits_and_goes_on(shared_database: str) -> None:
    async with rig(shared_database, flows=FLOWS) as house, house.replica() as other:
        answer = await house.http.post("/flows/chat/pause")
        [paused] = answer.json()["paused"]
        assert (paused["kind"], paused["name"], paused["who"]) == ("flow", "chat", "operator")
        await eventually(lambda: other.controls.flows == {"chat"}, 5)
        id = await queue(house, "hi", "ada")
        beat = max(house.service.worker.beat, other.worker.beat)
        workers = (house.service.worker, other.worker)
        await eventually(lambda: all(one.beat > beat for one in workers))
        shown = await house.request(id)
        assert shown["state"] == "queued"
        assert shown["timeline"][-1]["reason"] == "paused"
        assert (await house.http.post("/flows/chat/resume")).json()["paused"] == []
        await eventually(lambda: _states(house, "done", 1))
        assert (await house.http.post("/flows/nobody/pause")).status_code == 404


async def test_what_was_paused_stays_so_over_a_restart(database: str) -> None:
    async with rig(database, flows=FLOWS) as house:
        assert (await house.http.post("/providers/openai/pause")).status_code == 200
    async with rig(database, flows=FLOWS) as house:
        id = await queue(house, "hi", "ada")
        beat = house.service.worker.beat
        await eventually(lambda: house.service.worker.beat > beat)
        assert (await house.request(id))["state"] == "queued"
        assert house.model.calls == []
        assert (await house.http.post("/providers/openai/resume")).status_code == 200
        await eventually(lambda: _states(house, "done", 1))


async def test_the_timeline_says_what_happened(database: str) -> None:
    async with rig(database, flows=FLOWS, store_prompts=True) as house:
        id = await ask(house, "hi \ud83d".encode("utf-8", "replace").decode())
        shown = await house.request(id)
        whats = [event["what"] for event in shown["timeline"]]
        assert whats[:2] == ["received", "stored"]
        assert {"begun", "attempt", "answered", "ended"} <= set(whats)
        times = [event["at"] for event in shown["timeline"]]
        assert times == sorted(times)
        assert len(shown["prompt_hash"]) == 16
        assert shown["prompt"][-1]["role"] == "user"
        other = await house.request(await ask(house, "another"))
        assert other["prompt_hash"] != shown["prompt_hash"]
    async with rig(database, flows=FLOWS) as house:
        shown = await house.request(await ask(house, "hi"))
        assert shown["prompt"] is None
        assert shown["prompt_hash"]
