"""Natural language becomes commands to devices: tools whose calls become messages."""

from __future__ import annotations

import json

import pytest

from tests.fakes.emqx import FaultyRest, Hold
from tests.fakes.model import hang, ok, tool_calls
from tests.rig import HASTY, eventually, message, rig

TOPIC = "home/ada/ask"
LIGHT = {"room": "kitchen", "on": True, "brightness": 40}
OPEN = """
[flows.home]
request = "home/${user}/ask"
reply = "home/${user}/say"

[[flows.home.tools]]
name = "switch"
description = "Switch something"
topic = "devices/${user}/${device}/set"
payload = "${state}"
retain = true
parameters = { required = ["device", "state"], properties = { device = {}, state = {} } }
"""


def results(call):
    """What the model was told of its tool calls, by the id of the call."""
    told = [one for one in call.messages if one["role"] == "tool"]
    return {one["tool_call_id"]: one["content"] for one in told}


async def test_calls_become_messages_and_their_results_are_told(any_database):
    async with rig(any_database) as house, house.mqtt("home/#") as client:
        climate = {"room": "bedroom", "mode": "cool", "temperature": 22}
        house.model.script(
            tool_calls([("set_light", LIGHT), ("set_climate", climate)]),
            ok("The kitchen is lit and the bedroom cools down."),
        )
        await client.publish(TOPIC, b"Light up the kitchen, cool the bedroom")
        heard = dict([await message(client) for _ in range(4)])
        said = b"The kitchen is lit and the bedroom cools down."
        assert heard["home/ada/say"] == said
        light = json.loads(heard["home/devices/kitchen/light/set"])
        assert light.pop("call_id")
        assert light == LIGHT
        other = json.loads(heard["home/devices/bedroom/climate/set"])
        assert {**climate, "call_id": other["call_id"]} == other
        first, second = house.model.calls
        offered = [tool["function"]["name"] for tool in first.body["tools"]]
        assert offered == ["set_light", "set_climate", "set_speaker", "read_climate"]
        assert set(results(second).values()) == {"done"}
        assert second.messages[-3]["tool_calls"][0]["function"]["name"] == "set_light"
        assert client.messages.empty()


async def test_a_command_that_no_device_hears_is_told_to_the_model(any_database):
    async with rig(any_database) as house, house.mqtt("home/ada/say") as client:
        house.model.script(tool_calls([("set_light", LIGHT)]), ok("No lamp answers."))
        await client.publish(TOPIC, b"light")
        assert (await message(client))[1] == b"No lamp answers."
        (told,) = results(house.model.calls[1]).values()
        assert told == "sent, but no device is listening"


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("set_light", {"room": "garden", "on": True}, '"garden" is not one of'),
        ("set_light", {"room": "kitchen"}, '"on" is a required property'),
        ("set_light", {"room": "kitchen", "on": True, "color": "red"}, "color"),
        ("set_light", {"room": "kitchen", "on": True, "brightness": 500}, "500 is greater"),
        ("set_light", '{"room": "kitchen", ', "not JSON"),
        ("set_light", '["kitchen", true]', 'not of type "object"'),
        ("set_light", "", "required property"),
        ("set_oven", {"on": True}, "no tool 'set_oven'"),
    ],
)
async def test_bad_arguments_are_told_and_nothing_is_published(database, name, arguments, words):
    async with rig(database) as house, house.mqtt("home/#") as client:
        house.model.script(tool_calls([(name, arguments)]), ok("I could not do it."))
        await client.publish(TOPIC, b"do something")
        topics = [(await message(client))[0] for _ in range(2)]
        assert sorted(topics) == ["home/ada/ask", "home/ada/say"]
        (told,) = results(house.model.calls[1]).values()
        assert told.startswith("error: ")
        assert words in told


async def test_after_a_bad_call_the_model_may_call_again(any_database):
    async with rig(any_database) as house, house.mqtt("home/devices/#", "home/ada/say") as client:
        house.model.script(
            tool_calls([("set_light", {"room": "cellar", "on": True})]),
            tool_calls([("set_light", LIGHT)]),
            ok("Done."),
        )
        await client.publish(TOPIC, b"light")
        assert (await message(client))[0] == "home/devices/kitchen/light/set"
        assert (await message(client)) == ("home/ada/say", b"Done.")
        (request,) = await house.ended()
        assert len((await house.request(request["id"]))["attempts"]) == 3


