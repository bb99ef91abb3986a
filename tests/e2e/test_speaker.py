"""A smart speaker with a wake word: fixed topics with the leading slash."""

from __future__ import annotations

import pytest

from tests.rig import message, rig

REQUIRE = """
[flows.speaker]
request = ["/xiaomi/chatgpt", "speakers/${room}/heard"]
reply = "/xiaomi/reply"
require = "机器人"
strip = "(.*机器人)"
"""


async def test_the_wake_word_and_all_before_it_is_cut(any_database):
    async with rig(any_database) as house, house.mqtt("/xiaomi/reply", "xiaomi/#") as speaker:
        await speaker.publish("/xiaomi/chatgpt", "喂\n小爱机器人今天星期几".encode())
        assert await message(speaker) == ("/xiaomi/reply", "echo: 今天星期几".encode())
        await speaker.publish("/xiaomi/chatgpt", "没有唤醒词".encode())
        assert await message(speaker) == ("/xiaomi/reply", "echo: 没有唤醒词".encode())
        assert [call.text for call in house.model.calls] == ["今天星期几", "没有唤醒词"]


@pytest.mark.parametrize("topic", ["/xiaomi/chatgpt", "speakers/kitchen/heard"])
async def test_what_is_not_meant_for_the_model_is_ignored(database, topic):
    async with rig(database, flows=REQUIRE) as house, house.mqtt("/xiaomi/reply") as speaker:
        for words in ("打开电视", "机器人", "机器人  "):
            await speaker.publish(topic, words.encode())
        await speaker.publish(topic, "机器人你好".encode())
        assert await message(speaker) == ("/xiaomi/reply", "echo: 你好".encode())
        ends = await house.ended(4)
        reasons = sorted(one["error"]["code"] for one in ends if one["error"])
        assert reasons == ["empty", "empty", "require"]
        assert speaker.messages.empty()
        assert len(house.model.calls) == 1


async def test_without_the_slash_it_is_another_topic(database):
    async with rig(database) as house, house.mqtt("/xiaomi/reply") as speaker:
        await speaker.publish("xiaomi/chatgpt", b"not for us")
        await speaker.publish("/xiaomi/chatgpt", b"for us")
        assert (await message(speaker))[1] == b"echo: for us"
        assert len(await house.ended()) == 1
