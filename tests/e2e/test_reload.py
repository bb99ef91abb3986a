"""Flows are exchanged while the service works: what is in hand ends by the old ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping

from service.bootstrap import edition_of
from tests.fakes.model import FakeModel, gate, ok, status, tool_calls
from tests.rig import Rig, counter, eventually, load_flows, message, rig

CHAT = """
[flows.chat]
request = "chat/${user}/ask"
reply = "%s/${user}/say"
system = "%s"
"""
OTHER = """
[flows.other]
request = "other/${user}/ask"
reply = "other/${user}/say"
"""


def take(house: Rig, text: str, environ: Mapping[str, str] | None = None) -> str:
    edition = edition_of(house.service.settings, load_flows(text), environ or {})
    return str(house.service.take(edition))


def by_system(body):
    """A model that says which instructions it had."""
    system, question = body["messages"][0], body["messages"][-1]
    return ok(f"{system['content']}: {question['content']}")


async def test_a_request_in_hand_ends_by_the_flows_it_began_with(any_database):
    tool = """
[[flows.chat.tools]]
name = "switch"
description = "Switch a lamp"
topic = "%s/${room}/set"
parameters = { required = ["room"], properties = { room = {} } }
"""
    old = CHAT % ("old", "first") + tool % "old"
    async with rig(any_database, flows=old) as house, house.mqtt("+/+/say", "+/+/set") as ada:
        held = gate(tool_calls([("switch", {"room": "kitchen"})]))
        house.model.script(held)
        told = iter([status(503), ok("done")])
        house.model.behave(
            lambda body: next(told) if body["messages"][-1]["role"] == "tool" else by_system(body)
        )
        await ada.publish("chat/ada/ask", b"light")
        await house.model.wait_for_calls(1)
        assert take(house, CHAT % ("new", "second") + tool % "new") == "changed chat"
        await ada.publish("chat/bob/ask", b"hi")  # begins after it
        assert await message(ada) == ("new/bob/say", b"second: hi")
        held.release()
        topic, command = await message(ada)
        assert (topic, json.loads(command)["room"]) == ("old/kitchen/set", "kitchen")
        assert await message(ada) == ("old/ada/say", b"done")
        asked = [one.body["messages"][0]["content"] for one in house.model.calls]
        assert asked == ["first", "second", "first", "first"]  # also what is tried again
        assert ada.messages.empty()


async def test_what_waits_is_taken_by_the_new_flows(any_database):
    old, new = CHAT % ("old", "first"), CHAT % ("new", "second")
    async with rig(any_database, flows=old) as house, house.mqtt("+/+/say") as ada:
        house.model.behave(by_system)
        assert (await house.http.post("/flows/chat/pause")).status_code == 200
        await ada.publish("chat/ada/ask", b"hi")
        await house.stored(1)
        take(house, new)
        assert house.model.calls == []  # a pause outlives the flows
        assert (await house.http.post("/flows/chat/resume")).status_code == 200
        assert await message(ada) == ("new/ada/say", b"second: hi")


async def test_of_a_flow_that_is_gone_what_waits_ends_at_its_deadline(any_database):
    both = CHAT % ("old", "first") + OTHER
    async with rig(any_database, flows=both) as house, house.mqtt("+/+/say") as ada:
        held = gate(ok("in time"))
        house.model.script(held)
        await ada.publish("other/ada/ask", b"begun")
        await house.model.wait_for_calls(1)
        assert (await house.http.post("/flows/other/pause")).status_code == 200
        await ada.publish("other/ada/ask", b"waits")
        await house.stored(2)
        assert take(house, CHAT % ("old", "first")) == "removed other"
        held.release()
        assert await message(ada) == ("other/ada/say", b"in time")
        (await house.http.post("/flows/other/resume")).raise_for_status()
        waits = await house.requests(state="queued")
        assert [one["text"] for one in waits] == ["waits"]
        await house.move(901_000)
        found = await house.ended(2)
        assert (found[0]["state"], found[0]["error"]["code"]) == ("failed", "flow_unknown")
        assert found[1]["state"] == "done"


async def test_of_a_flow_that_is_gone_what_waits_for_a_device_ends_too(any_database):
    lamp = """
