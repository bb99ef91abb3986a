"""What was published lately, in prompts: kept by the service, at the price of no model call."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import threading
from typing import Any

import pytest

from service.answering import readings_text
from tests.e2e.test_reload import take
from tests.fakes.model import ok, status
from tests.rig import Rig, counter, eventually, message, rig

FLOWS = """
[flows.boiler]
request = "boilers/${device}/ask"
reply = "boilers/${device}/say"
system = "Readings of ${device}:\\n${recent}"
prompt = "${payload} (mean ${recent.temperature.mean}, count ${recent.count})"
recent = { topic = "boilers/${device}/telemetry", messages = 5, for = "1h" }
"""


async def kept(house: Rig, count: int) -> None:
    """Wait until so many messages are on the disk."""

    async def look() -> bool:
        text = (await house.http.get("/metrics")).text
        service = house.service
        return counter(text, "emqx_gpt_kept_total") >= count and not service.recents.waiting

    await eventually(look)


def reading(degrees: float, **more: Any) -> bytes:
    return json.dumps({"temperature": degrees, **more}).encode()


async def test_a_question_is_answered_by_what_was_published_and_each_device_has_its_own(
    any_database,
):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("boilers/+/say") as client:
        house.model.script(ok("warm"), ok("cold"))
        for number in range(8):
            await client.publish("boilers/b1/telemetry", reading(20 + number, mode="heat"))
        await client.publish("boilers/b2/telemetry", reading(3))
        await kept(house, 9)
        assert not house.model.calls
        assert await house.requests() == []
        text = (await house.http.get("/metrics")).text
        assert counter(text, "emqx_gpt_calls_saved_total", flow="boiler", how="kept") == 9
        await client.publish("boilers/b1/ask", "How warm?")
        assert await message(client) == ("boilers/b1/say", b"warm")
        (call,) = house.model.calls
        assert call.text == "How warm? (mean 25, count 5)"
        system = call.messages[0]["content"]
        assert system.count(",heat") == 5
        assert "22,heat" not in system
        assert "temperature: min 23" in system
        await client.publish("boilers/b2/ask", "And now?")
        assert await message(client) == ("boilers/b2/say", b"cold")
        assert house.model.calls[1].text == "And now? (mean 3, count 1)"


async def test_what_is_too_old_is_not_told(any_database):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("boilers/+/say") as client:
        house.model.script(ok("?"))
        await client.publish("boilers/b1/telemetry", reading(20))
        await kept(house, 1)
        await house.move(3_601_000)
        await client.publish("boilers/b1/ask", "How warm?")
        await message(client)
        (call,) = house.model.calls
        assert call.text == "How warm? (mean undefined, count 0)"
        assert "nothing was published in the last 1h" in call.messages[0]["content"]


async def test_windows_outlive_the_process(any_database):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("boilers/+/say") as client:
        house.model.script(ok("warm"))
        await client.publish("boilers/b1/telemetry", reading(20))
        await kept(house, 1)
        await house.crash()
        async with house.replica():
            await client.publish("boilers/b1/ask", "How warm?")
            assert await message(client) == ("boilers/b1/say", b"warm")
        assert house.model.calls[0].text == "How warm? (mean 20, count 1)"


async def test_a_burst_a_hundred_times_the_window_is_bounded_and_told(any_database):
    async with rig(any_database, flows=FLOWS) as house:
        bodies = [
            {
                "recent": "boiler",
                "topic": "boilers/b1/telemetry",
                "payload": json.dumps({"temperature": number}),
                "publish_received_at": house.clock() + number,
            }
            for number in range(500)
        ]
        for body in bodies:
            answer = await house.webhook(body)
            assert (answer.status_code, answer.json()["accepted"]) == (202, 1)
        await kept(house, 500)
        answer = await house.http.post("/ask/boiler", json={"text": "?", "conversation": "b1"})
        assert answer.status_code in (200, 202)
        await house.ended(1)
        assert house.model.calls[0].text == "? (mean 497, count 5)"


async def test_what_fits_no_window_is_not_kept_and_is_told(any_database):
    async with rig(any_database, flows=FLOWS) as house:
        for body in (
            {"recent": "nobody", "topic": "boilers/b1/telemetry", "payload": "1"},
            {"recent": "boiler", "topic": "elsewhere", "payload": "1"},
        ):
            answer = await house.webhook(body)
            assert (answer.status_code, answer.json()) == (
                202,
                {"accepted": 0, "duplicates": 0, "ignored": 1},
            )
        text = (await house.http.get("/metrics")).text
        assert counter(text, "emqx_gpt_refused_total", code="no_window") == 2
        assert (await house.webhook({"recent": "boiler", "id": "1"})).status_code == 400


async def test_a_very_long_topic_has_its_window_too(any_database):
    name = "x" * 5000
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("boilers/+/say") as client:
        house.model.script(ok("warm"))
        for number in range(3):
            await client.publish(f"boilers/{name}/telemetry", reading(20 + number))
        await kept(house, 3)
        await client.publish(f"boilers/{name}/ask", "?")
        assert (await message(client))[1] == b"warm"
        assert house.model.calls[0].text == "? (mean 21, count 3)"


async def test_a_question_that_speaks_of_recent_is_still_a_question(any_database):
    async with rig(any_database, flows=FLOWS) as house:
        body = {
            "flow": "boiler",
            "recent": "boiler",
            "id": "m1",
            "topic": "boilers/b1/ask",
            "payload": '{"recent":"boiler"}',
        }
        assert (await house.webhook(body)).json()["accepted"] == 1
        assert len(await house.ended(1)) == 1


async def test_a_window_can_have_the_messages_of_all_and_says_whose_they_are(any_database):
    flows = """
