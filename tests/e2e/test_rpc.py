"""MQTT 5 request and response, through the stand-in's REST side: it speaks no MQTT 5."""

from __future__ import annotations

import json

import pytest

from service.demo.standin.published import Message
from service.rulesql.reserved import REPLY_TOPIC
from tests.fakes.model import ok, status
from tests.rig import eventually, message, rig

BINARY = bytes(range(256))


def last(house, topic):
    """The last message the broker saw on a topic."""
    return next(one for one in reversed(house.broker.mqtt.published) if one.topic == topic)


async def test_the_reply_goes_to_the_response_topic_with_its_properties(any_database):
    async with rig(any_database) as house, house.mqtt("answer/#") as client:
        await house.mqtt5(
            "ask/ada", "What is MQTT?", response_topic="answer/x/1", correlation_data="c-1"
        )
        topic, payload = await message(client)
        assert topic == "answer/x/1"
        reply = json.loads(payload)
        (request,) = await house.ended()
        assert reply["id"] == request["id"]
        assert reply["conversation"] == "ada"
        assert reply["text"] == "echo: What is MQTT?"
        assert set(reply) == {"id", "conversation", "text", "model", "usage"}
        properties = last(house, "answer/x/1").properties
        assert properties["Correlation-Data"] == "c-1"
        assert properties["Content-Type"] == "application/json"
        assert properties["Message-Expiry-Interval"] == 600
        assert properties["User-Property"] == {"request_id": request["id"]}
        assert (request["state"], request["delivered"]) == ("done", True)


@pytest.mark.parametrize(
    "wanted", ["alerts/boiler", "answer/+", "answer/#", REPLY_TOPIC, "$SYS/x", "", "ask/ada"]
)
async def test_a_device_does_not_choose_just_any_topic(database, wanted):
    async with rig(database) as house, house.mqtt("#") as client:
        await house.mqtt5("ask/ada", "hi", response_topic=wanted)
        heard = [await message(client), await message(client)]
        assert sorted(topic for topic, _ in heard) == ["answer/ada", "ask/ada"]
        await house.ended()
        assert client.messages.empty()


async def test_a_client_of_3_1_1_loses_nothing_but_the_properties(any_database):
    async with rig(any_database) as house, house.mqtt("answer/ada") as client:
        await client.publish("ask/ada", b"What is MQTT?")
        reply = json.loads((await message(client))[1])
        assert reply["text"] == "echo: What is MQTT?"
        assert "Correlation-Data" not in last(house, "answer/ada").properties


@pytest.mark.parametrize("correlation", [BINARY, b"\xff", b"\0\xfe"])
async def test_binary_correlation_comes_back_unchanged(any_database, correlation):
    async with rig(any_database) as house, house.mqtt("answer/#") as client:
        house.model.script(ok('Grüße\n"quoted"'), status(400))
        for _ in range(2):  # a reply, and a failure
            house.broker.publish(
                Message(
                    topic="ask/ada",
                    payload=b"hi",
                    clientid="five",
                    properties={
                        "User-Property": {},
                        "Response-Topic": "answer/five",
                        "Correlation-Data": correlation,
                    },
                )
            )
            topic, payload = await message(client)
            assert topic == "answer/five"
            heard = last(house, "answer/five")
            assert heard.properties["Correlation-Data"] == correlation
            assert heard.properties["Content-Type"] == "application/json"
            assert heard.qos == 1
            document = json.loads(payload)
            told = heard.properties["User-Property"]
            assert told["request_id"] == document["id"]
            if "error" in document:
                assert document["error"]["code"] == told["error"] == "model_refused"
            else:
                assert document["text"] == 'Grüße\n"quoted"'
        ends = await house.ended(2)
        assert [one["delivered"] for one in ends] == [None, None]  # the rule does not say


async def test_a_failure_is_told_where_the_reply_would_have_gone(database):
    async with rig(database) as house, house.mqtt("answer/#") as client:
        house.model.script(status(400))
        await house.mqtt5("ask/ada", "hi", response_topic="answer/x/2", correlation_data="c-2")
        topic, payload = await message(client)
        assert topic == "answer/x/2"
        document = json.loads(payload)
        assert document["error"]["code"] == "model_refused"
        properties = last(house, "answer/x/2").properties
        assert properties["Correlation-Data"] == "c-2"
        assert properties["User-Property"] == {
            "request_id": document["id"], "error": "model_refused"
        }  # fmt: skip


async def test_an_error_topic_of_its_own_goes_before_the_response_topic(database):
    flows = """
[flows.rpc]
request = "ask/${client}"
reply = "answer/${client}"
error = "errors/${client}"
allow_response_topics = ["answer/#"]
"""
    async with rig(database, flows=flows) as house, house.mqtt("answer/#", "errors/#") as client:
        house.model.script(status(400))
        await house.mqtt5("ask/ada", "hi", response_topic="answer/x/2")
        assert (await message(client))[0] == "errors/ada"


async def test_a_request_that_expired_on_its_way_is_not_asked_but_told(any_database):
    async with rig(any_database) as house, house.mqtt("answer/#") as client:
        await house.move(31_000)
        await house.mqtt5("ask/ada", "late", message_expiry_interval=30)
        await house.mqtt5("ask/bob", "in time", message_expiry_interval=90)
        heard = dict([await message(client), await message(client)])
        assert json.loads(heard["answer/ada"])["error"]["code"] == "expired"
        assert json.loads(heard["answer/bob"])["text"] == "echo: in time"
        assert [call.text for call in house.model.calls] == ["in time"]
        await house.ended(2)
        states = {one["conversation"]: one["state"] for one in await house.requests()}
        assert states == {"ada": "expired", "bob": "done"}


async def test_device_properties_reach_the_inbox_and_no_topic(database):
    """User properties of a request are its own; the reply carries ours."""
    async with rig(database) as house, house.mqtt("answer/#") as client:
        await house.mqtt5("ask/ada", "hi", user_properties={"request_id": "mine", "x": "y"})
        await message(client)
        told = last(house, "answer/ada").properties["User-Property"]
        (request,) = await house.ended()
        assert told == {"request_id": request["id"]}
        await eventually(lambda: house.broker.mqtt.published)
