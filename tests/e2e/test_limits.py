"""Limits per conversation, client and day: reserved before the model is asked."""

from __future__ import annotations

import json

from tests.fakes.model import delay, hang, ok, status
from tests.rig import message, rig

FLOWS = """
[flows.chat]
request = "chat/${user}/ask"
reply = "chat/${user}/say"
status = "chat/${user}/light"
%s
"""
TOO_MANY = b"No answer: too many requests, wait a little."
USED_UP = b"No answer: this flow has used up its tokens for today."
DAY = 86_400_000


async def minute(house):
    """Move to the start of a minute, so that a window does not end while a test runs."""
    await house.move(60_000 - house.clock() % 60_000)


async def test_over_the_limit_the_sender_is_told_and_the_model_not_asked(any_database):
    flows = FLOWS % 'limit = "2/min"'
    async with rig(any_database, flows=flows) as house, house.mqtt("chat/+/say") as client:
        await minute(house)
        heard = []
        for number in range(4):
            await client.publish("chat/ada/ask", f"q{number}".encode())
            heard.append((await message(client))[1])
        assert heard == [b"echo: q0", b"echo: q1", TOO_MANY, TOO_MANY]
        await client.publish("chat/bob/ask", b"hi")  # another conversation
        assert await message(client) == ("chat/bob/say", b"echo: hi")
        ends = await house.ended(5)
        assert [one["state"] for one in ends] == ["done", "ignored", "ignored", "done", "done"]
        assert {one["error"]["code"] for one in ends if one["error"]} == {"limit"}
        await house.move(60_000)
        await client.publish("chat/ada/ask", b"again")
        assert await message(client) == ("chat/ada/say", b"echo: again")
        assert len(house.model.calls) == 4


async def test_requests_side_by_side_do_not_overrun_a_limit(any_database):
    flows = FLOWS % 'limit = "3/min"'
    async with rig(any_database, flows=flows) as house, house.mqtt("chat/+/say") as client:
        await minute(house)
        house.model.behave(lambda body: hang())
        for number in range(12):
            await client.publish("chat/ada/ask", f"q{number}".encode())
        refused = [(await message(client))[1] for _ in range(9)]
        assert refused == [TOO_MANY] * 9
        assert len(await house.model.wait_for_calls(3)) == 3
        house.model.release()
        assert all([(await message(client))[1].startswith(b"echo") for _ in range(3)])


async def test_a_client_is_limited_over_all_its_conversations(any_database):
    flows = FLOWS % 'client_limit = "2/min"'
    async with rig(any_database, flows=flows) as house, house.mqtt("chat/+/say") as client:
        await minute(house)

        async def ask(user, clientid):
            body = {"id": f"{user}{clientid}", "topic": f"chat/{user}/ask", "payload": "x"}
            await house.webhook({**body, "clientid": clientid})
            return (await message(client))[1]

        assert [await ask(user, "one") for user in "abc"] == [b"echo: x", b"echo: x", TOO_MANY]
        assert await ask("c", "two") == b"echo: x"


async def test_tokens_of_a_day_are_reserved_before_and_settled_after(any_database):
    flows = FLOWS % "daily_tokens = 1000\nmax_tokens = 200"
    async with rig(any_database, flows=flows) as house, house.mqtt("chat/+/say") as client:
        house.model.behave(lambda body: hang(ok("x", usage=(10, 90))))
        for number in range(10):  # each could take 200 and its prompt: four fit at once
            await client.publish(f"chat/u{number}/ask", b"x")
        assert [(await message(client))[1] for _ in range(6)] == [USED_UP] * 6
        assert len(await house.model.wait_for_calls(4)) == 4
        house.model.release()
        assert [(await message(client))[1] for _ in range(4)] == [b"x"] * 4
        # They took 100 each: 600 are left, and the next ones fit.
        heard = []
        for _ in range(5):
            await client.publish("chat/ada/ask", b"x")
            heard.append((await message(client))[1])
        assert heard == [b"x"] * 4 + [USED_UP]  # the fifth could take more than is left
        await house.ended(15)
        await house.move(DAY)
        await client.publish("chat/ada/ask", b"x")
        assert (await message(client))[1] == b"x"


async def test_a_streamed_answer_counts_too(database):
    flows = FLOWS % 'daily_tokens = 1000\nmax_tokens = 100\nstream = "chat/${user}/stream"'
    async with rig(database, flows=flows) as house, house.mqtt("chat/+/say") as client:
        house.model.script(ok("x", usage=(10, 940)))
        await client.publish("chat/ada/ask", b"x")
        assert (await message(client))[1] == b"x"
        (request,) = await house.ended()
        assert (await house.request(request["id"]))["usage"]["total_tokens"] == 950
        await client.publish("chat/ada/ask", b"x")
        assert (await message(client))[1] == USED_UP


async def test_a_picture_is_not_taken_for_a_long_text(database):
    flows = """
[flows.camera]
request = "cameras/${camera}/snapshot"
reply = "cameras/${camera}/description"
input = "image"
prompt = "What is it?"
daily_tokens = 12000
"""
    picture = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 400
    async with rig(database, flows=flows) as house, house.mqtt("cameras/+/description") as client:
        house.model.behave(lambda body: ok("a door", usage=(900, 10)))
        for _ in range(3):
            await client.publish("cameras/door/snapshot", picture)
            assert (await message(client))[1] == b"a door"


