"""Request and response as MQTT 5 means it, with a real client: what the flow `rpc` is for."""

from __future__ import annotations

import json

import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.demo.mqtt_client import client
from tests.rig import rig


@pytest.mark.parametrize("correlation", [b"\0\0\0\1", b"c-1", b"\xff\0\x7f", b""])
@pytest.mark.parametrize("transport", ["tcp", "websockets"])
async def test_a_request_and_its_response(database, transport, correlation):
    """A four-byte counter, the commonest Correlation-Data of all, comes back as it went."""
    async with rig(database) as house:
        port = house.broker.mqtt_port if transport == "tcp" else house.broker.ws_port
        options = {"transport": transport, "protocol": paho.MQTTv5}
        async with client(port, "five", **options) as device:
            await device.subscribe("answer/five/#")
            asked = Properties(PacketTypes.PUBLISH)
            asked.ResponseTopic = "answer/five/1"
            asked.CorrelationData = correlation
            asked.UserProperty = [("lang", "en")]
            asked.MessageExpiryInterval = 300
            device.paho.publish("ask/ada", "What is MQTT?", 1, properties=asked)
            reply = await device.next()
    assert reply.topic == "answer/five/1"
    assert json.loads(reply.payload)["text"] == "echo: What is MQTT?"
    found = reply.properties.json()
    assert bytes.fromhex(found.get("CorrelationData", "")) == correlation
    assert found["ContentType"] == "application/json"
    assert 0 < found["MessageExpiryInterval"] <= 600
    assert [pair[0] for pair in found["UserProperty"]] == ["request_id"]
