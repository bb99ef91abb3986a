"""MQTT 5's properties, both ways."""

from __future__ import annotations

import asyncio
import base64

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from service.domain import Publish
from service.emqx.publish_api import Emqx
from tests.contract.conftest import Setup
from tests.contract.test_publishing import CORRELATION, answer, publishing


def properties(**wanted: object) -> Properties:
    found = Properties(PacketTypes.PUBLISH)
    for name, value in wanted.items():
        setattr(found, name, value)
    return found


def test_a_request_with_every_property(setup: Setup) -> None:
    with setup.device("five", version=5) as device:
        device.publish(
            f"{setup.root}/chat/five/ask",
            "hello",
            properties=properties(
                ResponseTopic=f"{setup.root}/answers/five",
                CorrelationData=CORRELATION,
                ContentType="text/plain",
                MessageExpiryInterval=30,
                PayloadFormatIndicator=1,
                UserProperty=[("a", "1"), ("a", "2"), ("lang", "zh")],
            ),
        )
    (body,) = setup.webhook.wait(lambda bodies: len(bodies) == 1)
    assert base64.b64decode(body["correlation_base64"]) == CORRELATION
    props = body["pub_props"]
    assert props["Response-Topic"] == f"{setup.root}/answers/five"
    assert props["Content-Type"] == "text/plain"
    assert props["Message-Expiry-Interval"] == 30
    assert [(pair["key"], pair["value"]) for pair in props["User-Property-Pairs"]] == [
        ("a", "1"),
        ("a", "2"),
        ("lang", "zh"),
    ]


def test_a_request_without_any_property(setup: Setup) -> None:
    with setup.device("five", version=5) as device:
        device.publish(f"{setup.root}/chat/five/ask", "hello")
    (body,) = setup.webhook.wait(lambda bodies: len(bodies) == 1)
    assert body["correlation_base64"] == ""


def test_binary_correlation_comes_back_through_the_reply_rule(setup: Setup) -> None:
    topic = f"{setup.root}/answers/five"
    with setup.device("five", version=5) as device:
        device.subscribe(topic)
        assert publishing(setup, lambda emqx: emqx.publish(answer(topic))) is None
        (heard,) = device.wait(lambda heard: len(heard) == 1)
    assert heard.payload.decode() == "Grüße\x00"
    assert 0 < heard.properties["MessageExpiryInterval"] <= 60
    assert heard.properties["CorrelationData"] == CORRELATION
    assert heard.properties["ContentType"] == "text/plain"
    assert ("request_id", "r-1") in [tuple(pair) for pair in heard.properties["UserProperty"]]


def test_text_correlation_comes_back_through_publish(setup: Setup) -> None:
    topic = f"{setup.root}/answers/five"
    message = Publish(
        topic=topic,
        payload=b"hello",
        content_type="application/json",
        correlation=b"corr-1",
        expiry=60,
        user_properties=(("request_id", "r-2"),),
    )

    async def send() -> bool | None:
        emqx = Emqx(setup.broker.url, setup.broker.key)
        try:
            return await emqx.publish(message)
        finally:
            await emqx.close()

    with setup.device("five", version=5) as device:
        device.subscribe(topic)
        assert asyncio.run(send()) is True
        (heard,) = device.wait(lambda heard: len(heard) == 1)
    assert heard.properties["CorrelationData"] == b"corr-1"
    assert heard.properties["ContentType"] == "application/json"
    assert heard.properties["MessageExpiryInterval"] <= 60
    assert ("request_id", "r-2") in [tuple(pair) for pair in heard.properties["UserProperty"]]
