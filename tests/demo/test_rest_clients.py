"""Clients, subscriptions, topics and numbers over REST: what people look at when nothing comes."""

from __future__ import annotations

import json
from typing import Any

import httpx
import paho.mqtt.client as paho
import pytest

from service.demo.standin.broker import StandIn
from tests.demo.mqtt_client import client
from tests.demo.raw_mqtt import Raw
from tests.demo.recorded import RECORDINGS
from tests.demo.webhook import until


async def test_a_client_is_shown(broker: StandIn, rest: httpx.AsyncClient) -> None:
    async with client(broker.mqtt_port, "dev", username="alice", protocol=paho.MQTTv5) as device:
        await device.subscribe("a/+", qos=1)
        shown = (await rest.get("/clients/dev")).json()
        expected: dict[str, Any] = {
            "clientid": "dev",
            "username": "alice",
            "connected": True,
            "proto_ver": 5,
            "keepalive": 60,
            "ip_address": "127.0.0.1",
            "subscriptions_cnt": 1,
        }
        assert {name: shown[name] for name in expected} == expected
        listed = (await rest.get("/clients")).json()
        assert [one["clientid"] for one in listed["data"]] == ["dev"]
        assert listed["meta"]["count"] == 1
        for query in ("clientid=no", "username=bob", "conn_state=disconnected", "page=2"):
            assert (await rest.get(f"/clients?{query}")).json()["data"] == []
        subscription = {
            "topic": "a/+",
            "clientid": "dev",
            "qos": 1,
            "nl": 0,
            "rap": 0,
            "rh": 0,
            "node": "emqx@127.0.0.1",
            "durable": False,
        }
        assert (await rest.get("/clients/dev/subscriptions")).json() == [subscription]
        assert (await rest.get("/subscriptions")).json()["data"] == [subscription]
        for query, count in (
            ("match_topic=a/b", 1),
            ("match_topic=b", 0),
            ("topic=a/%2B", 1),
            ("qos=0", 0),
            ("share_group=g", 0),
        ):
            found = (await rest.get(f"/subscriptions?{query}")).json()
            assert len(found["data"]) == count, query
        topics = (await rest.get("/topics")).json()["data"]
        assert topics == [{"topic": "a/+", "node": "emqx@127.0.0.1"}]
        (stats,) = (await rest.get("/stats")).json()
        for name in ("connections", "sessions", "subscriptions", "topics"):
            assert stats[f"{name}.count"] == 1
        total = (await rest.get("/stats?aggregate=true")).json()
        assert total["live_connections.count"] == 1
    await until(lambda: not broker.mqtt.sessions)
    answer = await rest.get("/clients/dev")
    assert (answer.status_code, answer.json()["code"]) == (404, "CLIENTID_NOT_FOUND")


async def test_a_client_is_kicked_out(broker: StandIn, rest: httpx.AsyncClient) -> None:
    device = await Raw(broker.mqtt_port, 5).connect("dev", session_expiry=100)
    assert (await rest.delete("/clients/dev")).status_code == 204
    await device.closed()
    assert device.reason == 0x98
    assert (await rest.delete("/clients/dev")).status_code == 404
    away = await Raw(broker.mqtt_port, 5).connect("away", session_expiry=100)
    await away.drop()
    shown = (await rest.get("/clients/away")).json()
    assert (shown["connected"], shown["mqueue_len"]) == (False, 0)
    assert (await rest.delete("/clients/away")).status_code == 204


async def test_retained_messages_are_listed(broker: StandIn, rest: httpx.AsyncClient) -> None:
    for topic in ("a/1", "a/2", "b"):
        await rest.post("/publish", json={"topic": topic, "payload": "x", "retain": True})
    found = (await rest.get("/mqtt/retainer/messages?topic=a/%23")).json()
    assert [one["topic"] for one in found["data"]] == ["a/1", "a/2"]


HEARD = [
    exchange
    for exchange in json.loads((RECORDINGS / "more" / "reply-rule-expiry.json").read_text())
    if "heard" in exchange["title"]
]


@pytest.mark.parametrize("number", range(len(HEARD)))
async def test_a_reply_rule_sets_the_expiry(
    broker: StandIn, rest: httpx.AsyncClient, number: int
) -> None:
    """What was heard on the real broker stands in the recording's title."""
    first = json.loads((RECORDINGS / "more" / "reply-rule-expiry.json").read_text())[0]
    assert (await rest.post("/rules", json=first["request"]["body"])).status_code == 201
    recorded = HEARD[number]
    async with client(broker.mqtt_port, "dev", protocol=paho.MQTTv5) as device:
        await device.subscribe("exp-test/out", qos=1)
        answer = await rest.post("/publish", json=recorded["request"]["body"])
        assert answer.status_code == recorded["response"]["status"]
        message = await device.next()
    found = message.properties.json()  # type: ignore[union-attr]
    said = recorded["title"]
    assert ("'MessageExpiryInterval'" in said) == ("MessageExpiryInterval" in found)
    if "expiry 0" in said:
        assert found["MessageExpiryInterval"] == 0
    if "expiry 60" in said:
        assert 58 <= found["MessageExpiryInterval"] <= 60
    assert found["CorrelationData"] == "00ff01"
    assert found["UserProperty"] == [["request_id", "1"]] or found["UserProperty"] == [
        ("request_id", "1")
    ]
    assert (message.payload, message.qos, message.retain) == (b"x", 1, False)


async def test_sys_topics(broker: StandIn) -> None:
    device = await Raw(broker.mqtt_port, 4).connect("dev")
    await device.subscribe(("$SYS/#", 0))
    topics = {one.split()[1] for one in device.messages()}
    assert "$SYS/brokers/emqx@127.0.0.1/version" in topics
    assert "$SYS/broker/uptime" in topics
    other = await Raw(broker.mqtt_port, 4).connect("other")
    await device.until(lambda: any("clients/other/connected" in one for one in device.messages()))
    await other.subscribe(("#", 0))  # which does not match $SYS
    await other.publish("$SYS/brokers/x", b"forged", 1)
    await device.ping()
    assert other.messages() == []
    assert not any("forged" in one for one in device.messages())
    await other.leave()
    await device.leave()


async def test_delayed_messages(broker: StandIn) -> None:
    """EMQX's `$delayed/SECONDS/TOPIC`."""
    device = await Raw(broker.mqtt_port, 4).connect("dev")
    await device.subscribe(("later", 1))
    await device.publish("$delayed/1/later", b"x")
    assert device.messages() == []
    await device.until(device.messages)
    await device.leave()