async def test_where_a_server_does_not_count_an_estimate_counts(database):
    flows = FLOWS % 'daily_tokens = 1000\nmax_tokens = 100\nstream = "chat/${user}/stream"'
    async with rig(database, flows=flows) as house, house.mqtt("chat/+/say") as client:
        long = ("word " * 600).strip()
        house.model.script(ok(long, usage=False))
        await client.publish("chat/ada/ask", b"x")
        assert (await message(client))[1].decode() == long
        await house.ended()
        await client.publish("chat/ada/ask", b"x")
        assert (await message(client))[1] == USED_UP


async def test_a_server_that_can_not_count_streams_is_asked_without(database):
    flows = FLOWS % 'stream = "chat/${user}/stream"'
    unknown = status(400, message="Unrecognized request argument supplied: stream_options")
    async with rig(database, flows=flows) as house, house.mqtt("chat/+/say") as client:
        house.model.script(unknown, ok("one"), ok("two"))
        for said in (b"one", b"two"):
            await client.publish("chat/ada/ask", b"x")
            assert (await message(client))[1] == said
        asked = ["stream_options" in call.body for call in house.model.calls]
        assert asked == [True, False, False]


async def test_a_request_counts_once_however_often_it_is_tried(database, quick):
    flows = FLOWS % 'limit = "1/h"\ndaily_tokens = 1000\nmax_tokens = 400'
    async with rig(database, flows=flows) as house, house.mqtt("chat/+/say") as client:
        await minute(house)
        house.model.script(*[status(500)] * 7, ok("at last", usage=(10, 10)))
        await client.publish("chat/ada/ask", b"x")
        assert (await message(client))[1] == b"at last"
        (request,) = await house.ended()
        assert len((await house.request(request["id"]))["attempts"]) == 8
        await client.publish("chat/ada/ask", b"x")
        assert (await message(client))[1] == TOO_MANY


async def test_failures_take_nothing_of_the_tokens_of_a_day(database, quick):
    flows = FLOWS % "daily_tokens = 1000\nmax_tokens = 400"
    async with rig(database, flows=flows) as house, house.mqtt("chat/+/say") as client:
        house.model.script(*[status(400)] * 5)
        for _ in range(5):
            await client.publish("chat/ada/ask", b"x")
            assert b"refused" in (await message(client))[1]
        await client.publish("chat/ada/ask", b"x")
        assert (await message(client))[1] == b"echo: x"


async def test_waiting_for_a_paused_provider_takes_nothing(database, quick):
    flows = FLOWS % 'limit = "3/h"' + '[flows.other]\nrequest = "other"\nreply = "said"'
    async with rig(database, flows=flows) as house, house.mqtt("chat/+/say") as client:
        await minute(house)
        house.model.keys = {"sk-new"}
        for number in range(3):
            await client.publish("chat/ada/ask", f"q{number}".encode())
        await house.model.wait_for_calls(6)  # the key is looked at again and again
        house.model.keys = None
        heard = [(await message(client))[1] for _ in range(3)]
        assert sorted(heard) == [b"echo: q0", b"echo: q1", b"echo: q2"]
        await client.publish("chat/ada/ask", b"x")
        assert (await message(client))[1] == TOO_MANY


async def test_what_is_over_a_limit_shows_no_working_light(database):
    flows = FLOWS % 'limit = "1/h"'
    async with rig(database, flows=flows) as house, house.mqtt("chat/+/light") as client:
        await minute(house)
        for _ in range(2):
            await client.publish("chat/ada/ask", b"x")
        lights = [json.loads((await message(client))[1]) for _ in range(3)]
        first, *others = [light["status"] for light in lights]
        assert sorted([first, *others]) == ["completed", "ignored", "working"]
        assert {light.get("error") for light in lights} == {None, "limit"}


async def test_over_http_too_many_is_429(database):
    flows = FLOWS % 'limit = "1/h"'
    async with rig(database, flows=flows) as house:
        await minute(house)
        body = {"text": "hi", "conversation": "ada"}
        codes = []
        for _ in range(2):
            answer = await house.http.post("/ask/chat", json=body, headers={"prefer": "wait=20"})
            codes.append(answer.status_code)
        assert codes == [200, 429]
        assert answer.json()["error"]["code"] == "limit"


async def test_replicas_share_their_limits(shared_database):
    flows = FLOWS % 'limit = "5/min"\ndaily_tokens = 100000'
    async with (
        rig(shared_database, flows=flows, max_concurrency=8) as house,
        house.replica() as other,
        house.mqtt("chat/+/say") as client,
    ):
        await minute(house)
        house.model.behave(lambda body: delay(0.05))
        for number in range(24):
            await client.publish("chat/ada/ask", f"q{number}".encode())
        heard = [(await message(client))[1] for _ in range(24)]
        assert heard.count(TOO_MANY) == 19
        assert len(house.model.calls) == 5
        await house.ended(24)
        for service in (house.service, other):  # both had a share of the work
            text = await service.scrape()
            assert b"emqx_gpt_ended_total{" in text
