"""Questions over HTTP, looking up, retrying: the same inbox and pipeline."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.fakes.model import delay, hang, ok, status
from tests.rig import counter, eventually, message, rig

WAIT = {"prefer": "wait=20"}


async def test_waiting_gets_the_reply(database):
    async with rig(database) as house:
        body = {"text": "hi", "conversation": "ada"}
        answer = await house.http.post("/ask/chat", json=body, headers=WAIT)
        assert answer.status_code == 200
        reply = answer.json()
        assert (reply["text"], reply["conversation"], reply["state"]) == ("echo: hi", "ada", "done")
        assert answer.headers["location"] == f"/requests/{reply['id']}"
        assert not house.broker.mqtt.published  # only on request


async def test_not_waiting_gets_a_place_to_look(database):
    async with rig(database) as house:
        house.model.script(hang())
        answer = await house.http.post("/ask/chat", json={"text": "hi"})
        assert answer.status_code == 202
        location = answer.headers["location"]
        assert (await house.http.get(location)).json()["state"] in ("queued", "answering")
        answer = await house.http.post(
            "/ask/chat", json={"text": "x"}, headers={"prefer": "wait=0"}
        )
        assert answer.status_code == 202
        await house.model.wait_for_calls(1)
        house.model.release()

        async def done():
            return (await house.http.get(location)).json()["state"] == "done"

        await eventually(done)


async def test_the_same_idempotency_key_is_one_request(database):
    async with rig(database) as house:
        headers = {**WAIT, "idempotency-key": "k1"}
        one = await house.http.post("/ask/chat", json={"text": "hi"}, headers=headers)
        two = await house.http.post("/ask/chat", json={"text": "hi"}, headers=headers)
        assert one.json() == two.json()
        assert len(house.model.calls) == 1


async def test_the_same_key_with_another_question_is_refused(database):
    """It lives apart from what a device may call its messages, and from other flows."""
    async with rig(database) as house:
        headers = {**WAIT, "idempotency-key": "k1"}
        first = {"text": "hi", "conversation": "ada"}
        one = await house.http.post("/ask/chat", json=first, headers=headers)
        assert one.status_code == 200
        for other in ({"text": "ho"}, {"conversation": "bob"}, {"publish": True}):
            answer = await house.http.post("/ask/chat", json=first | other, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (422, "key_reused")
        answer = await house.http.post("/ask/story", json={"text": "ho"}, headers=headers)
        assert answer.status_code == 200
        assert len(house.model.calls) == 2


async def test_publish_sends_the_reply_over_mqtt_too(database):
    async with rig(database) as house, house.mqtt("chatgpt/response/ada") as ada:
        body = {"text": "hi", "topic": "chatgpt/request/ada", "publish": True}
        answer = await house.http.post("/ask/chat", json=body, headers=WAIT)
        assert answer.json()["text"] == "echo: hi"
        assert await message(ada) == ("chatgpt/response/ada", b"echo: hi")


async def test_strangers_do_not_share_a_memory(database):
    async with rig(database) as house:
        for text in ("one", "two"):
            await house.http.post("/ask/chat", json={"text": text}, headers=WAIT)
        assert len(house.model.calls[1].body["messages"]) == 2


async def events(house, body, **headers):
    headers = {"accept": "text/event-stream", **headers}
    seen = []
    async with house.http.stream("POST", "/ask/chat", json=body, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                seen.append(line.removeprefix("data: "))
    return seen


async def test_server_sent_events_bring_deltas_then_the_reply_then_done(database):
    async with rig(database) as house:
        house.model.script(ok("one two three four"))
        *deltas, reply, done = await events(house, {"text": "hi"})
        assert done == "[DONE]"
        assert json.loads(reply)["reply"]["text"] == "one two three four"
        pieces = [json.loads(delta)["delta"] for delta in deltas]
        assert len(pieces) > 1
        assert "".join(pieces) == "one two three four"


async def test_a_client_that_goes_away_cancels_nothing(database):
    async with rig(database) as house:
        house.model.script(hang())
        asking = asyncio.create_task(events(house, {"text": "hi"}))
        await house.model.wait_for_calls(1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        house.model.release()
        (request,) = await house.ended()
        assert request["state"] == "done"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, '"text" is missing'),
        ({"text": 5}, '"text" is missing'),
        ({"text": "x", "topic": "other/topic"}, "chatgpt/request/+"),
        ({"text": "x", "publish": "yes"}, '"publish"'),
        ({"text": "x", "words": "x"}, "'words'"),
    ],
)
async def test_a_bad_question_is_told(database, body, words):
    async with rig(database) as house:
        answer = await house.http.post("/ask/chat", json=body)
        assert answer.status_code == 400
        assert words in answer.json()["error"]["message"]
        answer = await house.http.post("/ask/nobody", json={"text": "x"})
        assert answer.status_code == 404
        assert "chat" in answer.json()["error"]["message"]


async def test_a_failure_is_told_with_its_code(database):
    async with rig(database) as house:
        house.model.script(status(400, error_code="bad", message="nope"))
        answer = await house.http.post("/ask/chat", json={"text": "hi"}, headers=WAIT)
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "model_refused"


async def test_look_up_and_retry_of_a_dead_letter(database):
    async with rig(database) as house, house.mqtt("chatgpt/response/ada") as ada:
        house.model.script(status(404, error_code="model_not_found", message="gone"), ok("late"))
        await ada.publish("chatgpt/request/ada", b"hi")
        assert b"shut down" in (await message(ada))[1]
        (dead,) = await house.ended(state="failed")
        shown = await house.request(dead["id"])
        assert shown["payload"] == "hi"
        assert [attempt["result"] for attempt in shown["attempts"]] == ["model_not_found"]
        assert shown["error"]["code"] == "model_not_found"
        answer = await house.http.post(f"/requests/{dead['id']}/retry")
        assert answer.status_code == 202
        assert await message(ada) == ("chatgpt/response/ada", b"late")
        (done,) = await house.ended(state="done")
        shown = await house.request(done["id"])
        assert shown["reply"] == "late"
        assert shown["error"] is None
        assert [attempt["result"] for attempt in shown["attempts"]] == ["model_not_found", "ok"]
        answer = await house.http.post(f"/requests/{dead['id']}/retry")
        assert answer.status_code == 409
        assert (await house.http.get("/requests/none")).status_code == 404


async def test_the_inbox_is_paged_newest_first(database):
    async with rig(database) as house:
        for number in range(5):
            body = {"text": f"q{number}", "conversation": f"c{number}"}
            await house.http.post("/ask/chat", json=body, headers=WAIT)
        seen, before = [], ""
        while True:
            query = {"limit": "2", **({"before": before} if before else {})}
            page = (await house.http.get("/requests", params=query)).json()
            seen += [one["conversation"] for one in page["requests"]]
            before = page["next"]
            if before is None:
                break
        assert seen == ["c4", "c3", "c2", "c1", "c0"]
        for query in ({"state": "gone"}, {"limit": "0"}, {"limt": "5"}):
            answer = await house.http.get("/requests", params=query)
            assert answer.status_code == 400, query


async def test_health_names_its_parts(database):
    async with rig(database) as house:
        assert (await house.http.get("/healthz")).text == "ok\n"
        answer = await house.http.get("/readyz")
        assert (answer.status_code, answer.json()["ready"]) == (200, True)
        house.model.script(status(401, error_code="invalid_api_key", message="no"))
        await house.http.post("/ask/chat", json={"text": "hi"})
        await house.model.wait_for_calls(1)

        async def red():
            return (await house.http.get("/readyz")).status_code == 503

        await eventually(red)
        parts = (await house.http.get("/readyz")).json()
        assert parts["model"]["code"] == "model_unauthorized"
        assert parts["database"] == {"ok": True}
        assert parts["broker"] == {"ok": True}
        text = (await house.http.get("/metrics")).text
        labels = {"model": "gpt-5.4-mini", "result": "model_unauthorized"}
        assert counter(text, "emqx_gpt_model_calls_total", **labels) == 1
        (waiting,) = await house.requests()
        assert waiting["state"] in ("queued", "answering")  # no dead letter


async def test_slow_answers_do_not_hold_up_others(database):
    async with rig(database) as house:
        house.model.behave(
            lambda body: (
                delay(60, ok("slow")) if body["messages"][-1]["content"] == "slow" else ok("quick")
            )
        )
        await house.http.post("/ask/chat", json={"text": "slow", "conversation": "a"})
        await house.model.wait_for_calls(1)
        answer = await house.http.post(
            "/ask/chat", json={"text": "x", "conversation": "b"}, headers=WAIT
        )
        assert answer.json()["text"] == "quick"
