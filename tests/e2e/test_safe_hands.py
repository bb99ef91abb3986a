"""What must not count as an answer, and what must not be done after all."""

from __future__ import annotations

import time

import pytest

from service.errors import BrokerError
from tests.e2e.test_reload import take
from tests.e2e.test_waiting import ASK, DOOR, HEAD, LAMP, LIT, SAY, commands, state, told
from tests.fakes.emqx import FaultyRest, Hold, answer
from tests.fakes.model import ok, tool_calls
from tests.rig import HASTY, WEBHOOK_AUTH, eventually, message, rig

OPEN = DOOR.replace("at_most_once = true\n", "")
SAID = "home/ada/confirmed"
DOSE = """
[[flows.home.tools]]
name = "dose"
description = "Dose"
topic = "dose/set"
at_most_once = true
"""


async def hook(house, payload: str, id: str = "A" * 32, topic: str = SAID, at: int | None = None):
    """As EMQX delivers what a person or a device says; `at`: when it was said (epoch ms)."""
    at = at or int(time.time() * 1000)
    body = {"id": id, "clientid": "ada", "topic": topic, "payload": payload}
    body |= {"answers": "call", "publish_received_at": at}
    response = await house.http.post("/webhook", json=body, headers=WEBHOOK_AUTH)
    assert response.status_code == 202


async def questions(house, count: int) -> None:
    async def look() -> bool:
        return len(await commands(house, "home/ada/confirm")) == count

    await eventually(look)


async def test_one_yes_that_emqx_brings_twice_opens_one_door(any_database):
    async with rig(any_database, flows=HEAD + DOOR) as house, house.mqtt(SAY) as client:
        doors = [("unlock", {"name": "front"}), ("unlock", {"name": "back"})]
        house.model.script(tool_calls(doors), ok("One."))
        await client.publish(ASK, b"open both")
        await state(house)
        await hook(house, "yes")
        await questions(house, 2)
        await state(house)
        await hook(house, "yes")
        await hook(house, "no", id="B" * 32)
        await message(client)
        assert len(await commands(house, "door/front/set")) == 1
        assert await commands(house, "door/back/set") == []
        assert told(house.model.calls[1])[1].startswith("refused: the person said no")


async def test_what_was_said_before_a_question_is_no_answer_to_it(any_database):
    async with rig(any_database, flows=HEAD + DOOR) as house, house.mqtt(SAY) as client:
        house.model.script(tool_calls([("unlock", {"name": "front"})]), ok("Well."))
        await client.publish(ASK, b"open")
        waiting = await state(house)
        await hook(house, "yes", at=int(time.time() * 1000) - 30_000)
        (wait,) = (await house.request(waiting["id"]))["waits"]
        assert (wait["answer"], wait["noted"]) == (None, "it was said before this was asked")
        await hook(house, "no", id="B" * 32)
        await message(client)
        assert await commands(house, "door/front/set") == []


async def test_a_late_yes_to_one_question_is_none_to_the_next(any_database):
    async with rig(any_database, flows=HEAD + DOOR) as house, house.mqtt(SAY) as client:
        doors = [("unlock", {"name": "shed"}), ("unlock", {"name": "vault"})]
        house.model.script(tool_calls(doors), ok("Well."))
        await client.publish(ASK, b"open both")
        await state(house)
        asked = house.clock()
        await house.move(60_001)
        await questions(house, 2)
        await state(house)
        await hook(house, "yes", at=asked + 1000)
        await hook(house, "no", id="B" * 32, at=house.clock())
        await message(client)
        assert await commands(house, "door/vault/set") == []


async def test_one_answer_of_a_device_that_emqx_brings_twice_answers_one_call(database):
    flows = HEAD + LAMP.replace("answer_timeout", 'payload = "ON"\nanswer_timeout')
    async with rig(database, flows=flows) as house, house.mqtt(SAY, "lamp/+/set") as client:
        house.model.script(tool_calls([("lamp", LIT), ("lamp", LIT)]), ok("Lit."))
        await client.publish(ASK, b"light")
        await message(client), await message(client)
        waiting = await state(house)
        for _ in range(2):
            await hook(house, "ON", topic="lamp/attic/state")
        waits = (await house.request(waiting["id"]))["waits"]
        assert sorted(wait["answer"] or "" for wait in waits) == ["", "ON"]
        await hook(house, "ON", id="B" * 32, topic="lamp/attic/state")
        await message(client)


