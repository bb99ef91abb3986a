"""The stand-in's MQTT side, with a real client, and what REST and MQTT do to one another."""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
from typing import Any

import httpx
import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from service.demo.standin.broker import StandIn
from tests.demo.mqtt_client import TIMEOUT, client
from tests.demo.webhook import Webhook, config, until

ALL_COLUMNS = '''
rule_engine.rules.lab.sql = """SELECT id, clientid, username, topic, payload, qos,
  flags.retain AS retain, peerhost, pub_props FROM "lab/request/+" """
'''


@pytest.fixture(autouse=True)
async def _rules(broker: StandIn, webhook: Webhook) -> None:
    await broker.load(config(webhook.url) + ALL_COLUMNS)


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_publish_reaches_the_webhook(broker: StandIn, webhook: Webhook, qos: int) -> None:
    async with client(broker.mqtt_port, "dev", username="alice") as device:
        await device.publish("lab/request/u1", "你好".encode(), qos, retain=qos == 2)
        (request,) = await webhook.wait(1)
    body = request.json
    assert len(str(body.pop("id"))) == 32
    assert body == {
        "clientid": "dev",
        "username": "alice",
        "topic": "lab/request/u1",
        "payload": "你好",
        "qos": qos,
        "retain": qos == 2,
        "peerhost": "127.0.0.1",
        "pub_props": {"User-Property": {}},
    }


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_burst_from_a_client_that_leaves_at_once_arrives_in_order(
    broker: StandIn, webhook: Webhook, qos: int
) -> None:
    async with client(broker.mqtt_port, "dev") as device:
        for number in range(60):
            last = device.paho.publish("lab/request/u", str(number), qos)
        await asyncio.to_thread(last.wait_for_publish, TIMEOUT)
    received = await webhook.wait(60)
    assert [request.json["payload"] for request in received] == [str(n) for n in range(60)]
    ids = [str(request.json["id"]) for request in received]
    assert ids == sorted(set(ids))


async def test_rest_reaches_a_subscriber_and_says_whether_there_was_one(
    broker: StandIn, rest: httpx.AsyncClient
) -> None:
    message = {"topic": "/out/u1", "payload": "hello", "qos": 1}
    answer = await rest.post("/publish", json=message)
    assert answer.status_code == 202
    async with client(broker.mqtt_port, "dev") as device:
        await device.subscribe("/out/+")
        answer = await rest.post("/publish", json=message)
        assert answer.status_code == 200
        assert len(answer.json()["id"]) == 32
        found = await device.next()
        assert (found.topic, found.payload, found.qos, found.retain) == (
            "/out/u1",
            b"hello",
            1,
            False,
        )
        binary = {"topic": "/out/u2", "payload": "AP8=", "payload_encoding": "base64"}
        assert (await rest.post("/publish", json=binary)).status_code == 200
        assert (await device.next()).payload == b"\x00\xff"
    await until(lambda: broker.mqtt.client_count == 0)
    assert (await rest.post("/publish", json=message)).status_code == 202


async def test_bulk_keeps_order(broker: StandIn, rest: httpx.AsyncClient) -> None:
    async with client(broker.mqtt_port, "dev") as device:
        await device.subscribe("out/#")
        batch = [{"topic": f"out/{n}", "payload": str(n), "qos": 1} for n in range(50)]
        answer = await rest.post("/publish/bulk", json=batch)
        assert answer.status_code == 200
        assert [(await device.next()).payload for _ in batch] == [b"%d" % n for n in range(50)]


async def test_a_rest_publish_runs_rules_as_http_api(
    webhook: Webhook, rest: httpx.AsyncClient
) -> None:
    properties = {
        "content_type": "text/plain",
        "correlation_data": "corr-1",
        "response_topic": "back/here",
        "message_expiry_interval": 30,
        "payload_format_indicator": 1,
        "user_properties": {"lang": "zh"},
    }
    message = {"topic": "lab/request/u", "payload": "x", "properties": properties}
    assert (await rest.post("/publish", json=message)).status_code == 202
    (request,) = await webhook.wait(1)
    assert (request.json["clientid"], request.json["username"]) == ("http_api", "undefined")
    assert request.json["peerhost"] == "undefined"
    assert request.json["pub_props"] == {
        "Content-Type": "text/plain",
        "Correlation-Data": "corr-1",
        "Response-Topic": "back/here",
        "Message-Expiry-Interval": 30,
        "Payload-Format-Indicator": 1,
        "User-Property": {"lang": "zh"},
        "User-Property-Pairs": [{"key": "lang", "value": "zh"}],
    }


async def test_delivery_takes_the_lower_qos(broker: StandIn) -> None:
    async with client(broker.mqtt_port, "a") as one, client(broker.mqtt_port, "b") as two:
        await one.subscribe("t/#", qos=1)
        await two.subscribe("t/#", qos=0)
        for qos in (0, 2):
            await one.publish("t/x", str(qos), qos)
        assert [(await one.next()).qos for _ in range(2)] == [0, 1]
        assert [(await two.next()).qos for _ in range(2)] == [0, 0]


async def test_retained_messages(broker: StandIn, rest: httpx.AsyncClient) -> None:
    path = "/mqtt/retainer/message/%2Fstate%2Flamp"
    async with client(broker.mqtt_port, "dev") as device:
        await device.publish("/state/lamp", b"on\xff", retain=True)
        found = (await rest.get(path)).json()
        assert base64.b64decode(found["payload"]) == b"on\xff"
        assert (found["topic"], found["from_clientid"]) == ("/state/lamp", "dev")
    async with client(broker.mqtt_port, "late") as late, client(broker.mqtt_port, "no") as other:
        await other.subscribe("something/else")
        await late.subscribe("/state/#")
        message = await late.next()
        assert (message.payload, message.retain) == (b"on\xff", True)
        await late.publish("/state/lamp", b"", retain=True)
        assert (await late.next()).payload == b""
        assert (await rest.get(path)).status_code == 404
        # nobody gets what others subscribe to
        await late.publish("something/else", b"first")
        assert (await other.next()).payload == b"first"


