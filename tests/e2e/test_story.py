"""A long answer, readable while it is written, and a light that shows how far it is."""

from __future__ import annotations

import asyncio
import json

from tests.fakes.model import Completion, hang, ok, status, stream_then_cut, tool_calls
from tests.rig import message, rig

TOPIC = "story/ada/ask"
TEXT = "Once upon a time there was a lighthouse , and in it lived a robot . The end ."


async def story(client, until="story/ada/status", last="completed"):
    """All that comes until the light shows `last`: (deltas, replies, lights)."""
    deltas, replies, lights = [], [], []
    while True:
        topic, payload = await message(client)
        if topic == "story/ada/stream":
            deltas.append(json.loads(payload))
        elif topic == "story/ada/tell":
            replies.append(payload.decode())
        else:
            lights.append(json.loads(payload))
            if lights[-1]["status"] == last:
                return deltas, replies, lights


def joined(deltas):
    return "".join(delta["delta"] for delta in deltas)


async def test_numbered_pieces_then_the_whole_and_a_light(any_database):
    topics = ("story/ada/stream", "story/ada/tell", "story/ada/status")
    async with rig(any_database) as house, house.mqtt(*topics) as client:
        house.model.script(ok(TEXT, pace=0.06))
        await client.publish(TOPIC, b"a lighthouse and a robot")
        deltas, replies, lights = await story(client)
        assert replies == [TEXT]
        assert joined(deltas) == TEXT
        assert [delta["seq"] for delta in deltas] == list(range(len(deltas)))
        assert {delta["run"] for delta in deltas} == {1}
        (request,) = await house.ended()
        assert {delta["id"] for delta in deltas} == {request["id"]}
        assert [light["status"] for light in lights] == ["working", "completed"]
        assert lights[0]["id"] == request["id"]
        assert lights[0]["conversation"] == "ada"
        (call,) = house.model.calls
        assert call.body["stream"] is True
        # 19 words in over a second: gathered to a few messages a second.
        took = call.ended - call.started
        assert 3 <= len(deltas) <= took / 0.25 + 2


async def test_what_was_said_is_not_held_back_while_the_model_thinks(database):
    async with rig(database) as house, house.mqtt("story/ada/stream") as client:
        steps = Paused("one two three ", "four")
        house.model.script(steps)
        await client.publish(TOPIC, b"x")
        heard = ""
        while heard != "one two three":  # the blank comes with the word after it
            heard += json.loads((await message(client))[1])["delta"]
        house.model.release()
        assert json.loads((await message(client))[1])["delta"] == " four"


class Paused:
    """Streams some words, waits for `release()`, and streams the rest."""

    def __init__(self, first, rest):
        self.first, self.rest = first, rest

    async def __call__(self, exchange):
        whole = Completion(self.first + self.rest)
        words = len(self.first.split())
        count = 0
        event = exchange.event

        async def counted(data):
            nonlocal count
            if b'"content":' in data and b'"role"' not in data:
                count += 1
                if count == words + 1:
                    await exchange.pause(exchange.released)
            await event(data)

        exchange.event = counted
        await whole(exchange)


async def test_a_stream_that_breaks_starts_over_under_a_new_run(any_database, quick):
    topics = ("story/ada/stream", "story/ada/tell", "story/ada/status")
    async with rig(any_database) as house, house.mqtt(*topics) as client:
        heard = asyncio.Event()
        house.model.script(stream_then_cut("Once upon a midnight dreary", 3, heard), ok(TEXT))
        await client.publish(TOPIC, b"x")
        topic, payload = await message(client)
        while topic != "story/ada/stream":
            topic, payload = await message(client)
        heard.set()
        deltas, replies, _ = await story(client)
        deltas.insert(0, json.loads(payload))
        first, second = sorted({delta["run"] for delta in deltas})
        assert joined(d for d in deltas if d["run"] == first) in "Once upon a "
        assert joined(d for d in deltas if d["run"] == second) == TEXT
        for run in (first, second):
            numbers = [delta["seq"] for delta in deltas if delta["run"] == run]
            assert numbers == list(range(len(numbers)))
        assert replies == [TEXT]


async def test_after_a_crash_mid_stream_it_starts_under_a_new_run(any_database):
    topics = ("story/ada/stream", "story/ada/tell", "story/ada/status")
    async with rig(any_database) as house, house.mqtt(*topics) as client:
        house.model.script(Paused("Once upon ", "a midnight"), ok(TEXT))
        await client.publish(TOPIC, b"x")
        topic, payload = await message(client)
        while topic != "story/ada/stream":
            topic, payload = await message(client)
        before = json.loads(payload)
        await house.crash()
        async with house.replica():
            deltas, replies, lights = await story(client)
        after = [delta for delta in deltas if delta["run"] != before["run"]]
        assert {delta["run"] > before["run"] for delta in after} == {True}
        assert joined(after) == TEXT
        assert after[0]["seq"] == 0
        assert replies == [TEXT]
        assert {light["id"] for light in lights} == {before["id"]}


