"""EMQX sends parked messages later than younger ones: order is kept all the same."""

from __future__ import annotations

import time

from service.answering import intake
from tests.rig import WEBHOOK_AUTH, Rig, eventually, message, rig

FLOW = """
[flows.chat]
request = "ask/${user}"
reply = "say/${user}"
history = { messages = 4 }
[flows.alarm]
request = "in/${user}"
reply = "out/${user}"
"""


async def post(house: Rig, text: str, received_at: int, flow: str = "chat") -> None:
    """As EMQX delivers it."""
    topic = {"chat": "ask/ada", "alarm": "in/ada"}[flow]
    body = {
        "flow": flow,
        "id": f"{received_at:016X}{abs(hash(text)) % 2**64:016X}",
        "clientid": "ada",
        "topic": topic,
        "payload": text,
        "publish_received_at": received_at,
    }
    answer = await house.http.post("/webhook", json=body, headers=WEBHOOK_AUTH)
    assert answer.status_code == 202, answer.text


async def test_late_messages_are_answered_in_the_order_of_the_broker(any_database, monkeypatch):
    monkeypatch.setattr(intake, "STRAGGLE", 15_000)  # the clock is moved: a slow machine has time
    async with rig(any_database, flows=FLOW, settle=1) as house, house.mqtt("say/+") as client:
        await post(house, "first of all", int(time.time() * 1000))  # nothing could come late
        assert (await message(client))[1] == b"echo: first of all"

    async with rig(any_database, flows=FLOW, settle=20) as house, house.mqtt("#") as client:
        await house.service.intake.pause_ordered()  # as at the start, which is a while ago
        now = int(time.time() * 1000)
        await post(house, "third", now + 1)
        await post(house, "at once", now + 2, "alarm")  # a flow without order waits for nobody
        assert (await message(client))[1] == b"echo: at once"
        await house.move(15_000)  # EMQX is late
        await post(house, "second", now - 20_000)
        await house.move(10_000)  # and later than `settle`
        await post(house, "first", now - 30_000)
        await house.move(10_000)
        heard = [(await message(client))[1] for _ in range(3)]
        assert heard == [b"echo: first", b"echo: second", b"echo: third"]


async def test_a_refusal_lets_conversations_settle(database):
    async with rig(database, flows=FLOW, settle=1, max_backlog=1) as house:
        house.service.intake._settled_at = float("-inf")  # the start is long ago
        house.model.behave(None)
        async with house.mqtt("say/+") as client:
            now = int(time.time() * 1000)
            await post(house, "before", now - 40_000)
            assert (await message(client))[1] == b"echo: before"
            await eventually(lambda: house.service.store.backlog == 0)
            house.service.intake._max_backlog = 0
            body = {"flow": "chat", "id": "0" * 32, "topic": "ask/ada", "payload": "refused"}
            refused = await house.http.post("/webhook", json=body, headers=WEBHOOK_AUTH)
            assert refused.status_code == 503
            house.service.intake._max_backlog = 10
            await post(house, "young", now)
            await post(house, "old", now - 20_000)  # what was refused comes again, later
            heard = [(await message(client))[1] for _ in range(2)]
            assert heard == [b"echo: old", b"echo: young"]
