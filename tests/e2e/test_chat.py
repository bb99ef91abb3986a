"""The main job: a question over MQTT in, a reply over MQTT out."""

from __future__ import annotations

import json

from tests.fakes.model import hang, ok, status
from tests.rig import message, rig

HISTORY = """
[flows.chat]
request = "chatgpt/request/${user}"
reply = "chatgpt/response/${user}"
system = "You are a helpful assistant."
history = { messages = 4, ttl = "1h", reset = ["/reset"] }
"""


async def test_a_question_gets_its_reply_on_the_topics_of_the_nodejs_demo(any_database):
    async with rig(any_database) as house, house.mqtt("chatgpt/response/ada") as ada:
        house.model.script(ok("Hello Ada!"))
        await ada.publish("chatgpt/request/ada", b"Hi")
        assert await message(ada) == ("chatgpt/response/ada", b"Hello Ada!")
        (request,) = await house.ended()
        assert (request["state"], request["delivered"]) == ("done", True)
        (call,) = house.model.calls
        assert call.body["model"] == "gpt-5.4-mini"
        assert call.body["messages"][-1] == {"role": "user", "content": "Hi"}
        # Nothing optional unless a flow sets it, but an end to how long the answer may be.
        assert set(call.body) == {"model", "messages", "stream", "max_tokens"}


async def test_each_user_has_a_memory_of_the_last_messages(any_database):
    async with (
        rig(any_database, flows=HISTORY) as house,
        house.mqtt("chatgpt/response/#") as client,
    ):
        for number in range(4):
            await client.publish("chatgpt/request/ada", f"q{number}".encode())
            await message(client)
        await client.publish("chatgpt/request/bob", b"other")
        await message(client)
        system, *history = house.model.calls[3].body["messages"]
        assert system["role"] == "system"
        said = [one["content"] for one in history]
        assert said == ["q1", "echo: q1", "q2", "echo: q2", "q3"]
        assert [one["content"] for one in house.model.calls[4].body["messages"][1:]] == ["other"]


async def test_the_reset_word_forgets_and_is_not_asked(any_database):
    async with rig(any_database, flows=HISTORY) as house, house.mqtt("chatgpt/response/ada") as ada:
        for text in (b"remember me", b"/reset", b"who am I"):
            await ada.publish("chatgpt/request/ada", text)
            await message(ada)
        assert len(house.model.calls) == 2
        asked = house.model.calls[1].body["messages"]
        assert [one["content"] for one in asked[1:]] == ["who am I"]


async def test_failed_exchanges_do_not_enter_memory(any_database):
    async with rig(any_database, flows=HISTORY) as house, house.mqtt("chatgpt/response/ada") as ada:
        house.model.script(status(400, error_code="invalid_request", message="no"), ok("fine"))
        await ada.publish("chatgpt/request/ada", b"bad")
        _, payload = await message(ada)
        assert payload.startswith(b"No answer: the model refused the request")
        await ada.publish("chatgpt/request/ada", b"good")
        assert (await message(ada))[1] == b"fine"
        answer = await house.http.get("/conversations/chat/ada")
        assert [turn["user"] for turn in answer.json()["turns"]] == ["good"]
        assert (await house.http.delete("/conversations/chat/ada")).json() == {"forgotten": 1}
        answer = await house.http.get("/conversations/chat/ada")
        assert answer.json()["turns"] == []


async def test_memory_survives_a_restart_of_the_service(any_database):
    async with rig(any_database) as house, house.mqtt("chatgpt/response/ada") as ada:
        await ada.publish("chatgpt/request/ada", b"first")
        await message(ada)
    async with rig(any_database) as house, house.mqtt("chatgpt/response/ada") as ada:
        await ada.publish("chatgpt/request/ada", b"second")
        await message(ada)
        said = [one["content"] for one in house.model.calls[0].body["messages"][1:]]
        assert said == ["first", "echo: first", "second"]