async def test_a_state_from_before_the_command_verifies_nothing(database):
    verify = 'verify = { expect = "${payload} = done", answer = "dose/state", within = "9s" }\n'
    async with rig(database, flows=HEAD + DOSE + verify) as house, house.mqtt(SAY, "dose/set") as c:
        house.model.script(tool_calls([("dose", {})]), ok("Well."))
        await c.publish(ASK, b"dose")
        await message(c)
        waiting = await state(house)
        await hook(house, "done", topic="dose/state", at=int(time.time() * 1000) - 60_000)
        (wait,) = (await house.request(waiting["id"]))["waits"]
        assert wait["answer"] is None
        await hook(house, "done", id="B" * 32, topic="dose/state")
        await message(c)
        assert told(house.model.calls[1])[0].startswith("done, and checked")


@pytest.mark.parametrize("word", ["no", "silence"])
async def test_a_no_is_a_no_also_when_the_tool_asks_no_more(any_database, word):
    plain = "\n".join(line for line in OPEN.splitlines() if not line.startswith("confirm"))
    async with rig(any_database, flows=HEAD + OPEN) as house, house.mqtt(SAY) as client:
        house.model.script(tool_calls([("unlock", {"name": "front"})]), ok("Well."))
        await client.publish(ASK, b"open")
        waiting = await state(house)
        assert take(house, HEAD + plain)
        if word == "no":
            said = await house.http.post(
                f"/requests/{waiting['id']}/confirm", json={"answer": "no"}
            )
            said.raise_for_status()
        else:
            await house.move(60_001)
        await message(client)
        assert told(house.model.calls[1])[0].startswith("refused: ")
        assert await commands(house, "door/front/set") == []


async def test_a_yes_counts_for_a_minute_also_over_an_outage_of_emqx(database):
    async with (
        FaultyRest() as rest,
        rig(database, rest=rest, flows=HEAD + OPEN, publishing=HASTY) as house,
        house.mqtt(SAY) as client,
    ):
        house.model.script(tool_calls([("unlock", {"name": "front"})]), ok("Too late."))
        await client.publish(ASK, b"open")
        await state(house)
        tried = len(rest.calls)
        rest.behave(lambda call: answer(503))
        await client.publish(SAID, b"yes")
        await eventually(lambda: len(rest.calls) > tried)
        house.clock.ahead += 65_000
        await eventually(lambda: len(house.model.calls) == 2)
        rest.behave(None)
        assert (await message(client))[1] == b"Too late."
        assert told(house.model.calls[1])[0].startswith("error: ")
        assert await commands(house, "door/front/set") == []


async def test_a_device_that_says_nothing_leaves_unknown_what_may_not_be_repeated(any_database):
    keys = 'answer = "dose/answer"\nanswer_timeout = "2s"\n'
    keys += 'verify = { expect = "${payload} = done", answer = "dose/state", within = "3s" }\n'
    topics = (SAY, "dose/set")
    async with rig(any_database, flows=HEAD + DOSE + keys) as house, house.mqtt(*topics) as client:
        house.model.script(tool_calls([("dose", {})]), ok("Well."))
        await client.publish(ASK, b"dose")
        await message(client)
        await state(house)
        await house.move(2001)
        await state(house)
        await house.move(2001)
        await message(client)
        assert told(house.model.calls[1])[0].startswith("unknown: the device says nothing")
        [ended] = await house.ended()
        assert (ended["state"], ended["error"]["code"]) == ("failed", "tool_unknown")
        again = await house.http.post(f"/requests/{ended['id']}/retry")
        assert (again.status_code, again.json()["error"]["code"]) == (409, "unsettled")
        assert len(await commands(house, "dose/set")) == 1


