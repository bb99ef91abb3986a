"""Order within a conversation, and nothing that waits for another without need."""

from __future__ import annotations

from collections import Counter

from tests.fakes.model import delay, hang, ok, status
from tests.rig import counter, eventually, message, rig

FLOWS = """
[flows.chat]
request = "chat/${user}/ask"
reply = "chat/${user}/say"
history = { messages = 100 }

[flows.plain]
request = "plain/${user}/ask"
reply = "plain/${user}/say"
"""


def asked(call):
    """The questions in a call, oldest first."""
    return [one["content"] for one in call.messages if one["role"] == "user"]


async def test_a_conversation_is_answered_in_the_order_of_emqx(any_database):
    """They come in another order, as after a reconnect: time and id decide."""
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("chat/+/say") as client:
        house.model.script(hang())
        await client.publish("chat/ada/ask", b"first")
        await house.model.wait_for_calls(1)
        now = house.clock()
        body = {"topic": "chat/ada/ask", "flow": "chat"}
        for number in (3, 1, 4, 2):
            times = {"publish_received_at": now + number // 3, "id": f"m{number}"}
            await house.webhook({**body, **times, "payload": f"q{number}"})
        house.model.release()
        heard = [(await message(client))[1].decode() for _ in range(5)]
        assert heard == ["echo: first", *(f"echo: q{number}" for number in range(1, 5))]
        assert asked(house.model.calls[-1]) == ["first", "q1", "q2", "q3", "q4"]
        assert house.model.peak == 1  # one at a time, to the end of its publish


async def test_what_comes_after_its_successor_is_answered_late_and_not_dropped(any_database):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("chat/+/say") as client:
        now = house.clock()
        body = {"topic": "chat/ada/ask", "flow": "chat"}
        for number, before in ((1, 0), (2, 5_000)):
            times = {"publish_received_at": now - before, "id": f"m{number}"}
            await house.webhook({**body, **times, "payload": f"q{number}"})
            assert (await message(client))[1].decode() == f"echo: q{number}"


async def test_a_conversation_that_fails_or_is_slow_delays_no_other(any_database, quick):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("chat/+/say") as client:

        def behave(body):
            said = body["messages"][-1]["content"]
            if "slow" in said:
                return hang()
            return status(500) if "bad" in said else ok("quick")

        house.model.behave(behave)
        for number in range(3):
            await client.publish("chat/slow/ask", f"slow {number}".encode())
            await client.publish("chat/bad/ask", f"bad {number}".encode())
        await house.model.wait_for_calls(2)
        for number in range(10):
            await client.publish(f"chat/u{number}/ask", b"x")
        heard = [(await message(client, 5)) for _ in range(10)]
        assert {topic for topic, _ in heard} == {f"chat/u{number}/say" for number in range(10)}
        slow = [call for call in house.model.calls if call.text.startswith("slow")]
        assert len(slow) == 1  # its successors wait for it
        house.model.behave(None)
        house.model.release()
        rest = [await message(client) for _ in range(6)]
        for user in ("slow", "bad"):
            said = [payload.decode() for topic, payload in rest if topic == f"chat/{user}/say"]
            assert said == [f"echo: {user} {number}" for number in range(3)]


async def test_a_failed_message_of_a_conversation_does_not_stop_it(any_database):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("chat/+/say") as client:
        house.model.behave(
            lambda body: status(400) if body["messages"][-1]["content"] == "q1" else ok("well")
        )
        for number in range(4):
            await client.publish("chat/ada/ask", f"q{number}".encode())
        heard = [(await message(client))[1] for _ in range(4)]
        assert [said.startswith(b"No answer") for said in heard] == [False, True, False, False]
        assert asked(house.model.calls[-1]) == ["q0", "q2", "q3"]


async def test_without_history_everything_runs_side_by_side(any_database):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("plain/+/say") as client:
        house.model.behave(lambda body: hang())
        for number in range(30):
            await client.publish("plain/ada/ask", f"q{number}".encode())
        await eventually(lambda: house.model.in_flight == 30)
        house.model.release()
        heard = Counter([(await message(client))[1] for _ in range(30)])
        assert heard == Counter(f"echo: q{number}".encode() for number in range(30))


async def test_no_more_calls_are_in_flight_than_may_be(database):
    settings = {"flows": FLOWS, "max_concurrency": 4}
    async with rig(database, **settings) as house, house.mqtt("plain/+/say") as client:
        house.model.behave(lambda body: hang())
        for number in range(30):
            await client.publish(f"plain/u{number}/ask", b"x")
        await eventually(lambda: house.model.in_flight == 4)
        assert len(await house.stored(30)) == 30
        house.model.release()
        for _ in range(30):
            await message(client)
        assert house.model.peak == 4


async def test_a_flow_that_floods_leaves_others_their_share(any_database):
    settings = {"flows": FLOWS, "max_concurrency": 1}
    async with rig(any_database, **settings) as house, house.mqtt("chat/+/say") as client:
        house.model.script(hang())
        for number in range(30):
            body = {"topic": "plain/ada/ask", "flow": "plain", "payload": f"q{number}"}
            await house.webhook({**body, "id": f"m{number}"})
        await client.publish("chat/ada/ask", b"and me")
        await house.stored(31)
        house.model.release()
        assert (await message(client))[1] == b"echo: and me"
        assert house.model.texts.index("and me") <= 2


async def test_replicas_share_the_work_and_keep_the_order(shared_database):
    settings = {"flows": FLOWS, "max_concurrency": 4}
    async with (
        rig(shared_database, **settings) as house,
        house.replica() as other,
        house.mqtt("chat/+/say") as client,
    ):
        house.model.behave(lambda body: delay(0.02))
        users = [f"u{number}" for number in range(6)]
        for number in range(8):
            for user in users:
                await client.publish(f"chat/{user}/ask", f"q{number}".encode())
        said: dict[str, list[str]] = {user: [] for user in users}
        for _ in range(48):
            topic, payload = await message(client)
            said[topic.split("/")[1]].append(payload.decode())
        assert said == {user: [f"echo: q{number}" for number in range(8)] for user in users}
        ends = await house.ended(48)
        assert {one["state"] for one in ends} == {"done"}
        assert len(house.model.calls) == 48  # nothing was asked twice
        shares = [
            counter(service.metrics.text().decode(), "emqx_gpt_model_calls_total")
            for service in (house.service, other)
        ]
        assert sum(shares) == 48
        assert min(shares) > 0


async def test_a_dead_replicas_requests_go_to_the_other_in_order(shared_database):
    async with rig(shared_database, flows=FLOWS) as house, house.mqtt("chat/+/say") as client:
        house.model.behave(lambda body: hang())
        for number in range(3):
            for user in ("ada", "bob"):
                await client.publish(f"chat/{user}/ask", f"q{number}".encode())
        await house.model.wait_for_calls(2)
        await house.crash()
        house.model.behave(None)
        async with house.replica():
            said: dict[str, list[bytes]] = {"ada": [], "bob": []}
            for _ in range(6):
                topic, payload = await message(client)
                said[topic.split("/")[1]].append(payload)
            wanted = [b"echo: q0", b"echo: q1", b"echo: q2"]
            assert said == {"ada": wanted, "bob": wanted}


async def test_a_worker_that_lost_its_lease_changes_nothing(shared_database):
    """It stands still for longer than its lease, and its answer comes when another has it."""
    async with rig(shared_database, flows=FLOWS) as house, house.mqtt("chat/+/say") as client:
        house.model.script(hang(ok("from the first")), ok("from the second"))
        await client.publish("chat/ada/ask", b"x")
        await house.model.wait_for_calls(1)
        await house.service.worker.stop_loops()  # no heartbeats any more, but its call goes on
        house.clock.ahead += int(house.lease * 1000) + 1
        async with house.replica():
            assert (await message(client))[1] == b"from the second"
            await house.ended()
            house.model.release()
            await house.model.wait_idle()
            await eventually(lambda: not house.service.worker.in_hand.asking)
            await client.publish("chat/ada/ask", b"y")
            assert (await message(client))[1] == b"echo: y"
            said = [one["content"] for one in house.model.calls[-1].messages]
            assert said == ["x", "from the second", "y"]
            assert client.messages.empty()


async def test_requests_of_a_flow_that_is_not_known_yet_wait_for_who_knows_it(shared_database):
    """A rolling update: the old process stores what only the new one can answer."""
    old = FLOWS.partition("[flows.plain]")[0]
    async with rig(shared_database, flows=old) as house, house.mqtt("plain/+/say") as client:
        body = {"topic": "plain/ada/ask", "flow": "plain", "payload": "hi", "id": "1"}
        assert (await house.webhook(body)).status_code == 202
        (request,) = await house.requests()
        assert request["state"] == "queued"
        async with house.replica(FLOWS):
            assert await message(client) == ("plain/ada/say", b"echo: hi")
            await house.ended()
