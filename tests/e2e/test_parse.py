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
        house.model.script(ok(json.dumps(BAD)), ok(json.dumps(GOOD)))
        await device.publish(TOPIC, b"tank 3 abt 66 % full")
        assert json.loads((await message(device))[1]) == GOOD
        first, second = house.model.calls
        assert second.messages[: len(first.messages)] == first.messages
        wrong, hint = second.messages[-2:]
        assert wrong == {"role": "assistant", "content": json.dumps(BAD)}
        assert "$.readings[0].value" in hint["content"]
        assert "'66 %' is not of type 'number'" in hint["content"]
        (request,) = await house.ended()
        usage = (await house.request(request["id"]))["usage"]
        tokens = [len(str(call.messages)) for call in house.model.calls]
        assert usage["prompt_tokens"] > tokens[1] / 8  # both calls were paid for
        assert [a["result"] for a in (await house.request(request["id"]))["attempts"]] == ["ok"] * 2


async def test_json_that_never_fits_is_told_and_not_published(any_database):
    async with rig(any_database) as house, house.mqtt("parse/tank/out") as device:
        house.model.script(ok(json.dumps(BAD)), ok("no JSON at all"))
        await device.publish(TOPIC, b"tank 3 abt 66 % full")
        said = (await message(device))[1].decode()
        assert said == "No answer: the model's answer does not fit the flow's schema."
        (request,) = await house.ended()
        assert (request["state"], request["error"]["code"]) == ("failed", "model_schema")
        assert len(house.model.calls) == 2


async def test_a_refusal_and_half_a_document_are_no_reply_either(database):
    async with rig(database) as house, house.mqtt("parse/tank/out") as device:
        house.model.script(refusal("I can't."), length('{"summary": "tank'))
        await device.publish(TOPIC, b"x")
        assert b"does not fit" in (await message(device))[1]
