"""What people say about tool calls over HTTP: yes or no before one, what became of one after."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.answering.tool_answers import ToolAnswers
from service.domain import Ear, Wait
from service.errors import ApiError
from service.inbox import Inbox
from tests.e2e.test_waiting import ASK, DOOR, HEAD, LAMP, LIT, PIN, SAY, commands, state, told
from tests.fakes.model import ok, status, tool_calls
from tests.inbox.make import Clock, claim_one, entry
from tests.rig import Rig, counter, eventually, message, rig

UNLOCK = tool_calls([("unlock", {"name": "front"})])


async def say(house: Rig, id: str, **body: Any) -> tuple[int, str | None, dict[str, Any]]:
    answer = await house.http.post(f"/requests/{id}/confirm", json=body)
    document = answer.json()
    code = document["error"]["code"] if answer.status_code != 200 else None
    return answer.status_code, code, document


async def acts(house: Rig) -> list[tuple[str, str, str]]:
    found = (await house.http.get("/acts")).json()["acts"]
    return [(one["act"], one["target"], one["result"]) for one in found]


async def asked(house: Rig, client: Any) -> str:
    """A request whose question is open."""
    house.model.script(UNLOCK, ok("As you said."))
    await client.publish(ASK, b"open the front door")
    return str((await state(house))["id"])


@pytest.mark.parametrize("answer", ["yes", "no"])
async def test_an_operator_answers_for_the_person(any_database: str, answer: str) -> None:
    async with rig(any_database, flows=HEAD + DOOR) as house, house.mqtt("door/#", SAY) as client:
        id = await asked(house, client)
        [wait] = (shown := await house.request(id))["waits"]
        assert wait["asked"] == "May I do this: unlock (name: front)? Answer yes or no."
        assert (wait["open"], wait["pin"], wait["answer"]) == (True, False, None)
        assert (wait["tool"], wait["ear"]) == ("unlock", "confirm")
        [sleeps] = [one for one in shown["timeline"] if one.get("reason") == "person"]
        assert sleeps["until"] is None
        metrics = (await house.http.get("/metrics")).text
        assert counter(metrics, "emqx_gpt_open", flow="home", state="waiting") == 1
        assert [one["id"] for one in await house.requests(state="waiting")] == [id]
        code, _, document = await say(house, id, answer=answer)
        assert (code, document["id"]) == (200, id)
        if answer == "yes":
            assert (await message(client))[0] == "door/front/set"
        assert await message(client) == (SAY, b"As you said.")
        assert len(await commands(house, "door/front/set")) == (answer == "yes")
        [ended] = await house.ended()
        [wait] = (shown := await house.request(id))["waits"]
        assert (wait["open"], wait["answer"], wait["by"]) == (False, answer, "operator")
        [heard] = [one for one in shown["timeline"] if one["what"] == "heard"]
        assert (heard["by"], heard["answer"]) == ("operator", answer)
        assert all(one["until"] for one in shown["timeline"] if one.get("reason") == "person")
        assert (await say(house, id, answer="yes"))[:2] == (409, "not_waiting")
        assert (ended["state"], shown["unsettled"]) == ("done", [])
        assert await acts(house) == [
            ("confirm", id, "not_waiting"),
            ("confirm", f"{id} ({answer})", "ok"),
        ]


async def test_a_pin_is_wanted_and_shown_nowhere(
    any_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    environ = {"DOOR_PIN": "4711"}
    async with (
        rig(any_database, flows=HEAD + PIN, environ=environ) as house,
        house.mqtt("door/#", SAY) as client,
    ):
        id = await asked(house, client)
        assert (await house.request(id))["waits"][0]["pin"] is True
        assert (await say(house, id, answer="yes"))[:2] == (403, "pin_missing")
        assert (await say(house, id, answer="yes", pin=" "))[:2] == (403, "pin_missing")
        assert (await say(house, id, answer="yes", pin="47112"))[:2] == (403, "wrong_pin")
        assert (await house.request(id))["waits"][0]["tries"] == 1
        assert (await say(house, id, answer="yes", pin="4711"))[0] == 200
        assert (await message(client))[0] == "door/front/set"
        await house.ended()
        seen = [json.dumps(await house.request(id)), caplog.text, str(await acts(house))]
        seen += [json.dumps(call.body) for call in house.model.calls]
        assert [text for text in seen if "4711" in text] == []


async def test_the_third_wrong_pin_is_a_no(any_database: str) -> None:
    environ = {"DOOR_PIN": "4711"}
    async with (
        rig(any_database, flows=HEAD + PIN, environ=environ) as house,
        house.mqtt(SAY) as client,
    ):
        id = await asked(house, client)
        for pin in ("1", "yes", "0000"):
            assert (await say(house, id, answer="yes", pin=pin))[:2] == (403, "wrong_pin")
        assert (await message(client))[1] == b"As you said."
        assert told(house.model.calls[1]) == ["refused: the person said no; nothing was done"]
        assert await commands(house, "door/front/set") == []
        assert (await say(house, id, answer="yes", pin="4711"))[:2] == (409, "not_waiting")


async def test_a_no_needs_no_pin_and_a_pin_that_is_not_set_opens_nothing(database: str) -> None:
    async with rig(database, flows=HEAD + PIN) as house, house.mqtt(SAY) as client:
        id = await asked(house, client)
        assert (await say(house, id, answer="yes", pin="4711"))[:2] == (409, "pin_unset")
        assert (await say(house, id, answer="no"))[0] == 200
        assert (await message(client))[1] == b"As you said."


@pytest.mark.parametrize(
    "body",
    [{}, {"answer": "maybe"}, {"answer": True}, {"answer": "yes", "pin": 4711},
     {"answer": "yes", "PIN": "4711"}, {"answer": "yes", "call_id": None}],
)  # fmt: skip
async def test_what_is_no_answer_is_told_without_repeating_it(database: str, body: Any) -> None:
    async with rig(database, flows=HEAD + DOOR) as house:
        status_, code, document = await say(house, "nobody", **body)
        assert (status_, code) == (400, "bad_field")
        assert "4711" not in document["error"]["message"]
        assert (await say(house, "nobody", answer="yes"))[:2] == (404, "not_found")
        settled = await house.http.post("/requests/nobody/settle", json={"outcome": "unknown"})
        assert settled.status_code == 400
        settled = await house.http.post("/requests/nobody/settle", json={"outcome": "refused"})
        assert settled.status_code == 404


async def test_of_several_questions_one_has_to_be_named(any_database: str) -> None:
    clock = Clock()
    async with Inbox(any_database, now=clock) as store:
        await store.add(entry())
        claimed = await claim_one(store)
        begun = [
            Wait(call, Ear.CONFIRM, "a/b", clock.now + 9, {"tool": "unlock"}) for call in ("x", "y")
        ]
        await store.checkpoint(claimed, [], begun=begun)
        tool_answers = ToolAnswers(store, dict, now=clock)

        async def decide(call_id: str | None, id: str = claimed.id) -> str:
            try:
                await tool_answers.decide(id, True, call_id=call_id, pin=None, who="ada")
            except ApiError as error:
                return f"{error.code}: {error.message}"
            return "ok"

        which = await decide(None)
        assert which.startswith("which_call: ")
        assert which.endswith("x, y")
        assert (await decide("z")).startswith("not_waiting")
        assert (await decide(None, "nobody")).startswith("not_waiting")
        assert await decide("y") == "ok"
        assert await decide(None) == "ok"  # one is left
        assert {one.call_id: one.answer for one in await store.waits_of(claimed.seq)} == {
            **dict.fromkeys(("x", "y"), b"yes")
        }
        await store.checkpoint(claimed, [], begun=[Wait("w", Ear.CONFIRM, "a/b", clock.now, {})])
        clock.now += 1
        assert (await decide("w")).startswith("not_waiting")  # its time is over


async def test_what_nobody_knows_is_settled_before_any_retry(any_database: str) -> None:
    flows = HEAD + LAMP + "at_most_once = true\n"
    async with rig(any_database, flows=flows) as house, house.mqtt("lamp/+/set", SAY) as client:
        house.model.script(tool_calls([("lamp", LIT)]), ok("I do not know."))
        await client.publish(ASK, b"light")
        await message(client)
        id = (await state(house))["id"]
        early = await house.http.post(f"/requests/{id}/settle", json={"outcome": "refused"})
        assert (early.status_code, early.json()["error"]["code"]) == (409, "conflict")
        await house.move(20_001)
        [ended] = await house.ended()
        assert (ended["state"], ended["error"]["code"]) == ("failed", "tool_unknown")
        [call] = (shown := await house.request(id))["unsettled"]
        assert (call["tool"], json.loads(call["arguments"])) == ("lamp", LIT)
        assert [one["what"] for one in shown["timeline"]].count("unheard") == 1
        many = await house.http.post("/requests/retry", json={"ids": [id]})

        async def over() -> Any:
            job = (await house.http.get(many.headers["location"])).json()
            return job if job["state"] == "done" else None

        job = await eventually(over)
        assert (job["looked_at"], job["done"]) == (1, 0)
        refused = await house.http.post(f"/requests/{id}/retry")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "unsettled")
        assert f"/requests/{id}/settle" in refused.json()["error"]["message"]
        body = {"outcome": "committed", "call_id": call["call_id"]}
        settled = await house.http.post(f"/requests/{id}/settle", json=body)
        assert settled.status_code == 200, settled.text
        assert settled.json()["unsettled"] == []
        [tool] = [one for one in settled.json()["timeline"] if one["what"] == "tool"]
        assert tool["outcome"] == "unknown"
        assert (tool["settled"]["outcome"], tool["settled"]["by"]) == ("committed", "operator")
        again = await house.http.post(f"/requests/{id}/settle", json={"outcome": "refused"})
        assert (again.status_code, again.json()["error"]["code"]) == (409, "nothing_unsettled")
        assert (await acts(house))[1] == ("settle", f"{id} (committed)", "ok")
        house.model.script(ok("Once more."))
        assert (await house.http.post(f"/requests/{id}/retry")).status_code == 202
        await eventually(lambda: len(house.model.calls) == 3)


async def test_one_that_expired_in_the_middle_is_settled_too(any_database: str) -> None:
    """Its round has no results: the deadline came while it waited for the device."""
    flows = HEAD + 'deadline = "10s"\n' + LAMP + "at_most_once = true\n"
    async with rig(any_database, flows=flows) as house, house.mqtt("lamp/+/set") as client:
        house.model.script(tool_calls([("lamp", LIT)]), status(400))
        await client.publish(ASK, b"light")
        await message(client)
        id = (await state(house))["id"]
        await house.move(20_001)
        await house.ended()
        assert len((await house.request(id))["unsettled"]) == 1
        refused = await house.http.post(f"/requests/{id}/retry")
        assert refused.json()["error"]["code"] == "unsettled"


async def test_who_may_only_look_says_nothing(database: str) -> None:
    async with rig(database, flows=HEAD + DOOR, viewer_token="looking") as house:
        for act, body in (("confirm", {"answer": "yes"}), ("settle", {"outcome": "refused"})):
            answer = await house.http.post(
                f"/requests/x/{act}", json=body, headers={"authorization": "Bearer looking"}
            )
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "viewer")