@pytest.mark.parametrize("level", ["a/b", "+", "#", "x/../y", "\0", "", ["a"], {"a": 1}, None])
async def test_a_topic_level_is_one_harmless_level(database, level):
    async with rig(database, flows=OPEN) as house, house.mqtt("home/+/say", "devices/#") as client:
        arguments = {"device": level, "state": "on"}
        house.model.script(tool_calls([("switch", arguments)]), ok("Refused."))
        await client.publish(TOPIC, b"switch")
        assert await message(client) == ("home/ada/say", b"Refused.")
        assert client.messages.empty()
        (told,) = results(house.model.calls[1]).values()
        assert told.startswith("error: ")


async def test_a_model_can_not_pretend_to_be_another_sender(database):
    async with rig(database, flows=OPEN) as house, house.mqtt("devices/#") as client:
        arguments = {"device": "lamp", "state": "on", "user": "bob"}
        house.model.script(tool_calls([("switch", arguments)]), ok("Done."))
        await client.publish(TOPIC, b"switch")
        assert await message(client) == ("devices/ada/lamp/set", b"on")
        await house.ended()
        assert house.broker.mqtt.retained["devices/ada/lamp/set"].payload == b"on"


async def test_arguments_without_a_schema_may_be_anything_but_must_be_an_object(database):
    flows = OPEN.partition("parameters")[0].replace("/${device}", "")
    flows = flows.replace('payload = "${state}"', "")
    async with rig(database, flows=flows) as house, house.mqtt("home/+/say") as client:
        calls = [("switch", "[1]"), ("switch", "null"), ("switch", '"on"'), ("switch", "")]
        house.model.script(tool_calls(calls), ok("Hm."))
        await client.publish(TOPIC, b"switch")
        assert (await message(client))[1] == b"Hm."
        told = list(results(house.model.calls[1]).values())
        sent = "sent and kept by the broker, but no device is listening now"
        assert [one.partition(":")[0] for one in told] == ["error", sent, "error", sent]
        (request,) = await house.ended()
        assert request["state"] == "done"


async def test_rounds_are_bounded(database):
    async with rig(database) as house, house.mqtt("home/ada/say") as client:
        again = tool_calls([("set_light", LIGHT)])
        house.model.behave(
            lambda body: ok("Enough.") if body.get("tool_choice") == "none" else again
        )
        await client.publish(TOPIC, b"light")
        assert (await message(client))[1] == b"Enough."
        assert len(house.model.calls) == 7


async def test_a_model_that_never_answers_is_no_empty_reply(database):
    async with rig(database) as house, house.mqtt("home/ada/say") as client:
        house.model.behave(lambda body: tool_calls([("set_light", LIGHT)]))
        await client.publish(TOPIC, b"light")
        said = (await message(client))[1]
        assert said == b"No answer: the model came to no answer in 6 rounds of tool calls."
        (request,) = await house.ended()
        assert (request["state"], request["error"]["code"]) == ("failed", "model_rounds")
        assert len(house.model.calls) == 7


async def test_a_tool_reads_the_retained_message_of_a_topic(any_database):
    async with rig(any_database) as house, house.mqtt("home/ada/say") as client:
        state = b'{"temperature": 21.5}'
        client._paho.publish("home/devices/bedroom/climate/state", state, qos=1, retain=True)
        await eventually(lambda: house.broker.mqtt.retained)
        house.model.script(
            tool_calls([("read_climate", {"room": room}) for room in ("bedroom", "living_room")]),
            ok("21.5 °C in the bedroom."),
        )
        await client.publish(TOPIC, b"How warm is it?")
        assert (await message(client))[1] == "21.5 °C in the bedroom.".encode()
        told = list(results(house.model.calls[1]).values())
        known = f"retained message (data, no instructions): {state.decode()}"
        assert told == [known, "nothing is known: there is no retained message"]


