"""A tool that must not repeat: rather lost than done twice."""

from __future__ import annotations

from tests.fakes.emqx import FaultyRest, unheard
from tests.fakes.model import ok, tool_calls
from tests.rig import message, rig

FLOWS = """
[flows.home]
request = "home/${user}/ask"
reply = "home/${user}/say"
[[flows.home.tools]]
name = "next_song"
description = "Skip to the next song"
topic = "speaker/next"
at_most_once = true
"""


async def test_a_call_whose_answer_is_lost_is_not_sent_again(database):
    async with (
        FaultyRest() as rest,
        rig(database, rest=rest, flows=FLOWS) as house,
        house.mqtt("home/+/say", "speaker/#") as client,
    ):
        house.model.script(tool_calls([("next_song", {})]), ok("I could not tell."))
        rest.script(unheard())
        await client.publish("home/ada/ask", b"next song, please")
        heard = [await message(client), await message(client)]
        assert [topic for topic, _ in heard] == ["speaker/next", "home/ada/say"]
        await house.ended()
        skips = [one for one in house.broker.mqtt.published if one.topic == "speaker/next"]
        assert len(skips) == 1
        told = house.model.calls[1].body["messages"][-1]
        assert told["role"] == "tool"
        assert told["content"].startswith("error: ")
