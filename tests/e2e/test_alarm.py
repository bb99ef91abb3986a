"""A sensor over its limit becomes one spoken sentence."""

from __future__ import annotations

import json

from tests.fakes.model import hang, ok, status
from tests.rig import message, rig

TOPIC = "sensors/boiler/telemetry"
RETAINED = """
[flows.alarm]
request = "sensors/${device}/telemetry"
reply = "alerts/${device}"
prompt = "${device}: ${payload.temperature}"
on_error = "Too hot: ${payload.temperature}."
retain = true
"""


def reading(degrees: object) -> bytes:
    return json.dumps({"temperature": degrees}).encode()


async def test_the_broker_tests_where_and_the_prompt_reads_the_payload(any_database):
    async with rig(any_database) as house, house.mqtt("alerts/#") as watch:
        house.model.script(ok("The boiler is too hot."))
        for payload in (reading(21.5), reading(None), reading("hot"), reading({}), b"hot", b"[41]"):
            await watch.publish(TOPIC, payload)
        await watch.publish(TOPIC, reading(41.5))
        assert await message(watch) == ("alerts/boiler", b"The boiler is too hot.")
        (request,) = await house.ended()
        assert (request["flow"], request["conversation"]) == ("alarm", "boiler")
        (call,) = house.model.calls
        assert call.text == "Sensor boiler reads 41.5 °C; its limit is 40 °C."
        assert call.messages[0]["role"] == "system"


async def test_a_sensor_that_shouts_costs_one_call_in_its_cooldown(any_database):
    async with rig(any_database) as house, house.mqtt("alerts/#") as watch:
        house.model.script(hang(ok("hot")))
        for number in range(6):  # those that come while the first is asked wait for it
            await watch.publish(TOPIC, reading(41 + number))
        await house.model.wait_for_calls(1)
        house.model.release()
        assert await message(watch) == ("alerts/boiler", b"hot")
        ends = await house.ended(6)
        assert sorted(one["state"] for one in ends) == ["done"] + ["ignored"] * 5
        assert {one["error"]["code"] for one in ends if one["error"]} == {"cooldown"}
        await watch.publish("sensors/oven/telemetry", reading(50))  # has a cooldown of its own
        assert (await message(watch))[0] == "alerts/oven"
        assert len(house.model.calls) == 2
        await house.move(301_000)
        await watch.publish(TOPIC, reading(48))
        assert (await message(watch))[0] == "alerts/boiler"
        assert watch.messages.empty()
        assert len(house.model.calls) == 3


async def test_on_error_says_the_facts_and_does_not_start_the_cooldown(any_database, quick):
    async with rig(any_database) as house, house.mqtt("alerts/#") as watch:
        house.model.script(status(400), ok("The boiler is too hot."))
        await watch.publish(TOPIC, reading(45))
        spoken = await message(watch)
        assert spoken == ("alerts/boiler", "Sensor boiler: 45 °C, over 40 °C.".encode())
        published = house.broker.mqtt.published[-1]
        assert published.properties["User-Property"]["error"] == "model_refused"
        (request,) = await house.ended()
        assert (request["state"], request["error"]["code"]) == ("failed", "model_refused")
        await watch.publish(TOPIC, reading(46))
        assert await message(watch) == ("alerts/boiler", b"The boiler is too hot.")


async def test_on_error_speaks_at_once_while_the_provider_is_paused(database):
    async with rig(database) as house, house.mqtt("alerts/#") as watch:
        house.model.behave(lambda body: status(401))
        for number in range(3):
            await watch.publish(TOPIC, reading(45 + number))
            said = (await message(watch))[1].decode()
            assert said == f"Sensor boiler: {45 + number} °C, over 40 °C."
        assert len(house.model.calls) == 1  # the key was refused: it is not tried again so soon
        ends = await house.ended(3)
        assert {one["error"]["code"] for one in ends} == {"model_unauthorized"}


async def test_replies_are_retained_but_what_on_error_says_is_not(database, quick):
    async with rig(database, flows=RETAINED) as house, house.mqtt("alerts/#") as watch:
        house.model.script(ok("hot"), status(400))
        await watch.publish(TOPIC, reading(45))
        assert (await message(watch))[1] == b"hot"
        await watch.publish(TOPIC, reading(46))
        assert (await message(watch))[1] == b"Too hot: 46."
        async with house.mqtt("alerts/boiler", clientid="late") as late:
            assert await message(late) == ("alerts/boiler", b"hot")


async def test_what_the_prompt_needs_may_be_missing_but_a_topic_level_may_not(database):
    flows = """
[flows.a]
request = "a/${device}"
reply = "out/${payload.room}"
error = "errors/${device}"
prompt = "It is ${payload.temperature} degrees"
"""
    async with rig(database, flows=flows) as house, house.mqtt("out/#", "errors/#") as watch:
        await watch.publish("a/x", b'{"room": "kitchen"}')
        assert await message(watch) == ("out/kitchen", b"echo: It is undefined degrees")
        for payload in (b"{}", b'{"room": "a/b"}', b'{"room": "#"}', b'{"room": ""}'):
            await watch.publish("a/x", payload)
            topic, said = await message(watch)
            assert (topic, said.startswith(b"No answer: ")) == ("errors/x", True), payload
        ends = await house.ended(5)
        codes = {one["error"]["code"] for one in ends if one["error"]}
        assert codes == {"template_missing", "topic_unsafe"}
        assert len(house.model.calls) == 1  # what can't be sent is not paid for
