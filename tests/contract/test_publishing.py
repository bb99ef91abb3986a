"""Publish and bulk answers, and what devices receive."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from service.domain import Publish
from service.emqx import reply_rule
from service.emqx.publish_api import Emqx
from service.emqx.remove import remove
from service.emqx.resources import target
from service.errors import BrokerError
from tests.contract.conftest import Setup, build_for, eventually

T = TypeVar("T")


def publishing(setup: Setup, work: Callable[[Emqx], Awaitable[T]]) -> T:
    async def run() -> T:
        emqx = Emqx(
            setup.broker.url,
            setup.broker.key,
            prefix=setup.desired.prefix,
            tokens=(setup.webhook.token,),
        )
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
        assert caught.value.refused
        last = Publish(topic=f"{setup.root}/last", payload=b"x")
        publishing(setup, lambda emqx: emqx.publish(last))
        heard = device.wait(bool)
    assert [one.topic for one in heard] == [f"{setup.root}/last"]


@pytest.mark.parametrize("topic", ["", "a/+", "a/#"])
def test_topics_that_nobody_can_publish_to(setup: Setup, topic: str) -> None:
    with pytest.raises(BrokerError) as caught:
        publishing(setup, lambda emqx: emqx.publish(Publish(topic=topic, payload=b"x")))
    assert caught.value.refused
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


CORRELATION = b"\x00\xff\xfe corr"


def answer(topic: str, **changed: Any) -> Publish:
    """A reply that the publish API can't carry."""
    said: dict[str, Any] = {
        "topic": topic,
        "payload": "Grüße\x00".encode(),
        "content_type": "text/plain",
        "correlation": CORRELATION,
        "expiry": 60,
        "user_properties": (("request_id", "r-1"),),
    }
    return Publish(**(said | changed))


def envelope(setup: Setup, topic: str, *, token: str = "", until: float = 0) -> str:
    """What the service publishes for it; signed with another token, or for another time."""
    key = reply_rule.key(token or setup.webhook.token, setup.desired.prefix)
    now = until - reply_rule.LIFETIME if until else time.time()
    return reply_rule.envelope(answer(topic), [key], now).decode()


def test_the_reply_rule_publishes_what_the_service_signed(setup: Setup) -> None:
    topic = f"{setup.root}/answers/a"
    with setup.device("asker") as device:
        device.subscribe(topic)
        assert publishing(setup, lambda emqx: emqx.publish(answer(topic))) is None
        (heard,) = device.wait(lambda heard: len(heard) == 1)
    assert heard.payload.decode() == "Grüße\x00"
    assert not heard.retain


def test_it_goes_into_a_bulk_like_any_other(setup: Setup) -> None:
    """A 4-byte counter, the commonest Correlation-Data of all, alone and in a bulk."""
    counters = [
        answer(f"{setup.root}/answers/{number}", correlation=bytes([0, 0, 0, number]))
        for number in range(3)
    ]
    plain = Publish(topic=f"{setup.root}/answers/plain", payload=b"x", correlation=b"c-1")
    with setup.device("asker") as device:
        device.subscribe(f"{setup.root}/answers/+")
        results = publishing(setup, lambda emqx: emqx.publish_bulk([*counters, plain]))
        assert results == [None, None, None, True]
        heard = device.wait(lambda heard: len(heard) == 4)
    assert {one.topic.rpartition("/")[2] for one in heard} == {"0", "1", "2", "plain"}


def test_a_topic_that_is_not_printable(setup: Setup) -> None:
    topic = f"{setup.root}/answers/\x01"
    with setup.device("asker") as device:
        device.subscribe(topic)
        message = answer(topic, correlation=None)
        assert publishing(setup, lambda emqx: emqx.publish(message)) is None
        (heard,) = device.wait(lambda heard: len(heard) == 1)
    assert heard.topic == topic


