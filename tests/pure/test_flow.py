"""What a flow does with a message: match, conversation, dedupe, strip, require; and units."""

import json
import re
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.domain import Message
from service.flows import Flow, Limit, duration, parse
from service.flows.flow import key
from service.mqtt.templates import Scope, Template
from service.mqtt.topics import TopicPattern
from service.units import limit, show_seconds

FLOW = '[flows.x]\nrequest = "in/${user}"\nreply = "out/${user}"\n'


def flow(keys: str = "", text: str = FLOW) -> Flow:
    made, faults = parse(text + keys)
    assert made is not None, [str(fault) for fault in faults]
    return made.flows["x"]


def message(payload: bytes = b"", **fields: Any) -> Message:
    known = {"id": "0006", "topic": "in/ada", "payload": payload, "received_at": 0}
    return Message(**known | fields)


# finding a flow


def test_find() -> None:
    made, _ = parse(
        '[flows.wide]\nrequest = "s/#"\nreply = "o/1"\nwhere = "qos = 0"\n'
        '[flows.narrow]\nrequest = ["s/${a}/x", "t/${a}"]\nreply = "o/2"\nwhere = "qos = 1"\n'
    )
    assert made is not None

    def found(name: str | None, topic: str) -> str | None:
        result = made.find(name, topic)
        return result.name if result else None

    assert found(None, "s/1/x") == "narrow"
    assert found(None, "s/1/y") == "wide"
    assert found(None, "t/1") == "narrow"
    assert found(None, "nobody") is None
    assert found("wide", "s/1/x") == "wide"
    assert found("gone", "s/1/x") is None  # a newer process may know it


def test_the_most_specific_pattern_captures() -> None:
    patterns = ("a/#", "a/${b}", "a/${b}/${c}")
    made = Flow(tuple(TopicPattern.parse(text) for text in patterns))
    assert made.match("a/1") == {"b": "1"}
    assert made.match("a/1/2") == {"b": "1", "c": "2"}
    assert made.match("a/1/2/3") == {}
    assert made.match("b") is None


# conversations and keys


@pytest.mark.parametrize(
    ("request_topics", "topic", "expected"),
    [
        ('"in/${user}"', "in/ada", "ada"),
        ('"in/${a}/${b}"', "in/1/2", "1/2"),
        ('["in/${a}/${b}", "also/${b}/${a}"]', "also/2/1", "1/2"),
        ('"/fixed"', "/fixed", "-"),
        ('"in/${user}"', "in/", "-"),
    ],
)
def test_conversation_of_the_captured_levels(
    request_topics: str, topic: str, expected: str
) -> None:
    made = flow(text=f'[flows.x]\nrequest = {request_topics}\nreply = "out"\n')
    captured = made.match(topic)
    assert captured is not None
    assert made.conversation_of(message(topic=topic), captured) == expected


@pytest.mark.parametrize(
    ("payload", "clientid", "expected"),
    [
        (b'{"s": 5}', "c1", "5"),
        (b'{"s": ""}', "c1", "-"),
        (b"{}", "c1", "~c1"),
        (b"no json", "c2", "~c2"),
        (b"{}", None, "~0006"),
    ],
)
def test_conversation_of_a_payload(payload: bytes, clientid: str | None, expected: str) -> None:
    made = flow('conversation = "${payload.s}"')
    assert made.conversation_of(message(payload, clientid=clientid), {"user": "a"}) == expected


def test_a_message_from_a_rule_made_by_hand_has_its_own_conversation() -> None:
    assert flow().conversation_of(message(topic="elsewhere", clientid="c1"), {}) == "~c1"


@pytest.mark.parametrize(
    ("payload", "expected"), [(b'{"id": 7}', "c/7"), (b"{}", "0006"), (b'{"id": null}', "0006")]
)
def test_dedupe(payload: bytes, expected: str) -> None:
    made = flow('dedupe = "${clientid}/${payload.id}"')
    assert made.dedupe_of(message(payload, clientid="c"), {}) == expected
    assert flow().dedupe_of(message(payload), {}) == "0006"


@given(st.text(st.characters(codec=None)), st.text(st.characters(codec=None)))
def test_keys_are_harmless_and_differ(one: str, other: str) -> None:
    made = key(one)
    assert 1 <= len(made.encode()) <= 200  # encodes, so no lone surrogate
    assert made.isprintable()
    if one != other and {one, other} != {"", "-"}:
        assert made != key(other)


def test_keys_at_their_limits() -> None:
    assert key("x" * 200) == "x" * 200
    assert len(key("x" * 201)) < 200
    assert key("x" * 201) != key("x" * 202)
    hashed = key("a\0b")
    assert re.fullmatch(r"a_b~[0-9a-f]{32}", hashed)
    assert key(hashed) != hashed  # nobody can name himself like another's digest


# what a flow hears


