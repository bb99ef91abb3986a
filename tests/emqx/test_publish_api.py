"""The publish API: what counts as published, what is refused and in whose words."""

from __future__ import annotations

import base64
import email.utils
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest

from service.domain import Publish
from service.emqx import reply_rule
from service.emqx.publish_api import Emqx
from service.errors import BrokerError

COUNTER = b"\x00\x00\x00\x01"
Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Emqx]:
    """A client whose calls are answered by a function."""
    real = httpx.AsyncClient

    def make(answer: Answer, *tokens: str, prefix: str = "emqx_gpt") -> Emqx:
        transport = httpx.MockTransport(answer)
        monkeypatch.setattr(
            httpx, "AsyncClient", lambda **options: real(**options, transport=transport)
        )
        return Emqx("http://emqx:18083", ("key", "secret"), prefix=prefix, tokens=tokens)

    return make


def message(**changed: Any) -> Publish:
    return Publish(**({"topic": "say/a", "payload": b"hi"} | changed))


async def refused(emqx: Emqx, *messages: Publish) -> BrokerError:
    call = emqx.publish(messages[0]) if len(messages) == 1 else emqx.publish_bulk(messages)
    with pytest.raises(BrokerError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (200, b"<html>Welcome</html>"),
        (200, b""),
        (200, b"{}"),
        (200, b"[]"),
        (200, b'"id"'),
        (202, b'{"message": "accepted"}'),
        (204, b""),
        (302, b""),
        (400, b"<html>400</html>"),
        (404, b"<html>404</html>"),
        (404, b'{"code": "NOT_FOUND"}'),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
async def test_what_is_not_emqxs_answer_has_published_nothing(
    talk: Any, status: int, content: bytes, count: int
) -> None:
    emqx = talk(lambda _: httpx.Response(status, content=content))
    error = await refused(emqx, *[message()] * count)
    assert not error.refused, "it has to be tried again"
    assert error.code == "broker_unavailable"
    assert "EMQX_URL" in error.message


async def test_one_of_a_bulk_that_is_no_answer_is_tried_again(talk: Any) -> None:
    answers = [{"id": "1"}, {"message": "no_matching_subscribers", "reason_code": 16}, {}]
    emqx = talk(lambda _: httpx.Response(202, content=orjson.dumps(answers)))
    delivered, alone, strange = await emqx.publish_bulk([message()] * 3)
    assert (delivered, alone) == (True, False)
    assert isinstance(strange, BrokerError)
    assert not strange.refused


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (400, {"message": "topic_name_invalid", "reason_code": 144}, "topic"),
        (400, {"message": "packet_too_large", "reason_code": 151}, "mqtt.max_packet_size"),
        (413, "<html>Request Entity Too Large</html>", "larger than"),
        (
            400,
            {"code": "BAD_REQUEST", "message": '{"value":"a secret","path":"root.payload"}'},
            "does not take",
        ),
    ],
)
async def test_a_refusal_is_told_in_our_own_words(
    talk: Any, status: int, body: Any, said: str
) -> None:
    error = await refused(talk(lambda _: httpx.Response(status, json=body)), message())
    assert (error.refused, error.code) == (True, "publish_refused")
    assert said in error.message
    for quoted in ("secret", "root.", "_", "{"):
        assert quoted not in error.message.replace("max_packet_size", "")


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_may_not_publish(talk: Any, status: int) -> None:
    error = await refused(talk(lambda _: httpx.Response(status, json={})), message())
    assert error.code == "broker_unauthorized"
    assert "enabled and not expired" in error.message


@pytest.mark.parametrize(
    "payload", [b"", b"plain", "Grüße 😀".encode(), b"\x00\x01\x7f", b"\xff\xfe", "\uffff".encode()]
)
async def test_payloads_go_as_base64(talk: Any, payload: bytes) -> None:
    sent: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(200, json={"id": "1"})

    assert await talk(answer).publish(message(payload=payload, correlation=b"c-1")) is True
    assert sent[0]["payload_encoding"] == "base64"
    assert base64.b64decode(sent[0]["payload"]) == payload
    assert sent[0]["properties"] == {"correlation_data": "c-1"}


async def test_what_is_no_text_at_all_is_refused_here(talk: Any) -> None:
    emqx = talk(lambda _: httpx.Response(200, json={"id": "1"}))
    error = await refused(emqx, message(topic="say/\ud800"))
    assert (error.refused, error.code) == (True, "publish_refused")


@pytest.mark.parametrize("skew", [0, 3600, -86400 * 365])
async def test_an_envelope_is_good_for_a_minute_by_emqxs_clock(talk: Any, skew: float) -> None:
    sent: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        date = email.utils.formatdate(time.time() + skew, usegmt=True)
        ping = not sent[-1]["topic"]
        return httpx.Response(
            400 if ping else 202,
            json={"reason_code": 144 if ping else 16, "message": "x"},
            headers={"date": date},
        )

    emqx = talk(answer, "new", "old", prefix="other")
    assert await emqx.publish(message(correlation=COUNTER, expiry=60)) is None
    _, envelope = sent  # the clock was asked for first
    assert envelope["topic"] == "emqx-gpt/reply/other"
    outer = json.loads(envelope["payload"])
    inner = json.loads(base64.b64decode(outer["b"]))
    assert abs(inner["until"] - (time.time() + skew + reply_rule.LIFETIME)) <= 3
    assert (inner["expiry"], base64.b64decode(inner["correlation"])) == (60, COUNTER)
    keys = [reply_rule.key(token, "other") for token in ("new", "old")]
    assert outer["m"] == [reply_rule.sign(outer["b"], key) for key in keys]


async def test_without_a_token_nothing_goes_through_the_reply_rule(talk: Any) -> None:
    emqx = talk(lambda _: httpx.Response(400, json={"reason_code": 144, "message": "x"}))
    for messages in ([message(correlation=COUNTER)], [message(correlation=COUNTER)] * 2):
        error = await refused(emqx, *messages)
        assert (error.refused, error.code) == (True, "publish_refused")
        assert "WEBHOOK_TOKEN is not set" in error.message


async def test_retained_messages_want_a_scope(talk: Any) -> None:
    said = {"code": "UNAUTHORIZED_ROLE", "message": "no"}
    emqx = talk(lambda _: httpx.Response(403, json=said))
    with pytest.raises(BrokerError, match="scope connections"):
        await emqx.retained("a/b")
    emqx = talk(lambda _: httpx.Response(404, text="<html>404 - NOT FOUND</html>"))
    with pytest.raises(BrokerError, match="EMQX_URL"):
        await emqx.retained("a/b")
    emqx = talk(lambda _: httpx.Response(404, json={"code": "NOT_FOUND", "message": "none"}))
    assert await emqx.retained("a/b") is None
