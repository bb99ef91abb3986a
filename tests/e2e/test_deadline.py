"""What comes too late is not asked and not paid for, and its sender is told."""

from __future__ import annotations

from tests.fakes.model import hang, status
from tests.rig import eventually, message, rig

FLOW = """
[flows.ask]
request = "ask/${user}"
reply = "say/${user}"
deadline = "60s"
%s
"""
LATE = b"No answer: it came too late to be asked."


async def test_what_waited_longer_than_the_deadline_is_not_asked(any_database):
    settings = {"flows": FLOW % "", "max_concurrency": 1, "lease": 300}
    async with rig(any_database, **settings) as house, house.mqtt("say/+") as client:
        house.model.script(hang())
        await client.publish("ask/first", b"in hand")
        await house.model.wait_for_calls(1)
        await client.publish("ask/second", b"waits")
        await house.stored(2)
        await house.move(61_000, holding=True)
        house.model.release()
        heard = dict([await message(client), await message(client)])
        assert heard == {"say/first": b"echo: in hand", "say/second": LATE}
        assert len(house.model.calls) == 1
        ends = {one["conversation"]: one for one in await house.ended(2)}
        assert ends["first"]["state"] == "done"
        assert ends["second"]["state"] == "expired"
        assert house.broker.mqtt.published[-1].properties["User-Property"]["error"] == "expired"


async def test_a_message_that_the_broker_kept_too_long_is_expired_when_it_comes(any_database):
    async with rig(any_database, flows=FLOW % "") as house, house.mqtt("say/ada") as ada:
        body = {"topic": "ask/ada", "payload": "hi", "flow": "ask"}
        old = {**body, "id": "1", "publish_received_at": house.clock() - 61_000}
        assert (await house.webhook(old)).status_code == 202
        assert (await message(ada))[1] == LATE
        fresh = {**body, "id": "2", "publish_received_at": house.clock() - 50_000}
        await house.webhook(fresh)
        assert (await message(ada))[1] == b"echo: hi"
        assert len(house.model.calls) == 1


async def test_a_clock_that_can_not_be_right_is_not_believed(database):
    """A broker without the right time must not make every message too late, or immortal."""
    async with rig(database, flows=FLOW % "") as house, house.mqtt("say/ada") as ada:
        for number, at in enumerate((0, 1_000, house.clock() + 86_400_000, -(2**63), 2**63 - 1)):
            body = {"id": str(number), "topic": "ask/ada", "payload": "hi"}
            answer = await house.webhook({**body, "publish_received_at": at})
            assert answer.status_code == 202
            assert (await message(ada))[1] == b"echo: hi"


async def test_a_shorter_expiry_of_the_message_counts(any_database):
    async with rig(any_database, flows=FLOW % "") as house, house.mqtt("say/+") as client:
        await house.move(20_000)  # as if it had been on its way for so long
        await house.mqtt5("ask/short", "hi", message_expiry_interval=10)
        assert await message(client) == ("say/short", LATE)
        await house.mqtt5("ask/long", "hi", message_expiry_interval=86_400)
        assert await message(client) == ("say/long", b"echo: hi")
        (long, _) = await house.ended(2)
        shown = await house.request(long["id"])
        assert shown["deadline"] < "2100"  # the flow's deadline is the longest


async def test_a_call_does_not_outlast_the_deadline(database, quick):
    flows = FLOW.replace("60s", "1s") % ""
    async with rig(database, flows=flows) as house, house.mqtt("say/ada") as ada:
        house.model.behave(lambda body: hang())
        await ada.publish("ask/ada", b"hi")
        said = (await message(ada, 5))[1]
        assert said.startswith(b"No answer: ")
        (request,) = await house.ended()
        assert request["state"] in ("expired", "failed")
        (call,) = house.model.calls
        assert call.ended - call.started < 2


async def test_a_retry_by_hand_gets_a_new_deadline(any_database):
    async with rig(any_database, flows=FLOW % "") as house, house.mqtt("say/ada") as ada:
        house.model.script(status(400))
        await ada.publish("ask/ada", b"hi")
        await message(ada)
        (dead,) = await house.ended()
        await house.move(3_600_000)
        assert (await house.http.post(f"/requests/{dead['id']}/retry")).status_code == 202
        assert (await message(ada))[1] == b"echo: hi"


async def test_of_a_conversation_only_what_is_late_expires(any_database):
    flows = FLOW % "history = { messages = 4 }"
    async with rig(any_database, flows=flows, lease=300) as house, house.mqtt("say/ada") as ada:
        house.model.script(hang())
        await ada.publish("ask/ada", b"one")
        await house.model.wait_for_calls(1)
        await house.mqtt5("ask/ada", "two", message_expiry_interval=5)
        await ada.publish("ask/ada", b"three")
        await house.stored(3)
        await house.move(6_000, holding=True)
        house.model.release()
        heard = [(await message(ada))[1] for _ in range(3)]
        assert heard == [b"echo: one", LATE, b"echo: three"]
        said = [one["content"] for one in house.model.calls[-1].messages]
        assert said == ["one", "echo: one", "three"]


async def test_what_is_late_is_told_also_while_no_model_may_be_called(database):
    """A key that is refused closes the only flow for long; the senders are told all the same."""
    async with rig(database, flows=FLOW % "") as house, house.mqtt("say/+") as client:
        house.model.behave(lambda body: status(401))
        await client.publish("ask/first", b"finds out")
        await house.model.wait_for_calls(1)
        await eventually(lambda: paused(house))
        await client.publish("ask/second", b"waits")
        await house.stored(2)
        await house.move(61_000)
        assert {(await message(client, 15))[0] for _ in range(2)} == {"say/first", "say/second"}
        assert len(house.model.calls) == 1


async def paused(house) -> bool:
    return (await house.http.get("/readyz")).status_code == 503
