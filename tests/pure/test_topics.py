"""Topics: MQTT's own rules as tables, and the laws that filters obey."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.mqtt.topics import (
    FIELDS,
    TopicError,
    TopicPattern,
    fault_in_filter,
    fault_in_name,
    matches,
    overlap,
)

PLAIN = ["", "a", "b", "$x"]
ALL = ["/".join(levels) for size in range(1, 6) for levels in itertools.product(PLAIN, repeat=size)]
NAMES = st.sampled_from(ALL)
LEVELS = st.sampled_from([*PLAIN, "+"])
FILTERS = st.tuples(st.lists(LEVELS, max_size=4), st.sampled_from([[], ["#"]])).map(
    lambda parts: "/".join(parts[0] + parts[1]) or "a"
)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/c", False),
        ("a/b", "a", False),
        ("a", "a/b", False),
        ("a/+", "a/b", True),
        ("a/+", "a/", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("+/+", "/x", True),
        ("/+", "/x", True),
        ("+", "/x", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/#", "ab", False),
        ("a/+/#", "a", False),
        ("a/+/#", "a/b", True),
        ("#", "a/b", True),
        ("#", "/", True),
        ("#", "$SYS/a", False),
        ("+/a", "$SYS/a", False),
        ("$SYS/#", "$SYS/a", True),
        ("$SYS/+", "$SYS/a", True),
        ("a/+", "a/$b", True),
        ("/xiaomi/chatgpt", "/xiaomi/chatgpt", True),
        ("/xiaomi/chatgpt", "xiaomi/chatgpt", False),
        ("a", "A", False),
    ],
)
def test_matches(topic_filter: str, topic: str, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/+", "+/b", True),
        ("a/+", "b/+", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/#", "+/b/+", True),
        ("a/+/#", "a", False),
        ("a/+", "a/b/#", True),
        ("a/+", "a/b/c/#", False),
        ("#", "a", True),
        ("#", "+", True),
        ("#", "$SYS/a", False),
        ("+/a", "$SYS/a", False),
        ("#", "$SYS/#", False),
        ("$SYS/#", "$SYS/+/x", True),
        ("a/#", "b/#", False),
        ("+/x/#", "y/+", True),
        ("", "+", True),
        ("/a", "a", False),
    ],
)
def test_overlap(one: str, other: str, expected: bool) -> None:
    assert overlap(one, other) is expected
    assert overlap(other, one) is expected


@given(FILTERS, FILTERS)
def test_overlap_is_symmetric(one: str, other: str) -> None:
    assert overlap(one, other) == overlap(other, one)


@given(FILTERS, FILTERS)
@settings(deadline=None)
def test_filters_overlap_exactly_if_a_topic_matches_both(one: str, other: str) -> None:
    assert overlap(one, other) == any(matches(one, name) and matches(other, name) for name in ALL)


@given(FILTERS, NAMES)
def test_a_name_overlaps_exactly_with_what_matches_it(topic_filter: str, topic: str) -> None:
    assert overlap(topic_filter, topic) == matches(topic_filter, topic)


@pytest.mark.parametrize(
    ("topic", "fault"),
    [
        ("a/b", None),
        ("/", None),
        ("ü" * 32767, None),
        ("a b", None),
        ("", "is empty"),
        ("a/+", "wildcard"),
        ("a#", "wildcard"),
        ("a\0", "NUL"),
        ("\ud800", "Unicode"),
        ("ü" * 32768, "longer than 65535 bytes"),
    ],
)
def test_fault_in_name(topic: str, fault: str | None) -> None:
    found = fault_in_name(topic)
    assert found is None if fault is None else fault in str(found)


@pytest.mark.parametrize("topic_filter", ["a/+", "#", "+", "a/#", "+/+/#", "/", "a//b"])
def test_legal_filters(topic_filter: str) -> None:
    assert fault_in_filter(topic_filter) is None


@pytest.mark.parametrize("topic_filter", ["", "a/#/b", "a#", "a+", "+a/b", "##", "a/b#", "#/a"])
def test_illegal_filters(topic_filter: str) -> None:
    assert fault_in_filter(topic_filter)


def test_pattern() -> None:
    pattern = TopicPattern.parse("chatgpt/request/${user}")
    assert pattern.filter == "chatgpt/request/+"
    assert pattern.names == ("user",)
    assert pattern.match("chatgpt/request/ada") == {"user": "ada"}
    assert pattern.match("chatgpt/request/") == {"user": ""}
    assert pattern.match("chatgpt/request/ada/x") is None
    assert pattern.match("chatgpt/request") is None
    assert str(pattern) == "chatgpt/request/${user}"


@pytest.mark.parametrize(
    ("text", "topic", "captured"),
    [
        ("/xiaomi/chatgpt", "/xiaomi/chatgpt", {}),
        ("home/${user}/+/ask", "home/ada/x/ask", {"user": "ada"}),
        ("${a}/${b}", "x/y", {"a": "x", "b": "y"}),
        ("${a}/#", "x/y/z", {"a": "x"}),
        ("${a}/#", "x", {"a": "x"}),
        ("${a}/b", "$x/b", None),
        ("a/${b_1}", "a/ü b", {"b_1": "ü b"}),
    ],
)
def test_pattern_match(text: str, topic: str, captured: dict[str, str] | None) -> None:
    assert TopicPattern.parse(text).match(topic) == captured


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("a/#/b", "#"),
        ("a/b+", "+"),
        ("a/x${user}", "mixes"),
        ("a/${user}${room}", "mixes"),
        ("a/${user", "no level name"),
        ("a/${}", "no level name"),
        ("a/${a.b}", "no level name"),
        ("a/${1}", "no level name"),
        ("${a}/${a}", "twice"),
        ("a\0", "NUL"),
        *((f"a/${{{name}}}", "field of every message") for name in sorted(FIELDS)),
    ],
)
def test_pattern_that_is_refused(text: str, words: str) -> None:
    with pytest.raises(TopicError) as refused:
        TopicPattern.parse(text)
    assert words in refused.value.message
    assert refused.value.hint


def test_rank_puts_the_most_specific_first() -> None:
    texts = ["a/#", "a/${x}", "#", "a/b", "+/b"]
    ordered = sorted((TopicPattern.parse(text) for text in texts), key=lambda one: one.rank)
    assert [str(one) for one in ordered] == ["a/b", "a/${x}", "a/#", "+/b", "#"]
