"""What reaches the webhook of what devices publish (MQTT 3.1.1)."""

from __future__ import annotations

import base64
import ipaddress
import json
import time

import pytest

from tests.contract.conftest import Setup, eventually


def test_a_message_with_all_its_fields(setup: Setup) -> None:
    topic = f"{setup.root}/chat/ada/ask"
    with setup.device("ada") as device:
        device.publish(topic, "你好 hello")
    (body,) = setup.webhook.wait(lambda bodies: len(bodies) == 1)
    assert body.pop("id")
    received = body.pop("publish_received_at")
    assert isinstance(received, int)
    assert abs(received / 1000 - time.time()) < 3600  # milliseconds, whatever the clocks
    assert body.pop("pub_props") in ({}, {"User-Property": {}})
    ipaddress.ip_address(body.pop("peerhost"))  # the client's, wherever it stands
    assert body == {
        "flow": "chat",
        "clientid": setup.client_id("ada"),
        "username": "undefined",
        "topic": topic,
        "payload": "你好 hello",
        "qos": 1,
        "correlation_base64": "",
    }
    headers = setup.webhook.posts[0].headers
    assert headers["authorization"] == f"Bearer {setup.webhook.token}"
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "payload",
    ["", 'a "quote" \\ and \n a line', "\x00\x01\x7f", "${payload} ${id}", "x" * 100_000],
    ids=["empty", "quotes", "control", "template", "long"],
)
def test_payloads_arrive_as_they_are(setup: Setup, payload: str) -> None:
    with setup.device("a") as device:
        device.publish(f"{setup.root}/chat/a/ask", payload)
    (body,) = setup.webhook.wait(lambda bodies: len(bodies) == 1)
    assert body["payload"] == payload


def test_bytes_survive_in_an_image_flow(setup: Setup) -> None:
    picture = bytes(range(256))
    with setup.device("cam") as device:
        device.publish(f"{setup.root}/camera/door", picture)
        device.publish(f"{setup.root}/cam/yard", picture, qos=0)
    bodies = setup.webhook.wait(lambda bodies: len(bodies) == 2)
    assert {body["topic"].rpartition("/")[2]: body["qos"] for body in bodies} == {
        "door": 1,
        "yard": 0,
    }
    for body in bodies:
        assert base64.b64decode(body["payload_base64"]) == picture
        assert body["flow"] == "camera"
        assert "payload" not in body


def test_where_is_decided_in_the_broker(setup: Setup) -> None:
    topic = f"{setup.root}/alarm/boiler"
    cold = ["40", "null", "true", "{}", '"hot"', '"41"', "[]"]
    with setup.device("boiler") as device:
        for value in cold:
            device.publish(topic, f'{{"temperature": {value}}}')
        device.publish(topic, "{}")
        device.publish(topic, "no JSON at all")
        device.publish(topic, '{"temperature": 41}')
        device.publish(topic, '{"temperature": 81.5}')
    bodies = setup.webhook.wait(lambda bodies: len(bodies) == 3)
    assert sorted(
        (body["flow"], json.loads(body["payload"])["temperature"]) for body in bodies
    ) == [
        ("alarm", 41),
        ("alarm", 81.5),
        ("hot", 81.5),
    ]
    assert len({body["id"] for body in bodies}) == 2  # two rules, one message: one id

    def counted() -> bool:
        found = setup.metrics("rule", setup.rule("alarm"))
        return found.get("failed.exception", 0) >= 1 and found.get("passed") == 2

    eventually(counted)


def test_only_our_topics_reach_the_webhook(setup: Setup) -> None:
    with setup.device("a") as device:
        for topic in ("chat/a/say", "chat/a/b/ask", "chat/ask", "Chat/a/ask"):
            device.publish(f"{setup.root}/{topic}", "no")
        device.publish(f"{setup.root}/chat/a/ask", "yes")
    bodies = setup.webhook.wait(lambda bodies: len(bodies) >= 1)
    time.sleep(0.5)
    assert [body["payload"] for body in bodies] == ["yes"]
    assert [body["payload"] for body in setup.webhook.taken] == ["yes"]


def test_an_empty_retained_message_fires_the_rule_too(setup: Setup) -> None:
    topic = f"{setup.root}/chat/r/ask"
    with setup.device("r") as device:
        device.publish(topic, "kept", retain=True)
        device.publish(topic, "", retain=True)
    bodies = setup.webhook.wait(lambda bodies: len(bodies) == 2)
    assert [body["payload"] for body in bodies] == ["kept", ""]


def test_one_devices_messages_arrive_in_order(setup: Setup) -> None:
    with setup.device("a") as device:
        for number in range(50):
            device.publish(f"{setup.root}/chat/a/ask", str(number))
    bodies = setup.webhook.wait(lambda bodies: len(bodies) == 50)
    assert [int(body["payload"]) for body in bodies] == list(range(50))
    sent = [(body["publish_received_at"], body["id"]) for body in bodies]
    assert sent == sorted(sent)
