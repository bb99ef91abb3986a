"""EMQX's body → message: what a rule may send, and what a real broker has sent."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain import Message
from service.emqx.message import parse
from service.errors import BadRequest

NOW = 1_700_000_000_000
RECORDINGS = json.loads(
    (Path(__file__).parent.parent / "recordings/webhooks.json").read_text("utf-8")
)
LEAST = {"id": "1", "topic": "a/b"}


def read(**fields: Any) -> Message:
    return parse(json.dumps(LEAST | fields).encode(), now=NOW)


def test_the_least_a_rule_may_send() -> None:
    assert read() == Message(id="1", topic="a/b", payload=b"", received_at=NOW)


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"payload": "Grüße"}, "payload", "Grüße".encode()),
        ({"payload": {"a": [1, "ü"]}}, "payload", '{"a":[1,"ü"]}'.encode()),  # json_decode'd
        ({"payload": None}, "payload", b"null"),
        ({"payload_base64": "AP8="}, "payload", b"\x00\xff"),
        ({"payload": "lost", "payload_base64": "AP8="}, "payload", b"\x00\xff"),
        ({"payload_base64": "no base64!"}, "payload", b"no base64!"),
        ({"payload": "x", "payload_base64": "undefined"}, "payload", b"x"),
        ({"clientid": "dev"}, "clientid", "dev"),
        ({"clientid": "undefined"}, "clientid", "undefined"),
        ({"username": "undefined"}, "username", None),
        ({"username": ""}, "username", None),
        ({"username": None}, "username", None),
        ({"flow": "chat"}, "flow", "chat"),
        ({"flow": "undefined"}, "flow", None),
        ({"flow": 5}, "flow", None),
        ({"qos": 2}, "qos", 2),
        ({"qos": True}, "qos", 0),
        ({"retain": True}, "retained", True),
        ({"retain": 1}, "retained", False),
        ({"publish_received_at": 5}, "received_at", 5),
        ({"timestamp": 5}, "received_at", 5),
        ({"publish_received_at": 2**63}, "received_at", 2**63 - 1),
        ({"publish_received_at": 10**30}, "received_at", NOW),
        ({"publish_received_at": "soon"}, "received_at", NOW),
        ({"publish_received_at": None}, "received_at", NOW),
        ({"pub_props": "undefined"}, "response_topic", None),
        ({"pub_props": {"Response-Topic": "r"}}, "response_topic", "r"),
        ({"pub_props": {"Message-Expiry-Interval": 9}}, "expiry", 9),
        ({"pub_props": {"Content-Type": "text/x"}}, "content_type", "text/x"),
        ({"pub_props": {"Correlation-Data": "c"}}, "correlation", b"c"),
        ({"correlation_base64": ""}, "correlation", None),
        ({"correlation_base64": "AP8="}, "correlation", b"\x00\xff"),
        (
            {"correlation_base64": "AP8=", "pub_props": {"Correlation-Data": "\ufffd"}},
            "correlation",
            b"\x00\xff",
        ),
        ({"correlation_base64": "?", "pub_props": {"Correlation-Data": "c"}}, "correlation", b"c"),
        ({"pub_props": {"User-Property": {"a": "1"}}}, "user_properties", (("a", "1"),)),
        (
            {"pub_props": {"User-Property-Pairs": [{"key": "a", "value": v} for v in "12"]}},
            "user_properties",
            (("a", "1"), ("a", "2")),
        ),
        ({"pub_props": {"User-Property-Pairs": [1, {"key": 1}]}}, "user_properties", ()),
    ],
)
def test_fields(fields: dict[str, Any], name: str, value: Any) -> None:
    assert getattr(read(**fields), name) == value


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"\xff", "not_json"),
        (b"[" * 200_000, "not_json"),
        (b'{"a":' * 200_000, "not_json"),
        (b"[]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"null", "not_an_object"),
        (b"{}", "no_topic"),
        (b'{"topic": "", "id": "1"}', "no_topic"),
        (b'{"topic": "undefined", "id": "1"}', "no_topic"),
        (b'{"topic": ["a"], "id": "1"}', "no_topic"),
        (b'{"topic": "a"}', "no_id"),
        (b'{"topic": "a", "id": 5}', "no_id"),
        (b'{"topic": "a", "id": "undefined"}', "no_id"),
    ],
)
def test_what_can_never_become_a_request(body: bytes, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(body, now=NOW)
    assert caught.value.code == code
    assert caught.value.message


def test_a_lone_surrogate_is_taken() -> None:
    found = parse(b'{"id": "1", "topic": "a\\ud800", "payload": "\\udfff"}', now=NOW)
    assert found.topic == "a\ud800"
    assert found.payload == b"\xed\xbf\xbf"


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda one: one["title"])
def test_every_recording_of_a_real_broker_is_understood(recording: dict[str, Any]) -> None:
    body = recording["body"]
    fields = json.loads(body)
    found = parse(body.encode(), now=NOW)
    assert (found.id, found.topic) == (fields["id"], fields["topic"])
    assert found.received_at == fields.get("publish_received_at", NOW)
    if isinstance(fields.get("payload"), str):
        assert found.payload == fields["payload"].encode()
    if "payload_base64" in fields:
        assert found.payload == base64.b64decode(fields["payload_base64"])
    assert found.clientid == fields.get("clientid")
    said = fields.get("username")
    assert found.username == (None if said in (None, "undefined") else said)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
_FIELDS = (
    *("payload", "payload_base64", "flow", "clientid", "username", "qos", "retain"),
    *("pub_props", "publish_received_at", "timestamp", "correlation_base64"),
)


@given(st.dictionaries(st.sampled_from(_FIELDS), _JSON), st.dictionaries(st.text(), _JSON))
def test_odd_fields_are_no_reason_to_refuse(fields: dict[str, Any], props: dict[str, Any]) -> None:
    """A 400 drops the message: only what has no topic or id deserves it."""
    body = json.dumps({"pub_props": props} | fields | LEAST).encode("utf-8", "surrogatepass")
    found = parse(body, now=NOW)
    assert (found.id, found.topic) == ("1", "a/b")
    assert isinstance(found.payload, bytes)