async def test_json_replies_carry_id_model_and_usage(database):
    flows = HISTORY + 'format = "json"\n'
    async with rig(database, flows=flows) as house, house.mqtt("chatgpt/response/ada") as ada:
        await ada.publish("chatgpt/request/ada", b"hi")
        document = json.loads((await message(ada))[1])
        (request,) = await house.ended()
        assert document["id"] == request["id"]
        assert document["conversation"] == "ada"
        assert document["text"] == "echo: hi"
        assert document["usage"]["total_tokens"] > 0
        published = house.broker.mqtt.published[-1]
        assert published.properties["Content-Type"] == "application/json"
        assert published.properties["User-Property"]["request_id"] == request["id"]


async def test_the_webhook_does_not_wait_for_the_model(database):
    async with rig(database) as house:
        hold = hang()
        house.model.script(hold)
        answer = await house.webhook({"id": "1", "topic": "chatgpt/request/ada", "payload": "x"})
        assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "duplicates": 0})
        await house.model.wait_for_calls(1)
        (request,) = await house.requests()
        assert request["state"] == "answering"
        house.model.release()
        await house.ended()


async def test_memory_keeps_to_its_tokens_and_its_time(any_database):
    flows = """
[flows.chat]
request = "chatgpt/request/${user}"
reply = "chatgpt/response/${user}"
history = { messages = 20, tokens = 38, ttl = "1h" }
"""
    async with rig(any_database, flows=flows) as house, house.mqtt("chatgpt/response/ada") as ada:

        async def ask(text):
            await ada.publish("chatgpt/request/ada", text.encode())
            await message(ada)
            return [one["content"] for one in house.model.calls[-1].messages[:-1]]

        house.model.behave(lambda body: ok("yes"))
        assert await ask("one") == []
        assert await ask("two " * 25) == ["one", "yes"]
        # The long one takes most of the tokens, so the one before it is left out.
        assert await ask("three " * 5) == ["two " * 25, "yes"]
        await house.ended(3)
        await house.move(3_601_000)
        assert await ask("four") == []


async def test_a_conversation_may_be_another_than_the_topic_says(database):
    flows = """
[flows.chat]
request = "chatgpt/request/${user}"
reply = "chatgpt/response/${user}"
conversation = "${payload.room}"
prompt = "${payload.text}"
input = "json"
history = { messages = 10 }
"""
    async with rig(database, flows=flows) as house, house.mqtt("chatgpt/response/+") as client:

        async def ask(user, **fields):
            await client.publish(f"chatgpt/request/{user}", json.dumps(fields).encode())
            return await message(client)

        await ask("ada", room="kitchen", text="I am Ada")
        await ask("bob", room="kitchen", text="I am Bob")
        said = [one["content"] for one in house.model.calls[1].messages]
        assert said == ["I am Ada", "echo: I am Ada", "I am Bob"]
        await ask("eve", text="I am nowhere")  # no room: a conversation of one's own
        assert [one["content"] for one in house.model.calls[2].messages] == ["I am nowhere"]
        topic, payload = await ask("ada", room="kitchen")
        assert (topic, payload) == ("chatgpt/response/ada", b"echo: undefined")
        await client.publish("chatgpt/request/ada", b"no JSON")
        assert b"not JSON" in (await message(client))[1]


async def test_a_resent_message_is_one_request_where_it_says_who_it_is(any_database):
    flows = """
[flows.meter]
request = "meters/${meter}/report"
reply = "meters/${meter}/comment"
dedupe = "${clientid}/${payload.msg_id}"
"""
    async with rig(any_database, flows=flows) as house, house.mqtt("meters/+/comment") as client:
        for msg_id in (1, 1, 2):  # EMQX gives each publish a new id
            await client.publish("meters/m/report", json.dumps({"msg_id": msg_id}).encode())
        heard = {(await message(client))[1] for _ in range(2)}
        assert heard == {b'echo: {"msg_id": 1}', b'echo: {"msg_id": 2}'}
        await house.ended(2)
        assert len(await house.requests()) == 2
        assert len(house.model.calls) == 2
