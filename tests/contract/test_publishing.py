"""Publish and bulk answers, and what devices receive."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from service.domain import Publish
from service.emqx.publish_api import Emqx, body
from service.errors import BrokerError
from tests.contract.conftest import Setup, eventually

T = TypeVar("T")


def publishing(setup: Setup, work: Callable[[Emqx], Awaitable[T]]) -> T:
    async def run() -> T:
        emqx = Emqx(setup.broker.url, setup.broker.key)
        try:
            return await work(emqx)
        finally:
            await emqx.close()

    return asyncio.run(run())


def test_publish_says_whether_somebody_listened(setup: Setup) -> None:
    topic = f"{setup.root}/say"
    message = Publish(topic=topic, payload="grüße\n\x00".encode(), content_type="text/plain")
    assert publishing(setup, lambda emqx: emqx.publish(message)) is False
    with setup.device("listener") as device:
        device.subscribe(topic)
        assert publishing(setup, lambda emqx: emqx.publish(message)) is True
        (heard,) = device.wait(lambda heard: len(heard) == 1)
    assert heard.payload == message.payload


def test_bytes_are_published_as_they_are(setup: Setup) -> None:
    data = bytes(range(256))
    with setup.device("listener") as device:
        device.subscribe(f"{setup.root}/raw")
        message = Publish(topic=f"{setup.root}/raw", payload=data, qos=0)
        assert publishing(setup, lambda emqx: emqx.publish(message)) is True
        (heard,) = device.wait(lambda heard: len(heard) == 1)
    assert heard.payload == data


def test_bulk_answers_in_order(setup: Setup) -> None:
    with setup.device("listener") as device:
        device.subscribe(f"{setup.root}/in/#")
        messages = [
            Publish(topic=f"{setup.root}/{'in' if number % 2 else 'out'}/{number}", payload=b"x")
            for number in range(10)
        ]
        results = publishing(setup, lambda emqx: emqx.publish_bulk(messages))
        assert results == [False, True] * 5
        heard = device.wait(lambda heard: len(heard) == 5)
    assert [int(one.topic.rpartition("/")[2]) for one in heard] == [1, 3, 5, 7, 9]


def test_one_bad_message_refuses_the_whole_bulk(setup: Setup) -> None:
    good = Publish(topic=f"{setup.root}/good", payload=b"x")
    bad = Publish(topic=f"{setup.root}/+/bad", payload=b"x")
    with setup.device("listener") as device:
        device.subscribe(f"{setup.root}/#")
        with pytest.raises(BrokerError) as caught:
            publishing(setup, lambda emqx: emqx.publish_bulk([good, bad]))
        assert caught.value.poison
        last = Publish(topic=f"{setup.root}/last", payload=b"x")
        publishing(setup, lambda emqx: emqx.publish(last))
        heard = device.wait(bool)
    assert [one.topic for one in heard] == [f"{setup.root}/last"]


@pytest.mark.parametrize("topic", ["", "a/+", "a/#"])
def test_topics_that_nobody_can_publish_to(setup: Setup, topic: str) -> None:
    with pytest.raises(BrokerError) as caught:
        publishing(setup, lambda emqx: emqx.publish(Publish(topic=topic, payload=b"x")))
    assert caught.value.poison
    assert caught.value.status == 400


def test_retained_messages_are_kept_found_and_cleared(setup: Setup) -> None:
    topic = f"{setup.root}/kept/a"
    try:
        kept = Publish(topic=topic, payload=b"\xffstate", retain=True)
        publishing(setup, lambda emqx: emqx.publish(kept))
        eventually(lambda: publishing(setup, lambda emqx: emqx.retained(topic)) == b"\xffstate")
        with setup.device("late") as device:
            device.subscribe(topic)
            (heard,) = device.wait(lambda heard: len(heard) == 1)
        assert heard.retain
    finally:
        gone = Publish(topic=topic, payload=b"", retain=True)
        publishing(setup, lambda emqx: emqx.publish(gone))
    eventually(lambda: publishing(setup, lambda emqx: emqx.retained(topic)) is None)


def test_a_wrong_key_publishes_nothing(setup: Setup) -> None:
    answer = setup.rest("POST", "/publish", {"topic": f"{setup.root}/x", "payload": "x"})
    assert answer.status_code in (200, 202)

    async def wrong() -> None:
        emqx = Emqx(setup.broker.url, (setup.broker.key[0], "wrong"))
        try:
            await emqx.ping()
        finally:
            await emqx.close()

    with pytest.raises(BrokerError, match="key"):
        asyncio.run(wrong())


def test_a_published_message_runs_rules_too(setup: Setup) -> None:
    message = Publish(topic=f"{setup.root}/chat/rest/ask", payload=b"hello")
    publishing(setup, lambda emqx: emqx.publish(message))
    (body,) = setup.webhook.wait(lambda bodies: len(bodies) == 1)
    assert (body["flow"], body["clientid"]) == ("chat", "http_api")


def envelope(setup: Setup, topic: str, **changed: Any) -> dict[str, Any]:
    """What the service publishes for a reply with binary Correlation-Data."""
    message = Publish(
        topic=topic,
        payload="Grüße".encode(),
        qos=1,
        content_type="text/plain",
        correlation=b"\x00\xff\xfe corr",
        user_properties=(("request_id", "r-1"),),
        **changed,
    )
    sent = body(message)
    assert (
        json.loads(sent["payload"])["correlation"]
        == base64.b64encode(b"\x00\xff\xfe corr").decode()
    )
    return {**sent, "topic": f"{setup.root}/reply"}


def test_the_reply_rule_publishes_what_the_service_says(setup: Setup) -> None:
    topic = f"{setup.root}/answers/a"
    with setup.device("asker") as device:
        device.subscribe(topic)
        assert setup.rest("POST", "/publish", envelope(setup, topic)).is_success
        (heard,) = device.wait(lambda heard: len(heard) == 1)
    assert heard.payload.decode() == "Grüße"
    assert not heard.retain


def test_the_reply_rule_is_for_nobody_else(setup: Setup) -> None:
    topic = f"{setup.root}/answers/b"
    forged = envelope(setup, topic)
    with setup.device("asker") as victim:
        victim.subscribe(topic)
        with setup.device("forger") as forger:
            forger.publish(forged["topic"], forged["payload"])
        with setup.named_device("http_api") as pretender:
            pretender.publish(forged["topic"], forged["payload"])
        assert setup.rest("POST", "/publish", {"topic": topic, "payload": "last"}).is_success
        heard = victim.wait(bool)
    assert [one.payload for one in heard] == [b"last"]