[flows.night]
request = "plant/ask"
reply = "plant/say"
prompt = "${payload}\\n${recent}"
recent = { topic = "plant/+/state" }
"""
    async with rig(any_database, flows=flows) as house, house.mqtt("plant/say") as client:
        house.model.script(ok("quiet"))
        await client.publish("plant/oven/state", "on")
        await client.publish("plant/fan/state", "off")
        await kept(house, 2)
        await client.publish("plant/ask", "What was on?")
        await message(client)
        asked = house.model.calls[0].text
        assert "time (UTC),topic,value" in asked
        assert "plant/oven/state,on" in asked
        assert "plant/fan/state,off" in asked


async def test_a_window_has_the_newest_ones_whatever_the_order_in_which_they_come(any_database):
    async with rig(any_database, flows=FLOWS) as house:
        now = house.clock()
        for number in (0, 1, 3, 2, 5, 4, 7, 6):
            body = {"recent": "boiler", "topic": "boilers/b1/telemetry"}
            payload = {"temperature": 20 + number}
            answer = await house.webhook(
                body | {"payload": payload, "publish_received_at": now + number}
            )
            assert answer.status_code == 202
        await kept(house, 8)
        await house.http.post("/ask/boiler", json={"text": "?", "conversation": "b1"})
        await house.ended(1)
        assert house.model.calls[0].text == "? (mean 25, count 5)"


async def told_of(house: Rig, client: Any) -> str:
    """What the model is told of boiler b1."""
    await client.publish("boilers/b1/ask", "?")
    await message(client)
    return str(house.model.calls[-1].text)


async def test_what_a_wrong_clock_dated_ahead_does_not_freeze_a_window(any_database):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("boilers/+/say") as client:
        for ahead in (30 * 86_400_000, 3_600_000):
            house.clock.ahead = ahead
            for number in range(30):
                await client.publish("boilers/b1/telemetry", reading(90 + number))
            await kept(house, 30)
        house.clock.ahead = 0
        for number in range(8):
            await client.publish("boilers/b1/telemetry", reading(20 + number))
        await kept(house, 68)
        assert await told_of(house, client) == "? (mean 25, count 5)"


async def test_one_message_larger_than_its_window_hides_no_others(any_database, caplog):
    flows = FLOWS.replace('for = "1h"', 'for = "1h", size = "1 KB"')
    async with rig(any_database, flows=flows) as house, house.mqtt("boilers/+/say") as client:
        for number in range(3):
            await client.publish("boilers/b1/telemetry", reading(20 + number))
        await kept(house, 3)
        await client.publish("boilers/b1/telemetry", reading(25, pad="x" * 1100))
        await client.publish("boilers/b1/telemetry", reading(23))
        await kept(house, 4)
        assert await told_of(house, client) == "? (mean 21.5, count 4)"
        assert " bytes is larger than its window (recent.size is 1" in caplog.text


async def test_another_topic_is_another_window(any_database):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("boilers/+/say") as client:
        await client.publish("boilers/b1/telemetry", reading(20))
        await kept(house, 1)
        take(house, FLOWS.replace("/telemetry", "/pressure"))
        body = {"recent": "boiler", "topic": "boilers/b1/pressure", "payload": '{"temperature": 7}'}
        await house.webhook({**body, "publish_received_at": house.clock()})
        await kept(house, 2)
        assert await told_of(house, client) == "? (mean 7, count 1)"


async def test_long_topics_count_as_what_is_kept(database):
    flows = """
[flows.night]
request = "plant/ask"
reply = "plant/say"
prompt = "${recent}"
recent = { topic = "plant/+/state", messages = 1000, size = "10 KB", for = "1h" }
"""
    async with rig(database, flows=flows) as house:
        bodies = [
            {
                "recent": "night",
                "topic": f"plant/{'y' * 3_000}{number}/state",
                "payload": "1",
                "publish_received_at": house.clock() + number,
            }
            for number in range(200)
        ]
        await asyncio.gather(*map(house.webhook, bodies))
        await kept(house, 200)
        with contextlib.closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as found:
            rows = found.execute("SELECT sum(size), sum(length(body)) FROM readings")
            counted, real = rows.fetchone()
        assert real < 60_000
        assert 0.7 * real < counted < 1.3 * real


@pytest.mark.parametrize("payload", ['{"t": "\\ud800"}', '{"t\\ud800": 1}'])
async def test_half_a_character_keeps_no_question_from_its_answer(database, payload):
    async with rig(database, flows=FLOWS) as house, house.mqtt("boilers/+/say") as client:
        house.model.behave(lambda body: ok("warm") if decodes(body) else status(400))
        await client.publish("boilers/b1/telemetry", payload.encode())
        await kept(house, 1)
        await client.publish("boilers/b1/ask", "?")
        assert (await message(client))[1] == b"warm"


def decodes(body: Any) -> bool:
    """Whether a strict server takes it."""
    return "\\ud800" not in json.dumps(body, ensure_ascii=True)


@pytest.mark.parametrize(("messages", "beside"), [(3, False), (40, True)])
async def test_a_large_window_is_told_beside_the_event_loop(
    database, monkeypatch, messages, beside
):
    threads = []
    told = readings_text.told

    def noted(*asked):
        threads.append(threading.current_thread())
        return told(*asked)

    monkeypatch.setattr(readings_text, "told", noted)
    flows = FLOWS.replace("messages = 5,", "messages = 100,")
    async with rig(database, flows=flows) as house, house.mqtt("boilers/+/say") as client:
        for _ in range(messages):
            await client.publish("boilers/b1/telemetry", reading(1, pad="x" * 2000))
        await kept(house, messages)
        await told_of(house, client)
    assert [one is not threading.main_thread() for one in threads] == [beside]
