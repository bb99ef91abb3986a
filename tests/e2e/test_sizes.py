"""What a message, a conversation and all of them together may take."""

from __future__ import annotations

import base64
import json

from service.domain import Turn
from service.inbox import Inbox
from tests.fakes.model import hang, ok
from tests.inbox.make import answer, claim_one, entry
from tests.rig import eventually, message, rig

FLOWS = """
[flows.ask]
request = "ask/${user}"
reply = "say/${user}"
model = "first"
max_input = 100
prompt = "${payload} ${payload}"
history = { messages = 10 }

[flows.look]
request = "look/${user}"
reply = "saw/${user}"
model = "first"
input = "image"
max_input = 20
"""
PNG = b"\x89PNG\r\n\x1a\n"


async def test_a_message_over_max_input_is_told_and_not_asked(database):
    async with rig(database, flows=FLOWS) as house, house.mqtt("say/#", "saw/#") as client:
        for topic, payload in (
            ("ask/ada", b"x" * 101),
            ("ask/ada", "日".encode() * 34),
            ("ask/ada", b"x" * 60),  # twice in the prompt
            ("look/ada", PNG + b"x" * 2_000),
        ):
            await client.publish(topic, payload)
            said = (await message(client))[1].decode()
            assert len(said) < 300
        assert not house.model.calls
        found = await house.requests()
        assert {one["error"]["code"] for one in found} == {"input_too_long"}
        await client.publish("ask/ada", b"x" * 40)
        assert (await message(client))[0] == "say/ada"
        await client.publish("look/ada", PNG + b"x" * 900)
        assert (await message(client))[0] == "saw/ada"


async def test_a_conversation_remembers_no_more_than_256_kb(database):
    flows = FLOWS.replace("max_input = 100\n", "")
    async with rig(database, flows=flows) as house, house.mqtt("say/ada") as client:
        house.model.behave(lambda body: ok("y" * 100_000))
        for number in range(5):
            await client.publish("ask/ada", str(number).encode())
            await message(client)
        asked = [len(json.dumps(call.body)) for call in house.model.calls]
        assert max(asked) < 300_000
        assert asked[1] > 100_000  # it does remember
        kept = (await house.service.store.memory("ask", "ada", limit=100)).turns
        assert sum(len(turn.assistant) for turn in kept) < 262_144


async def test_what_all_remember_is_bounded_and_the_oldest_goes_first(any_database):
    async with Inbox(any_database) as store:
        for number in range(20):
            await store.add(entry(f"u{number}"))
            turn = Turn("q", "a" * 10_000, at=number)
            await store.save_ending(await claim_one(store), answer(turn=turn, keep_turns=5))
        assert await store.bound_memory(1_000_000) == 0
        assert 10 <= await store.bound_memory(100_000) <= 12
        memories = [await store.memory("chat", f"u{number}", limit=5) for number in range(20)]
        kept = [bool(one.turns) for one in memories]
        assert kept == sorted(kept)  # none, then all
        assert 8 <= sum(kept) <= 10
        assert await store.bound_memory(0) == sum(kept)
        assert await store.bound_memory(0) == 0


async def test_large_requests_wait_in_the_inbox_and_not_in_memory(database):
    """200 of a megabyte: no more than 128 MB of them are in hand, and all are answered."""
    flows = '[flows.look]\nrequest = "look/${user}"\nreply = "saw/${user}"\nmodel = "m"\n'
    flows += 'input = "image"\nmax_input = 1000000\n'
    async with rig(database, flows=flows) as house:
        house.model.behave(lambda body: hang(ok("seen")))
        in_hand = house.service.worker.in_hand
        most = 0
        for number in range(200):
            payload = PNG + bytes(1_000_000)
            fields = {
                "topic": f"look/u{number}",
                "id": str(number),
                "payload_base64": base64.b64encode(payload).decode(),
            }
            assert (await house.webhook(fields)).status_code == 202
            most = max(most, in_hand.bytes)
        await house.model.wait_for_calls(100)
        most = max(most, in_hand.bytes)
        house.model.release()
        await house.ended(200, 60)
        assert most < 150_000_000
        await eventually(lambda: in_hand.bytes == 0)