[[flows.other.tools]]
name = "lamp"
description = "Switch the lamp"
topic = "lamp/set"
answer = "lamp/state"
answer_timeout = "20s"
"""
    both = CHAT % ("old", "first") + OTHER + lamp
    async with rig(any_database, flows=both) as house, house.mqtt("lamp/set") as device:
        house.model.script(tool_calls([("lamp", {})]))
        await device.publish("other/ada/ask", b"light")
        await message(device)

        async def waits():
            return await house.requests(state="waiting")

        await eventually(waits)
        assert take(house, CHAT % ("old", "first")) == "removed other"
        await house.move(30_000)
        assert len(await waits()) == 1  # the flow may come back
        await house.move(901_000)
        (found,) = await house.ended()
        assert (found["state"], found["error"]["code"]) == ("failed", "flow_unknown")
        (wait,) = (await house.request(found["id"]))["waits"]
        assert wait["closed_at"] is not None


async def test_a_flow_that_comes_answers_what_came_before_it(any_database):
    old = CHAT % ("old", "first")
    async with rig(any_database, flows=old) as house, house.mqtt("+/+/say") as ada:
        early = {"id": "1", "topic": "other/ada/ask", "payload": "early", "flow": "other"}
        assert (await house.webhook(early)).status_code == 202
        await house.stored(1)
        assert (await house.http.post("/ask/other", json={"text": "hi"})).status_code == 404
        assert take(house, CHAT % ("old", "first") + OTHER) == "added other"
        assert await message(ada) == ("other/ada/say", b"echo: early")
        answer = await house.http.post(
            "/ask/other", json={"text": "hi"}, headers={"prefer": "wait=30"}
        )
        assert answer.json()["text"] == "echo: hi"


async def test_limits_and_cooldowns_go_on(any_database):
    keys = 'limit = "2/h"\ncooldown = "1h"\n'
    old = CHAT % ("old", "first") + keys
    async with rig(any_database, flows=old) as house, house.mqtt("+/+/say") as ada:
        await ada.publish("chat/ada/ask", b"1")
        assert (await message(ada))[0] == "old/ada/say"
        take(house, CHAT % ("new", "second") + keys)
        await ada.publish("chat/ada/ask", b"2")
        found = await house.ended(2)
        assert found[0]["error"]["code"] == "cooldown"
        take(house, CHAT % ("new", "second") + 'limit = "1/h"\n')
        await ada.publish("chat/ada/ask", b"3")
        found = await house.ended(3)
        assert found[0]["error"]["code"] == "limit"


async def test_a_server_that_moved_is_asked_at_its_new_place(any_database):
    text = OTHER + 'model = "p/m"\n[providers.p]\nbase_url = "%s"\n'
    async with FakeModel() as before, FakeModel() as after, contextlib.AsyncExitStack() as stack:
        house = await stack.enter_async_context(rig(any_database, flows=text % before.base_url))
        ada = await stack.enter_async_context(house.mqtt("other/+/say"))
        held = gate(status(503))
        before.script(held, ok("from the old place"))
        await ada.publish("other/ada/ask", b"1")
        await before.wait_for_calls(1)
        assert take(house, text % after.base_url) == "other providers: p"
        after.script(ok("from the new place"))
        await ada.publish("other/bob/ask", b"2")
        assert await message(ada) == ("other/bob/say", b"from the new place")
        held.release()  # and is asked once more, where it was asked before
        assert await message(ada) == ("other/ada/say", b"from the old place")
        before.script(status(401))
        take(house, text % before.base_url)
        await ada.publish("other/ada/ask", b"3")
        await eventually(lambda: house.service.breakers.states())
        take(house, text % after.base_url)  # mends it: nothing of the 401 is left
        assert house.service.breakers.states() == []
        assert await message(ada) == ("other/ada/say", b"echo: 3")


async def test_figures_of_what_is_gone_are_not_shown(any_database):
    async with rig(any_database, flows=CHAT % ("old", "x") + OTHER + 'model = "o"\n') as house:
        text = (await house.http.get("/metrics")).text
        assert counter(text, "emqx_gpt_flows_loaded") == 2
        assert 'emqx_gpt_circuit_open{model="o"' in text
        take(house, CHAT % ("old", "x"))
        text = (await house.http.get("/metrics")).text
        assert counter(text, "emqx_gpt_flows_loaded") == 1
        assert 'emqx_gpt_circuit_open{model="o"' not in text
        assert 'emqx_gpt_paused{kind="flow",name="other"}' not in text


async def test_many_exchanges_leave_nothing_behind(any_database):
    """A hundred, with requests in hand all the time: each is answered once, by one flow."""
    texts = [CHAT % (f"r{number % 7}", f"s{number % 7}") for number in range(100)]
    async with rig(any_database, flows=texts[0]) as house, house.mqtt("+/+/say") as ada:
        house.model.behave(by_system)
        asked = 0
        for text in texts:
            for _ in range(5):
                await ada.publish(f"chat/u{asked}/ask", b"hi")
                asked += 1
            take(house, text)
            await asyncio.sleep(0)
        found = [await message(ada) for _ in range(asked)]
        assert ada.messages.empty()
        users = [topic.split("/")[1] for topic, _ in found]
        assert sorted(users) == sorted(f"u{number}" for number in range(asked))
        for topic, said in found:  # topic and instructions are of the same reading
            assert said == f"s{topic[1]}: hi".encode()
        assert len(house.model.calls) == asked
        ended = await house.ended(asked)
        assert {one["state"] for one in ended} == {"done"}


async def test_a_schedule_and_a_window_that_come_with_new_flows_are_in_force(any_database):
    clock = """
[flows.report]
every = "* * * * *"
reply = "reports/say"
prompt = "Sum up: ${recent.count}, last ${recent.value.last}"
recent = { topic = "%s", messages = 5 }
"""
    async with rig(any_database, flows=OTHER) as house, house.mqtt("reports/say") as ada:
        house.model.behave(lambda body: ok("fine"))
        for source, value in (("cold/t", 5), ("warm/t", 30)):
            take(house, OTHER + clock % source)
            await house.service.schedule.look()  # sees it for the first time, or as it was
            reading = {"recent": "report", "topic": source, "payload": value}
            at = {"publish_received_at": house.clock()}
            assert (await house.webhook(reading | at)).json()["accepted"] == 1
            await house.move(60_000)
            await house.service.schedule.look()
            assert await message(ada) == ("reports/say", b"fine")
        texts = [call.text for call in house.model.calls]
        assert texts[0] == "Sum up: 1, last 5"
        assert texts[1].endswith("last 30")
        old = {"recent": "report", "topic": "cold/t", "payload": 6}
        answer = await house.webhook(old | {"publish_received_at": house.clock()})
        assert answer.json()["ignored"] == 1  # of a topic that is watched no more
        take(house, OTHER)
        await house.move(120_000)
        await house.service.schedule.look()
        assert len(house.model.calls) == 2