async def test_the_next_model_starts_over_too(database, quick):
    flows = """
[flows.story]
request = "story/${user}/ask"
stream = "story/${user}/stream"
reply = "story/${user}/tell"
status = "story/${user}/status"
model = "first"
fallback = "second"
"""

    def behave(body):
        return stream_then_cut("Half a", 2) if body["model"] == "first" else ok(TEXT)

    topics = ("story/ada/stream", "story/ada/tell", "story/ada/status")
    async with rig(database, flows=flows) as house, house.mqtt(*topics) as client:
        house.model.behave(behave)
        await client.publish(TOPIC, b"x")
        deltas, replies, _ = await story(client)
        last = max(delta["run"] for delta in deltas)
        assert joined(d for d in deltas if d["run"] == last) == TEXT
        assert replies == [TEXT]


async def test_words_beside_tool_calls_are_no_part_of_the_streamed_reply(database):
    flows = """
[flows.home]
request = "story/${user}/ask"
stream = "story/${user}/stream"
reply = "story/${user}/tell"
status = "story/${user}/status"
[[flows.home.tools]]
name = "look"
description = "Look"
read = "state"
"""
    topics = ("story/ada/stream", "story/ada/tell", "story/ada/status")
    async with rig(database, flows=flows) as house, house.mqtt(*topics) as client:
        house.model.script(tool_calls([("look", {})], text="Let me look."), ok(TEXT))
        await client.publish(TOPIC, b"x")
        deltas, replies, _ = await story(client)
        first, second = sorted({delta["run"] for delta in deltas})
        assert "Let me look.".startswith(joined(d for d in deltas if d["run"] == first))
        assert joined(d for d in deltas if d["run"] == second) == TEXT
        assert replies == [TEXT]


async def test_the_light_shows_failure_expiry_and_what_was_ignored(any_database, quick):
    async with rig(any_database) as house, house.mqtt("story/ada/status") as client:
        house.model.script(status(400))
        await client.publish(TOPIC, b"x")
        assert [json.loads((await message(client))[1])["status"] for _ in range(2)] == [
            "working", "failed"
        ]  # fmt: skip
        await client.publish(TOPIC, b"   ")
        light = json.loads((await message(client))[1])
        assert (light["status"], light["error"]) == ("ignored", "empty")
        await house.ended(2)
        await house.move(600_000)
        await house.mqtt5(TOPIC, "late", message_expiry_interval=60)
        light = json.loads((await message(client))[1])
        assert (light["status"], light["error"]) == ("expired", "expired")
        assert len(house.model.calls) == 1


async def test_many_short_answers_end_with_their_light_off(database):
    async with rig(database) as house, house.mqtt("story/+/status") as client:
        house.model.behave(lambda body: ok("short"))
        for number in range(40):
            await client.publish(f"story/u{number}/ask", b"x")
        last = {}
        for _ in range(80):
            light = json.loads((await message(client))[1])
            last[light["conversation"]] = light["status"]
        assert set(last.values()) == {"completed"}
        assert len(last) == 40


async def test_a_listener_over_http_hears_that_a_run_starts_over(database, quick):
    async with rig(database) as house:
        heard = asyncio.Event()
        house.model.script(stream_then_cut("Once upon a midnight", 2, heard), ok(TEXT))
        seen = []
        headers = {"accept": "text/event-stream"}
        async with house.http.stream(
            "POST", "/ask/story", json={"text": "x"}, headers=headers
        ) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    seen.append(json.loads(line.removeprefix("data: ")))
                    heard.set()
        restart = seen.index({"restart": True})
        *deltas, reply = seen[restart + 1 :]
        assert joined(deltas) == TEXT
        assert reply["reply"]["text"] == TEXT


async def test_a_listener_that_leaves_does_not_stop_the_stream(database):
    topics = ("story/ada/tell",)
    async with rig(database) as house, house.mqtt(*topics) as client:
        house.model.script(hang(ok(TEXT)))
        body = {"text": "x", "topic": TOPIC, "publish": True}
        headers = {"accept": "text/event-stream"}
        async with house.http.stream("POST", "/ask/story", json=body, headers=headers):
            await house.model.wait_for_calls(1)
        house.model.release()
        assert (await message(client))[1].decode() == TEXT
