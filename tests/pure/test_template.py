"""Templates: what each name renders to, and what a device can't do with them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain import Message
from service.errors import MessageError
from service.mqtt.templates import MISSING, Scope, Template, TemplateError, as_text, decode_json
from service.mqtt.topics import fault_in_name, matches


def message(payload: object = "hello", **fields: Any) -> Message:
    if isinstance(payload, bytes):
        data = payload
    else:
        data = (payload if isinstance(payload, str) else json.dumps(payload)).encode()
    given_fields = {"clientid": "dev1", "username": "ada", **fields}
    return Message(id="0006", topic="a/b", payload=data, received_at=0, **given_fields)


def render(text: str, payload: object = "hello", **fields: Any) -> str:
    return Template.parse(text).render(Scope(message(payload, **fields), {"user": "ada"}))


@pytest.mark.parametrize(
    ("text", "payload", "expected"),
    [
        ("plain", "", "plain"),
        ("", "", ""),
        ("Hi ${user}!", "", "Hi ada!"),
        ("${clientid} ${username} ${topic} ${id} ${qos}", "", "dev1 ada a/b 0006 0"),
        ("${payload}", "héllo", "héllo"),
        ("${payload}", b"\xff\xfe", "��"),
        ("${payload.t}", {"t": 41}, "41"),
        ("${payload.t}", {"t": 41.0}, "41"),
        ("${payload.t}", {"t": 41.5}, "41.5"),
        ("${payload.t}", {"t": -0.25}, "-0.25"),
        ("${payload.t}", {"t": True}, "true"),
        ("${payload.t}", {"t": None}, "null"),
        ("${payload.t}", {"t": ""}, ""),
        ("${payload.t}", {"t": {"a": [1.0, "ü"]}}, '{"a":[1,"ü"]}'),
        ("${payload.a.b.c}", {"a": {"b": {"c": "x"}}}, "x"),
        ("${payload.a.1.b}", {"a": [{}, {"b": "x"}]}, "x"),
        ("${payload.0}", [7], "7"),
        ("${payload.0}", {"0": "key"}, "key"),
        ("${payload.Zähler-1}", {"Zähler-1": 3}, "3"),
        ("${payload.t}", {}, "undefined"),
        ("${payload.t}", "not JSON", "undefined"),
        ("${payload.t}", '{"t": NaN}', "undefined"),
        ("${payload.t}", '{"t": 1e999}', "undefined"),
        ("${payload.t.u}", {"t": "text"}, "undefined"),
        ("${payload.a.9}", {"a": [1]}, "undefined"),
        ("${nobody}", "", "undefined"),
        ("${user.x}", "", "undefined"),
        ("5 $ or $5", "", "5 $ or $5"),
        ("$${payload.t}", {"t": 5}, "$5"),
        ("${$}{user}", "", "${user}"),
        ('{"a": "${payload.t}"}', {"t": 5}, '{"a": "5"}'),
    ],
)
def test_render(text: str, payload: object, expected: str) -> None:
    assert render(text, payload) == expected


def test_a_client_without_name_renders_empty() -> None:
    assert render("<${clientid}${username}>", clientid=None, username=None) == "<>"


def test_what_a_payload_says_is_never_a_template() -> None:
    assert render("${payload.t}", {"t": "${user}"}) == "${user}"


def test_stripped_text_stands_for_the_payload() -> None:
    scope = Scope(message("机器人 hi"), text="hi")
    assert Template.parse("${payload}").render(scope) == "hi"


def test_names_are_listed_once_in_order() -> None:
    template = Template.parse("${b} ${a.x} ${b} ${$}")
    assert template.names == ("b", "a.x")
    assert str(template) == "${b} ${a.x} ${b} ${$}"


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("ab ${user", 4, "without its }"),
        ("${}", 1, "without a name"),
        ("x ${a b}", 3, "is no name"),
        ("${a..b}", 1, "is no name"),
        ("${.a}", 1, "is no name"),
        ("${a}${payload[1]}", 5, "is no name"),
        ("ü${${a}}", 2, "is no name"),
    ],
)
def test_syntax_errors_say_where(text: str, position: int, words: str) -> None:
    with pytest.raises(TemplateError) as refused:
        Template.parse(text)
    assert refused.value.position == position
    assert words in refused.value.message
    assert f"character {position}" in refused.value.message
    assert refused.value.hint


# topics


def topic(text: str, payload: object = "", captured: Any = None, **extras: Any) -> str:
    scope = Scope(message(payload), captured or {"user": "ada"}, extras)
    return Template.parse(text).render_topic(scope)


@pytest.mark.parametrize(
    ("text", "payload", "expected"),
    [
        ("chatgpt/response/${user}", "", "chatgpt/response/ada"),
        ("/xiaomi/reply", "", "/xiaomi/reply"),
        ("a/${payload.room}/set", {"room": "küche"}, "a/küche/set"),
        ("a/${payload.n}", {"n": 3.0}, "a/3"),
        ("a/dev-${payload.n}", {"n": 3}, "a/dev-3"),
        ("a/${clientid}/${id}/${qos}", "", "a/dev1/0006/0"),
        ("$delayed/5/${user}", "", "$delayed/5/ada"),
    ],
)
def test_render_topic(text: str, payload: object, expected: str) -> None:
    assert topic(text, payload) == expected


@pytest.mark.parametrize("value", ["a/b", "+", "a#", "x\0", "", "\ud800", {"a": 1}, [1], "a/../b"])
def test_a_device_can_not_choose_where_we_publish(value: object) -> None:
    with pytest.raises(MessageError) as refused:
        topic("a/${payload.room}/set", {"room": value})
    assert refused.value.code == "topic_unsafe"


@pytest.mark.parametrize("payload", ["not JSON", {}, {"room": None}, {"other": 1}])
def test_a_missing_level_is_told(payload: object) -> None:
    with pytest.raises(MessageError) as refused:
        topic("a/${payload.room}/set", payload)
    assert refused.value.code == "template_missing"
    assert "payload.room" in refused.value.message


@pytest.mark.parametrize(
    ("text", "captured"),
    [
        ("${user}/x", {"user": "$SYS"}),
        ("$${user}/x/y", {"user": "delayed"}),
        ("${user}", {"user": ""}),
        ("${user}/x", {"user": "#"}),
        ("${topic}/x", {"user": "a"}),
        ("a/${user}", {"user": "x" * 65535}),
    ],
)
def test_topics_that_a_value_would_bend(text: str, captured: dict[str, str]) -> None:
    with pytest.raises(MessageError) as refused:
        topic(text, captured=captured)
    assert refused.value.code == "topic_unsafe"


def test_an_empty_captured_level_is_a_level() -> None:
    assert topic("chatgpt/response/${user}", captured={"user": ""}) == "chatgpt/response/"


@given(
    st.lists(st.sampled_from(["a", "${user}", "${arg}", "x-${payload.v}", "$x"]), min_size=1),
    st.text(max_size=5),
    st.text(max_size=5),
)
def test_topic_filter_matches_every_topic_it_can_make(levels: Any, arg: str, value: str) -> None:
    template = Template.parse("/".join(levels))
    scope = Scope(message({"v": value}), {"user": "ada"}, {"arg": arg})
    try:
        made = template.render_topic(scope)
    except MessageError:
        return
    assert fault_in_name(made) is None
    assert matches(template.topic_filter, made)


# scope


def test_arguments_never_pass_for_the_sender() -> None:
    extras = {"user": "eve", "clientid": "eve", "room": "kitchen", "deep": {"a": [1, 2]}}
    scope = Scope(message(), {"user": "ada"}, extras)
    assert scope.get("user") == "ada"
    assert scope.get("clientid") == "dev1"
    assert scope.get("room") == "kitchen"
    assert scope.get("deep.a.1") == 2
    assert scope.get("nothing") is MISSING


def test_render_strict() -> None:
    template = Template.parse("${user}/${payload.id}")
    assert template.render_strict(Scope(message({"id": 7}), {"user": "ada"})) == "ada/7"
    with pytest.raises(MessageError) as refused:
        template.render_strict(Scope(message("hello"), {"user": "ada"}))
    assert refused.value.code == "template_missing"
    assert "not JSON" in refused.value.message


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"{", b"NaN", b"[" * 100_000, b'{"a":-Infinity}', b"1" * 5000]
)
def test_what_is_no_json(payload: bytes) -> None:
    assert decode_json(payload) is MISSING


@pytest.mark.parametrize(
    ("payload", "value"),
    [(b"null", None), (b" [1] ", [1]), (b'"\\ud800"', "\ud800"), (b"1e3", 1000.0)],
)
def test_what_is_json(payload: bytes, value: object) -> None:
    assert decode_json(payload) == value


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_as_text_is_the_json_it_came_from(value: Any) -> None:
    text = as_text(value)
    assert isinstance(text, str)
    if not isinstance(value, str):
        assert json.loads(text) == value


@given(st.text())
def test_parse_never_fails_otherwise(text: str) -> None:
    try:
        template = Template.parse(text)
    except TemplateError:
        return
    if not template.names:
        assert template.render(Scope(message())) == text.replace("${$}", "$")