@pytest.mark.parametrize(
    ("keys", "text", "heard"),
    [
        ("", " as it is ", " as it is "),
        ('strip = "(.*机器人)"', "小爱机器人 今天星期几", "今天星期几"),
        ('strip = "(.*机器人)"', "嗯\n小爱机器人开灯", "开灯"),
        ('strip = "(.*机器人)"', "今天星期几", "今天星期几"),
        ('strip = "(.*机器人)"', "机器人", ""),
        ('strip = "please"', "do it please now", "do it  now"),
        ('require = "机器人"', "今天星期几", None),
        ('require = "机器人"', "机器人你好", "机器人你好"),
        ('require = "机器人"\nstrip = "(.*机器人)"', "嗨机器人你好", "你好"),
    ],
)
def test_heard(keys: str, text: str, heard: str | None) -> None:
    assert flow(keys).heard(text) == heard


def test_a_long_message_is_not_searched_for_ever() -> None:
    text = "x" * 1_000_000
    assert flow('strip = "(.*机器人)"').heard(text) == text


def test_a_regex_that_starts_with_everything_is_tried_once() -> None:
    began = time.process_time()
    assert flow('strip = ".*a.*b"').heard("a" * 3000) == "a" * 3000
    assert time.process_time() - began < 1


@pytest.mark.parametrize("strip", ["(.*a|b)", ".*a|b", "(.*a)?b", "b"])
def test_other_regexes_are_searched(strip: str) -> None:
    assert flow(f'strip = "{strip}"').heard("xb") == "x"


def test_reset_words() -> None:
    history = flow('history = { reset = ["/reset", "Neu"] }').history
    assert history is not None
    assert history.messages == 10
    assert history.resets(" /RESET\n")
    assert history.resets("neu")
    assert not history.resets("/reset now")


def test_response_topics() -> None:
    made = flow('allow_response_topics = ["inbox/+/x", "y/#"]')
    assert made.allows_response_topic("inbox/1/x")
    assert made.allows_response_topic("y")
    assert not made.allows_response_topic("inbox/1")
    assert not flow().allows_response_topic("anything")


# units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300), ("24h", 86400), ("90s", 90), ("7d", 604800), ("1h30m", 5400), ("1.5s", 1.5)]
    + [("250ms", 0.25), ("1w", 604800)],
)
def test_duration(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("value", [5, 0.5, "5", "", "m", "-1s", "0s", "5 m", "5M", "99999d", True])
def test_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="duration|unit"):
        duration(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10/min", Limit(10, 60)),
        ("10 / min", Limit(10, 60)),
        ("100/h", Limit(100, 3600)),
        ("5/10s", Limit(5, 10)),
        ("1000/day", Limit(1000, 86400)),
        ("3/2hour", Limit(3, 7200)),
    ],
)
def test_limit(text: str, expected: Limit) -> None:
    assert limit(text) == expected
    assert limit(str(expected)) == expected


@pytest.mark.parametrize("value", [10, "10", "10/", "0/min", "/min", "10/year", "-1/s", "1/0s"])
def test_no_limit(value: object) -> None:
    with pytest.raises(ValueError, match="limit|duration"):
        limit(value)


@pytest.mark.parametrize(
    ("seconds", "text"), [(90, "90s"), (300, "5m"), (86400, "24h"), (0.5, "0.5s")]
)
def test_show_seconds(seconds: float, text: str) -> None:
    assert show_seconds(seconds) == text
    assert duration(text) == seconds


names = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    ["a", "a/b", "/", "~a", "#a", "-", "", "undefined", "http:x", "key:x", "#=a"]
)


@given(st.tuples(names, names), st.tuples(names, names))
@example(("a/b", "c"), ("a", "b/c"))
@example(("a", ""), ("", "a"))
def test_two_lists_of_values_never_make_one_key(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    for text in (
        "${payload.x}/${payload.y}",
        "${payload.x}${payload.y}",
        "${payload.x}-${payload.y}!",
    ):
        template = Template.parse(text)
        made = [
            key(
                template.render_key(
                    Scope(Message("1", "t", json.dumps({"x": x, "y": y}).encode(), 1))
                )
            )
            for x, y in (one, other)
        ]
        assert (made[0] == made[1]) == (one == other)


def test_what_a_device_chose_never_looks_like_a_key_that_it_did_not() -> None:
    """A level "~ada" is not the client ada alone, "-" is not no level, and HTTP's are apart."""
    plain = flow(text='[flows.x]\nrequest = "chat/${user}"\nreply = "out"\n')
    alone = message(topic="elsewhere", clientid="ada")
    assert plain.conversation_of(alone, {}) == "~ada"
    for level in ("~ada", "-", "#device/ada", "#=-"):
        assert (
            plain.conversation_of(message(topic=f"chat/{level}"), {"user": level}) == f"#={level}"
        )
    assert plain.conversation_of(message(topic="chat/ada"), {"user": "ada"}) == "ada"
    two = flow(text='[flows.x]\nrequest = ["chat/${user}", "device/${device}"]\nreply = "out"\n')
    found = [
        two.conversation_of(message(topic="chat/ada"), {"user": "ada"}),
        two.conversation_of(message(topic="device/ada"), {"device": "ada"}),
    ]
    assert found == ["ada", "#device/ada"]
    keyed = flow('dedupe = "${payload.id}"\n')
    for own in ("http:1", "key:2"):
        payload = json.dumps({"id": own}).encode()
        assert keyed.dedupe_of(message(payload), {"user": "a"}) == f"#={own}"
