"""Asked only when a value is another one than the last that was asked about."""

from __future__ import annotations

import contextlib
import json

from tests.fakes.model import ok, status
from tests.rig import HASTY, counter, rig

FLOWS = """
[flows.door]
request = "doors/${door}/state"
reply = "doors/${door}/said"
prompt = "${payload.state}"
on_change = "${payload.state}"
"""
TEMPERATURE = """
[flows.room]
request = "rooms/${room}/temperature"
reply = "rooms/${room}/said"
prompt = "${payload}"
on_change = "${payload}"
deadband = 0.5
"""


def state(text: object) -> bytes:
    return json.dumps({"state": text}).encode()


async def test_only_another_value_costs_a_call_and_each_device_has_its_own(any_database):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt() as client:
        for number, text in enumerate(("open", "open", "shut", "shut", "open"), 1):
            await client.publish("doors/a/state", state(text))
            await house.ended(number)
        await client.publish("doors/b/state", state("open"))
        await house.ended(6)
        assert [call.text for call in house.model.calls] == ["open", "shut", "open", "open"]
        ends = await house.ended(6)
        assert sorted(one["state"] for one in ends) == ["done"] * 4 + ["ignored"] * 2
        assert {one["error"]["code"] for one in ends if one["error"]} == {"unchanged"}
        text = (await house.http.get("/metrics")).text
        assert counter(text, "emqx_gpt_calls_saved_total", flow="door", how="unchanged") == 2


async def test_numbers_move_by_more_than_the_deadband_from_what_was_asked_about(any_database):
    async with rig(any_database, flows=TEMPERATURE) as house, house.mqtt() as client:
        for number, text in enumerate(("20", "20.3", "20.5", "20.6", "20.2", "19.9"), 1):
            await client.publish("rooms/a/temperature", text)
            await house.ended(number)
        assert [call.text for call in house.model.calls] == ["20", "20.6", "19.9"]


async def test_what_failed_was_not_asked_about(database, quick):
    flows = FLOWS + 'on_error = "Door: ${payload.state}."\n'
    async with rig(database, flows=flows) as house, house.mqtt() as client:
        house.model.script(status(400), ok("It is open."))
        await client.publish("doors/a/state", state("open"))
        await house.ended(1)
        await client.publish("doors/a/state", state("open"))
        ends = await house.ended(2)
        assert [one["state"] for one in ends] == ["done", "failed"]


async def test_many_processes_see_a_value_once_and_it_outlives_them(shared_database):
    async with rig(shared_database, flows=FLOWS, publishing=HASTY) as house:
        async with contextlib.AsyncExitStack() as stack, house.mqtt() as client:
            for _ in range(2):
                await stack.enter_async_context(house.replica())
            for number in range(30):
                await client.publish("doors/a/state", state("open" if number < 20 else "shut"))
            await house.ended(30)
            assert [call.text for call in house.model.calls] == ["open", "shut"]
        await house.crash()
        async with house.replica(), house.mqtt() as client:
            await client.publish("doors/a/state", state("shut"))
            ends = await house.ended(31)
            assert ends[0]["error"]["code"] == "unchanged"
            assert len(house.model.calls) == 2


async def test_a_conversation_that_is_forgotten_is_asked_again(database):
    async with rig(database, flows=FLOWS) as house, house.mqtt() as client:
        await client.publish("doors/a/state", state("open"))
        await house.ended(1)
        answer = await house.http.delete("/conversations/door/a")
        assert answer.status_code == 200
        await client.publish("doors/a/state", state("open"))
        await house.ended(2)
        assert len(house.model.calls) == 2


async def test_a_value_is_remembered_as_long_as_requests_are_kept(any_database):
    async with rig(any_database, flows=FLOWS, retention=3600.0) as house, house.mqtt() as client:
        await client.publish("doors/a/state", state("open"))
        await house.ended(1)
        await house.move(3_601_000)
        await house.service.worker.purge()
        await client.publish("doors/a/state", state("open"))
        await house.ended(1)
        assert len(house.model.calls) == 2