async def test_a_retained_message_is_deleted_over_rest(
    broker: StandIn, rest: httpx.AsyncClient
) -> None:
    message = {"topic": "a/b", "payload": "x", "retain": True}
    assert (await rest.post("/publish", json=message)).status_code == 202
    assert (await rest.get("/mqtt/retainer/message/a/b")).status_code == 404  # `/` is not %2F
    assert (await rest.delete("/mqtt/retainer/message/a%2Fb")).status_code == 204
    assert (await rest.delete("/mqtt/retainer/message/a%2Fb")).status_code == 404


async def test_a_persistent_session_gets_what_came_meanwhile(
    broker: StandIn, rest: httpx.AsyncClient
) -> None:
    async with client(broker.mqtt_port, "dev", clean_session=False) as device:
        await device.subscribe("out/u")
    await until(lambda: broker.mqtt.client_count == 0)
    message = {"topic": "out/u", "payload": "while away", "qos": 1}
    assert (await rest.post("/publish", json=message)).status_code == 200
    async with client(broker.mqtt_port, "dev", clean_session=False) as device:
        assert (await device.next()).payload == b"while away"


async def test_websocket(broker: StandIn, webhook: Webhook) -> None:
    options: dict[str, Any] = {"transport": "websockets"}
    async with client(broker.ws_port, "browser", **options) as device:
        await device.subscribe("lab/#")
        await device.publish("lab/request/u", "over WebSocket")
        assert (await device.next()).payload == b"over WebSocket"
        (request,) = await webhook.wait(1)
        assert request.json["clientid"] == "browser"


async def test_an_mqtt_5_request_and_its_reply(
    broker: StandIn, webhook: Webhook, rest: httpx.AsyncClient
) -> None:
    asked = Properties(PacketTypes.PUBLISH)
    asked.ResponseTopic = "back/here"
    asked.CorrelationData = b"\x00\x00\x00\x01"
    asked.MessageExpiryInterval = 60
    asked.UserProperty = [("a", "1"), ("a", "2")]
    async with client(broker.mqtt_port, "five", protocol=paho.MQTTv5) as device:
        await device.subscribe("back/#")
        info = device.paho.publish("lab/request/u", "hello", 1, properties=asked)
        await asyncio.to_thread(info.wait_for_publish, TIMEOUT)
        (request,) = await webhook.wait(1)
        assert request.json["pub_props"] == {
            "Response-Topic": "back/here",
            "Correlation-Data": "\x00\x00\x00\x01",
            "Message-Expiry-Interval": 60,
            "User-Property": {"a": "2"},
            "User-Property-Pairs": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}],
        }
        properties = {"correlation_data": "corr-1", "user_properties": {"request_id": "r"}}
        message = {"topic": "back/here", "payload": "hi", "properties": properties}
        assert (await rest.post("/publish", json=message)).status_code == 200
        reply = await device.next()
    assert reply.properties is not None
    assert reply.properties.CorrelationData == b"corr-1"
    assert reply.properties.UserProperty == [("request_id", "r")]


async def test_a_last_will_runs_rules(broker: StandIn, webhook: Webhook) -> None:
    async with client(broker.mqtt_port, "dev", will=("lab/request/u", "gone")) as device:
        connection: Any = device.paho.socket()
        connection.shutdown(socket.SHUT_RDWR)
        (request,) = await webhook.wait(1)
    found = {name: request.json[name] for name in ("payload", "clientid", "peerhost")}
    assert found == {"payload": "gone", "clientid": "dev", "peerhost": "undefined"}


@pytest.mark.parametrize("clean", [True, False])
async def test_a_second_client_of_the_same_name_takes_over(
    broker: StandIn, rest: httpx.AsyncClient, clean: bool
) -> None:
    async with client(broker.mqtt_port, "dev", clean_session=clean) as first:
        await first.subscribe("out/#")
        async with client(broker.mqtt_port, "dev", clean_session=clean) as second:
            await asyncio.wait_for(first.closed.wait(), TIMEOUT)
            await second.subscribe("out/#")
            await rest.post("/publish", json={"topic": "out/1", "payload": "a"})
            await rest.post("/publish", json={"topic": "out/1", "payload": "b"})
            assert [(await second.next()).payload for _ in range(2)] == [b"a", b"b"]
        assert first.messages.empty()


async def test_a_packet_over_1_mb_ends_only_its_connection(
    broker: StandIn, webhook: Webhook
) -> None:
    async with client(broker.mqtt_port, "big") as big, client(broker.mqtt_port, "dev") as device:
        big.paho.publish("lab/request/u", b"x" * 1_100_000, 0)
        await asyncio.wait_for(big.closed.wait(), TIMEOUT)
        await device.publish("lab/request/u", b"x" * 1_000_000)
        (request,) = await webhook.wait(1)
        assert len(str(request.json["payload"])) == 1_000_000


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x10",
        b"\x10\xff\xff\xff\xff\xff",
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x09",
        b"\x10\x0c\x00\x06MQIsdp\x03\x02\x00\x3c",
        b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\xff\xff\xff\xff",
    ],
)
async def test_garbage_is_hung_up_on(
    broker: StandIn, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.mqtt_port)
    writer.write(garbage)
    writer.write_eof()
    await asyncio.wait_for(reader.read(), TIMEOUT)
    writer.close()
    await writer.wait_closed()
    async with client(broker.mqtt_port, "dev") as device:
        await device.subscribe("t")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
