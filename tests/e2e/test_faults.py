"""Faults of this program itself: they end as dead letters and stop nobody else."""

from __future__ import annotations

from service.answering import prompt
from service.answering import reply as replies
from service.emqx import publish_api as emqx
from tests.fakes.model import ok, status
from tests.rig import HASTY, eventually, message, rig

FLOW = """
[flows.ask]
request = "ask/${user}"
reply = "say/${user}"
"""


def broken(function, when):
    """The function, but it raises for arguments in which `when` is found."""

    def made(*args, **options):
        if when in str((args, options)):
            raise RuntimeError("a fault that a test made")
        return function(*args, **options)

    return made


async def test_in_understanding_a_message(any_database, quick, monkeypatch):
    monkeypatch.setattr(prompt, "understand", broken(prompt.understand, "ask/bad"))
    settings = {"flows": FLOW, "max_attempts": 2}
    async with rig(any_database, **settings) as house, house.mqtt("say/+") as client:
        for user in ("bad", "ada"):
            await client.publish(f"ask/{user}", b"hi")
        assert await message(client) == ("say/ada", b"echo: hi")
        ends = {one["conversation"]: one for one in await house.ended(2)}
        assert (ends["bad"]["state"], ends["bad"]["error"]["code"]) == ("failed", "internal")
        assert "RuntimeError" in ends["bad"]["error"]["message"]


async def test_in_telling_of_a_failure(database, quick, monkeypatch):
    monkeypatch.setattr(replies, "failure", broken(replies.failure, "ask/bad"))
    settings = {"flows": FLOW, "max_attempts": 2}
    async with rig(database, **settings) as house, house.mqtt("say/+") as client:
        house.model.behave(lambda body: status(400))
        for user in ("bad", "ada"):
            await client.publish(f"ask/{user}", b"hi")
        assert (await message(client))[0] == "say/ada"
        ends = {one["conversation"]: one for one in await house.ended(2)}
        assert ends["bad"]["error"]["code"] == "internal"
        await eventually(lambda: not house.service.worker.in_hand.running)


async def test_in_publishing(database, monkeypatch):
    monkeypatch.setattr(emqx.Emqx, "body", broken(emqx.Emqx.body, "say/bad"))
    async with rig(database, flows=FLOW, publishing=HASTY) as house, house.mqtt("say/+") as client:
        for number in range(4):  # more than there are lanes
            await client.publish(f"ask/bad{number}", b"hi")
        await house.ended(4)
        await client.publish("ask/ada", b"hi")
        assert await message(client) == ("say/ada", b"echo: hi")
        ends = await house.ended(5)
        assert sorted(one["state"] for one in ends) == ["done"] + ["failed"] * 4


async def test_in_the_final_write(database, monkeypatch):
    async with rig(database, flows=FLOW, lease=6.0) as house, house.mqtt("say/+") as client:
        finish = house.service.store.finish
        calls = []

        async def once(*args, **options):
            calls.append(args)
            if len(calls) == 1:
                raise RuntimeError("a fault that a test made")
            return await finish(*args, **options)

        monkeypatch.setattr(house.service.store, "finish", once)
        house.model.script(ok("dear"))
        await client.publish("ask/ada", b"hi")
        assert await message(client) == ("say/ada", b"dear")
        await house.move(6_001)  # its lease runs out: it is published again
        (request,) = await house.ended()
        assert request["state"] == "done"
        assert len(house.model.calls) == 1


async def test_in_the_worker_s_own_loops(database, monkeypatch):
    async with rig(database, flows=FLOW) as house, house.mqtt("say/+") as client:
        store = house.service.store
        claim = store.claim
        calls = []

        async def once(*args, **options):
            calls.append(args)
            if len(calls) == 1:
                raise RuntimeError("a fault that a test made")
            return await claim(*args, **options)

        monkeypatch.setattr(store, "claim", once)
        await client.publish("ask/ada", b"hi")
        assert await message(client) == ("say/ada", b"echo: hi")
        await eventually(lambda: len(calls) > 1)


async def test_in_the_webhook_emqx_keeps_the_message(database, monkeypatch):
    async with rig(database, flows=FLOW) as house, house.mqtt("say/+") as client:
        entry = house.service.intake.entry
        calls = []

        def once(*args):
            calls.append(args)
            if len(calls) == 1:
                raise RuntimeError("a fault that a test made")
            return entry(*args)

        monkeypatch.setattr(house.service.intake, "entry", once)
        body = {"id": "1", "topic": "ask/ada", "payload": "x", "flow": "ask"}
        answer = await house.webhook(body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "internal")
        calls.clear()
        await client.publish("ask/ada", b"hi")
        assert await message(client) == ("say/ada", b"echo: hi")  # EMQX tried again