def test_a_token_is_changed_in_steps(bare: Setup) -> None:
    """The service takes both; EMQX has the older one, the newer one, both."""
    old, new = bare.webhook.token, f"new-{bare.run_id}"
    topic = f"{bare.root}/answers/turn"

    async def reply(*tokens: str) -> None:
        emqx = Emqx(bare.broker.url, bare.broker.key, prefix=bare.desired.prefix, tokens=tokens)
        try:
            await emqx.publish(answer(topic, payload=",".join(tokens).encode()))
        finally:
            await emqx.close()

    with bare.device("asker") as device:
        device.subscribe(topic)
        bare.apply()
        asyncio.run(reply(new, old))
        device.wait(lambda heard: len(heard) == 1)
        bare.webhook.token = new
        bare.apply(build_for(bare.run_id, target(bare.webhook.url, new, old)))
        for tokens in ((new, old), (new,), (old,)):
            asyncio.run(reply(*tokens))
        device.wait(lambda heard: len(heard) == 4)
        bare.apply(build_for(bare.run_id, target(bare.webhook.url, new)))
        asyncio.run(reply(old))
        asyncio.run(reply(new))
        heard = device.wait(lambda heard: len(heard) == 5)
    assert heard[-1].payload.decode() == new


def test_the_reply_rule_is_for_nobody_else(setup: Setup) -> None:
    topic = f"{setup.root}/answers/b"
    internal = reply_rule.topic(setup.desired.prefix)
    forged = {
        "another key": envelope(setup, topic, token="guessed"),  # noqa: S106
        "another prefix's key": reply_rule.envelope(
            answer(topic), [reply_rule.key(setup.webhook.token, "other")], time.time()
        ).decode(),
        "too late": envelope(setup, topic, until=time.time() - 2),
        "no JSON": "{",
        "as it was": json.dumps({"topic": topic, "payload": "x", "correlation": "AA=="}),
        "unsigned": json.dumps({"b": json.loads(envelope(setup, topic))["b"], "m": []}),
        "signed by nobody": json.dumps({"b": json.loads(envelope(setup, topic))["b"]}),
        "changed": envelope(setup, topic).replace('"b":"', '"b":"eyAg', 1),
    }
    with setup.device("asker") as victim:
        victim.subscribe(topic)
        with setup.device("forger") as forger, setup.named_device("http_api") as pretender:
            for text in forged.values():
                forger.publish(internal, text)
                pretender.publish(internal, text)
        for text in forged.values():
            assert setup.rest("POST", "/publish", {"topic": internal, "payload": text}).is_success
        assert setup.rest("POST", "/publish", {"topic": topic, "payload": "last"}).is_success
        heard = victim.wait(bool)
    assert [one.payload for one in heard] == [b"last"]


@pytest.mark.parametrize("client_id", ["http_api", "somebody"])
def test_a_last_will_is_no_way_past_the_reply_rule(setup: Setup, client_id: str) -> None:
    """A will has no peerhost and may come from any client id."""
    topic = f"{setup.root}/answers/will"
    internal = reply_rule.topic(setup.desired.prefix)
    unsigned = json.dumps({"topic": topic, "payload": "x", "correlation": "AA==", "user": {}})
    with setup.device("victim") as victim:
        victim.subscribe(topic)
        victim.subscribe(f"{setup.root}/wills")
        for forged in (unsigned, envelope(setup, topic, token="guessed")):  # noqa: S106
            with setup.named_device(client_id, will=(internal, forged)) as gone:
                gone.drop()
        # Wills do go out: this one is heard, and after it nothing of the others.
        with setup.named_device(client_id, will=(f"{setup.root}/wills", "went")) as gone:
            gone.drop()
        victim.wait(lambda heard: len(heard) == 1)
        assert setup.rest("POST", "/publish", {"topic": topic, "payload": "last"}).is_success
        heard = victim.wait(lambda heard: len(heard) == 2)
    assert [one.payload for one in heard] == [b"went", b"last"]


def test_two_installations_do_not_answer_twice(setup: Setup) -> None:
    topic = f"{setup.root}/answers/once"
    other = build_for(f"{setup.run_id}b", target(setup.webhook.url, setup.webhook.token))
    try:
        setup.apply(other)
        with setup.device("asker") as device:
            device.subscribe(topic)
            publishing(setup, lambda emqx: emqx.publish(answer(topic)))
            last = Publish(topic=topic, payload=b"last")
            device.wait(lambda heard: len(heard) == 1)
            publishing(setup, lambda emqx: emqx.publish(last))
            heard = device.wait(lambda heard: len(heard) == 2)
        assert [one.payload for one in heard] == ["Grüße\x00".encode(), b"last"]
    finally:
        setup.call(lambda admin: remove(admin, other.prefix))