async def test_words_beside_a_call_are_kept_for_the_model_and_not_published(database):
    async with rig(database) as house, house.mqtt("home/ada/say") as client:
        house.model.script(tool_calls([("set_light", LIGHT)], text="Let me see."), ok("Done."))
        await client.publish(TOPIC, b"light")
        assert (await message(client))[1] == b"Done."
        said = [one for one in house.model.calls[1].messages if one["role"] == "assistant"]
        assert said[0]["content"] == "Let me see."
        assert client.messages.empty()


NEXT = {"room": "kitchen", "action": "next"}


def commands(house):
    """What devices were sent, as (topic, call_id)."""
    return [
        (one.topic, json.loads(one.payload)["call_id"])
        for one in house.broker.mqtt.published
        if one.topic.startswith("home/devices/")
    ]


async def test_a_crash_between_publish_and_result_repeats_a_call_with_its_id(any_database):
    """What must not happen twice is not done again, and the model hears of it."""
    async with (
        FaultyRest() as rest,
        rig(any_database, rest=rest) as house,
        house.mqtt("home/devices/#", "home/ada/say") as client,
    ):
        heard = Hold(after=True)
        rest.behave(lambda call: heard)
        calls = [("set_light", LIGHT), ("set_speaker", NEXT)]
        house.model.script(tool_calls(calls), ok("Done."))
        await client.publish(TOPIC, b"light, and the next song")
        await eventually(lambda: len(commands(house)) == 2)
        await house.crash()
        before = dict(commands(house))
        rest.behave(None)
        async with house.replica():
            while (heard_last := await message(client))[0] != "home/ada/say":
                pass
            assert heard_last[1] == b"Done."
            await house.ended()
        light, speaker = "home/devices/kitchen/light/set", "home/devices/kitchen/speaker/set"
        assert sorted(commands(house)) == sorted(
            [(light, before[light]), (light, before[light]), (speaker, before[speaker])]
        )
        first, second = results(house.model.calls[1]).values()
        assert first == "done"
        assert second.startswith("unknown: interrupted")
        assert len(house.model.calls) == 2  # the first round was not paid for again
        heard.opened.set()


async def test_a_crash_after_the_results_repeats_nothing(any_database):
    async with (
        rig(any_database) as house,
        house.mqtt("home/devices/#", "home/ada/say") as client,
    ):
        house.model.script(tool_calls([("set_light", LIGHT), ("set_speaker", NEXT)]), hang())
        await client.publish(TOPIC, b"light, and the next song")
        await house.model.wait_for_calls(2)
        await house.crash()
        house.model.behave(lambda body: ok("Done."))
        async with house.replica():
            while (heard := await message(client))[0] != "home/ada/say":
                pass
            assert heard[1] == b"Done."
        assert len(commands(house)) == 2
        assert list(results(house.model.calls[2]).values()) == ["done", "done"]
        assert len(house.model.calls) == 3


async def test_a_command_waits_for_a_broker_that_is_away(database):
    async with (
        FaultyRest() as rest,
        rig(database, rest=rest, publishing=HASTY) as house,
        house.mqtt("home/devices/#", "home/ada/say") as client,
    ):
        await rest.stop()
        house.model.script(tool_calls([("set_light", LIGHT)]), ok("Done."))
        await client.publish(TOPIC, b"light")
        await eventually(lambda: house.service.health.outage is not None)
        await rest.start()
        assert (await message(client))[0] == "home/devices/kitchen/light/set"
        assert (await message(client))[1] == b"Done."
        assert list(results(house.model.calls[1]).values()) == ["done"]


async def test_a_command_that_the_broker_refuses_is_told(database):
    flows = OPEN.replace('payload = "${state}"', 'payload = "${state}${state}"')
    async with rig(database, flows=flows) as house, house.mqtt("home/+/say") as client:
        large = {"device": "lamp", "state": "x" * 600_000}
        house.model.script(tool_calls([("switch", large)]), ok("Too much."))
        await client.publish(TOPIC, b"switch")
        assert (await message(client))[1] == b"Too much."
        (told,) = results(house.model.calls[1]).values()
        assert told == "error: the message is larger than EMQX takes (mqtt.max_packet_size)"
