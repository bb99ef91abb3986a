"""Free text or odd payloads in, clean fields out."""

from __future__ import annotations

import json

from tests.fakes.model import length, ok, refusal
from tests.rig import message, rig

TOPIC = "parse/tank/in"
GOOD = {"summary": "tank 3", "readings": [{"quantity": "level", "value": 66, "unit": "%"}]}
BAD = {"summary": "tank 3", "readings": [{"quantity": "level", "value": "66 %", "unit": "%"}]}


async def test_the_model_is_given_the_schema_and_its_json_is_the_reply(any_database):
    async with rig(any_database) as house, house.mqtt("parse/tank/out") as device:
        house.model.script(ok(f"```json\n{json.dumps(GOOD, indent=2)}\n```"))
        await device.publish(TOPIC, b"tank 3 abt 66 % full")
        topic, payload = await message(device)
        assert (topic, json.loads(payload)) == ("parse/tank/out", GOOD)
        asked = house.model.calls[0].body["response_format"]
        assert asked["type"] == "json_schema"
        assert asked["json_schema"]["schema"]["required"] == ["readings", "summary"]
        published = house.broker.mqtt.published[-1]
        assert published.properties["Content-Type"] == "application/json"


async def test_json_that_does_not_fit_is_repaired_by_the_model(any_database):
    async with rig(any_database) as house, house.mqtt("parse/tank/out") as device:
        house.model.script(
            ok(json.dumps(BAD), usage=(100, 10)), ok(json.dumps(GOOD), usage=(150, 20))
        )
        await device.publish(TOPIC, b"tank 3 abt 66 % full")
        assert json.loads((await message(device))[1]) == GOOD
        first, second = house.model.calls
        assert second.messages[: len(first.messages)] == first.messages
        wrong, hint = second.messages[-2:]
        assert wrong == {"role": "assistant", "content": json.dumps(BAD)}
        assert "$.readings[0].value" in hint["content"]
        assert '"66 %" is not of type "number"' in hint["content"]
        (request,) = await house.ended()
        shown = await house.request(request["id"])
        assert shown["usage"] == {
            "prompt_tokens": 250, "completion_tokens": 30, "total_tokens": 280
        }  # both were paid for  # fmt: skip
        assert [attempt["result"] for attempt in shown["attempts"]] == ["ok", "ok"]


async def test_json_that_never_fits_is_told_and_not_published(any_database):
    async with rig(any_database) as house, house.mqtt("parse/tank/out") as device:
        house.model.script(ok(json.dumps(BAD), usage=(9, 1)), ok("no JSON", usage=(9, 1)))
        await device.publish(TOPIC, b"tank 3 abt 66 % full")
        said = (await message(device))[1].decode()
        assert said == "No answer: the model's answer does not fit the flow's schema."
        (request,) = await house.ended()
        assert (request["state"], request["error"]["code"]) == ("failed", "model_schema")
        assert len(house.model.calls) == 2
        assert (await house.request(request["id"]))["usage"]["total_tokens"] == 20


async def test_a_refusal_and_half_a_document_are_no_reply_either(database):
    async with rig(database) as house, house.mqtt("parse/tank/out") as device:
        house.model.script(refusal("I can't."), length('{"summary": "tank'))
        await device.publish(TOPIC, b"x")
        assert b"does not fit" in (await message(device))[1]