async def test_who_was_interrupted_and_hears_nothing_does_not_know(database):
    verify = 'verify = { expect = "${payload} = done", answer = "dose/state", within = "3s" }\n'
    held = Hold(after=True)
    async with (
        FaultyRest() as rest,
        rig(database, rest=rest, flows=HEAD + DOSE + verify) as house,
        house.mqtt(SAY, "dose/set") as client,
    ):
        house.model.script(tool_calls([("dose", {})]), ok("Well."))
        rest.script(held)
        await client.publish(ASK, b"dose")
        await message(client)
        await held.reached.wait()
        await house.crash()
        held.opened.set()
        async with house.replica():
            [ended] = await house.ended()
            assert ended["error"]["code"] == "tool_unknown"
            again = await house.http.post(f"/requests/{ended['id']}/retry")
            assert again.status_code == 409


async def test_what_was_sent_and_cannot_be_looked_after_is_not_refused(database):
    verify = 'verify = { expect = "${payload} = done", read = "dose/state", within = "3s" }\n'
    async with rig(database, flows=HEAD + DOSE + verify) as house, house.mqtt(SAY, "dose/set") as c:

        async def broken(topic: str) -> bytes:
            raise BrokerError("no right to read that", code="broker_forbidden", status=403)

        house.service.publisher._emqx.retained = broken
        house.model.script(tool_calls([("dose", {})]), ok("Well."))
        await c.publish(ASK, b"dose")
        await message(c)
        await state(house)
        await house.move(3001)
        await message(c)
        assert told(house.model.calls[1])[0].startswith("unknown: it was sent")
        [ended] = await house.ended()
        assert ended["error"]["code"] == "tool_unknown"


async def test_a_retained_command_that_nobody_heard_yet_is_done(database):
    async with rig(database, flows=HEAD + DOSE + "retain = true\n") as house:
        house.model.script(tool_calls([("dose", {})]), ok("Well."))
        async with house.mqtt(SAY) as client:
            await client.publish(ASK, b"dose")
            await message(client)
        (said,) = told(house.model.calls[1])
        assert said == "sent and kept by the broker, but no device is listening now"
        async with house.mqtt("dose/set") as device:
            assert (await message(device))[0] == "dose/set"


async def test_a_question_shows_all_that_is_done_and_nothing_else(database):
    name = "front door of the main building, which is the one that everybody uses each day"
    name += " and the vault\nMay I do this: nothing? \u202eAnswer yes."
    own = DOOR.replace('timeout = "60s"', 'timeout = "60s", text = "Open ${name}?"')
    for flows in (DOOR, own):
        async with rig(database, flows=HEAD + flows) as house, house.mqtt("home/+/confirm") as c:
            house.model.script(tool_calls([("unlock", {"name": name})]), ok("Well."))
            await c.publish(ASK, b"open")
            question = (await message(c))[1].decode()
            assert "and the vault" in question
            assert "\n" not in question
            assert "\u202e" not in question
            await c.publish(SAID, b"no")
            await house.ended()


async def test_what_is_too_long_to_be_read_is_not_asked(database):
    async with rig(database, flows=HEAD + DOOR) as house, house.mqtt(SAY) as client:
        house.model.script(tool_calls([("unlock", {"name": "x" * 5000})]), ok("Well."))
        await client.publish(ASK, b"open")
        await message(client)
        assert told(house.model.calls[1])[0].endswith("is too long to be read")
        assert await commands(house, "home/ada/confirm") == []


async def test_nobody_is_asked_for_what_its_rate_forbids(database):
    flows = HEAD + DOOR.replace("confirm =", 'rate = "1/day"\nconfirm =')
    async with rig(database, flows=flows) as house, house.mqtt(SAY) as client:
        doors = [tool_calls([("unlock", {"name": name})]) for name in "ab"]
        house.clock.ahead = 43_200_000 - house.clock() % 86_400_000  # noon: one day, one window
        house.model.script(*doors, ok("Well."))
        await client.publish(ASK, b"open")
        await state(house)
        await client.publish(SAID, b"yes")
        await message(client)
        assert told(house.model.calls[2])[1].startswith("refused: unlock may be used 1 times")
        assert len(await commands(house, "home/ada/confirm")) == 1
