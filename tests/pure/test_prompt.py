"""A stored message → what the model is asked."""

import base64
import itertools
from typing import Any

import pytest

from service.answering import prompt
from service.answering.prompt import Ignored
from service.domain import Message, Turn
from service.errors import MessageError
from service.flows import Flow, parse

FLOW = '[flows.x]\nrequest = "in/${user}"\nreply = "out/${user}"\n'
CAPTURED = {"user": "ada"}


def flow(keys: str = "") -> Flow:
    made, faults = parse(FLOW + keys)
    assert made is not None, [str(fault) for fault in faults]
    return made.flows["x"]


def message(payload: bytes = b"hi") -> Message:
    return Message(id="1", topic="in/ada", payload=payload, received_at=0, clientid="dev")


@pytest.mark.parametrize(
    ("keys", "payload", "text"),
    [
        ("", b"hi", "hi"),
        ("", " Grüße 😀\n".encode(), " Grüße 😀\n"),
        ('prompt = "${user} says: ${payload}"', b"hi", "ada says: hi"),
        ('prompt = "${payload.a.0} ${payload.b}"', b'{"a": [41.0]}', "41 undefined"),
        ('prompt = "${payload}"\nstrip = "(.*bot)"', b"hey bot go", "go"),
        ('strip = "(.*bot)"', b"hey\nbot go", "go"),
        ('strip = "(.*bot)"', b"go", "go"),
        ('require = "bot"', b"hey bot", "hey bot"),
        ('input = "json"', b"[1]", "[1]"),
    ],
)
def test_what_is_understood(keys: str, payload: bytes, text: str) -> None:
    assert prompt.understand(flow(keys), message(payload), CAPTURED).text == text


@pytest.mark.parametrize(
    ("keys", "payload", "reason"),
    [
        ("", b"", "empty"),
        ("", b" \n\t", "empty"),
        ('require = "bot"', b"hey you", "require"),
        ('strip = "(.*bot)"', b"hey bot", "empty"),
        ('input = "image"\nprompt = "What?"', b"", "empty"),
    ],
)
def test_what_is_ignored(keys: str, payload: bytes, reason: str) -> None:
    with pytest.raises(Ignored) as caught:
        prompt.understand(flow(keys), message(payload), CAPTURED)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("keys", "payload", "code"),
    [
        ("", b"\xff\xfe", "undecodable"),
        ("", "lost \ufffd".encode(), "undecodable"),  # what EMQX makes of such bytes
        ("", b"\xed\xbf\xbf", "undecodable"),
        ('input = "json"', b"{", "not_json"),
        ('input = "json"', b"text", "not_json"),
        ('input = "image"\nprompt = "What?"', b"text", "not_an_image"),
        ('input = "image"\nprompt = "What?"', base64.b64encode(b"text"), "not_an_image"),
    ],
)
def test_what_its_sender_is_told(keys: str, payload: bytes, code: str) -> None:
    with pytest.raises(MessageError) as caught:
        prompt.understand(flow(keys), message(payload), CAPTURED)
    assert caught.value.code == code


def test_the_messages_are_system_memory_question() -> None:
    made = flow('system = "Talk to ${clientid}."\nhistory = { messages = 4 }')
    asked = prompt.understand(made, message(), CAPTURED)
    turns = [Turn("q1", "a1", 1), Turn("q2", "a2", 2)]
    assert [(one["role"], one["content"]) for one in prompt.compose(made, asked, turns)] == [
        ("system", "Talk to dev."),
        ("user", "q1"),
        ("assistant", "a1"),
        ("user", "q2"),
        ("assistant", "a2"),
        ("user", "hi"),
    ]


HOUR = 3_600_000
TURNS = [Turn(f"q{n}", "x" * 27, at=n * HOUR) for n in range(5)]  # about 11 tokens each


@pytest.mark.parametrize(
    ("history", "kept"),
    [
        ("{ messages = 100 }", [0, 1, 2, 3, 4]),
        ("{ messages = 4 }", [3, 4]),
        ("{ messages = 5 }", [3, 4]),  # half an exchange would be an answer to nothing
        ("{ messages = 100, tokens = 25 }", [3, 4]),
        ("{ messages = 100, tokens = 9 }", []),
        ('{ messages = 100, ttl = "2h" }', [2, 3, 4]),
        ('{ messages = 100, ttl = "1m" }', [4]),
    ],
)
def test_what_is_remembered(history: str, kept: list[int]) -> None:
    turns = prompt.remembered(flow(f"history = {history}"), TURNS, now=4 * HOUR)
    assert [turn.user for turn in turns] == [f"q{n}" for n in kept]


def test_without_history_nothing_is() -> None:
    assert prompt.remembered(flow(), TURNS, now=0) == []


@pytest.mark.parametrize(
    ("keys", "options"),
    [
        ("", {}),
        ("temperature = 0.0", {"temperature": 0.0}),
        ("params = { top_p = 0.5, seed = 1 }", {"top_p": 0.5, "seed": 1}),
    ],
)
def test_only_what_the_flow_sets_is_sent(keys: str, options: dict[str, Any]) -> None:
    assert prompt.options_of(flow(keys)) == options


SCHEMA = {"type": "object", "required": ["a"], "properties": {"a": {"type": "number"}}}


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ('{"a": 1}', '{"a":1}'),
        (' \n{"a": 1.5, "b": "ü"}\n', '{"a":1.5,"b":"ü"}'),
        ('```json\n{"a": 1}\n```', '{"a":1}'),
        ('```\n{"a": 1}\n```', '{"a":1}'),
    ],
)
def test_json_that_fits_is_made_compact(text: str, document: str) -> None:
    assert prompt.check_schema(text, SCHEMA) == (None, document)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no", "not JSON"),
        ("", "not JSON"),
        ('{"a": 1', "not JSON"),
        ('{"a": NaN}', "not JSON"),
        ("{}", '"a" is a required property'),
        ('{"a": "1"}', '$.a: "1" is not of type "number"'),
        ("[1]", 'is not of type "object"'),
    ],
)
def test_json_that_does_not_fit_is_described_to_the_model(text: str, words: str) -> None:
    fault, _ = prompt.check_schema(text, SCHEMA)
    assert fault is not None
    assert words in fault
    assert len(fault) <= 300


def test_a_picture_counts_as_one_and_not_as_its_base64() -> None:
    made = flow('input = "image"\nprompt = "What?"')
    picture = b"\xff\xd8\xff" + bytes(1_000_000)
    asked = prompt.understand(made, message(picture), CAPTURED)
    counted = prompt.estimate_of(prompt.compose(made, asked, []))
    assert counted == prompt.IMAGE_TOKENS + prompt.estimate("What?")


def talk(history: str, questions: int, words: int = 1) -> list[list[str]]:
    """What is remembered at each question of a long conversation."""
    made = flow(f"history = {history}")
    stored: list[Turn] = []
    seen = []
    for number in range(questions):
        turns = prompt.remembered(made, stored, 0)
        seen.append([turn.user for turn in turns])
        new = Turn(f"{number}", "answer " * words, 0, 0)
        stored = [*turns, new][-prompt.kept(made, turns, new) :]
    return seen


def test_a_full_memory_is_trimmed_in_steps() -> None:
    seen = talk("{ messages = 10 }", 40)
    assert max(map(len, seen)) == 5
    assert min(map(len, seen[5:])) == 3
    # Two of three questions begin as the one before them did.
    same = [now[: len(before)] == before for before, now in itertools.pairwise(seen)]
    assert sum(same) > len(same) * 0.6
    for before, now in itertools.pairwise(seen):
        assert now[-1] == str(int(before[-1]) + 1 if before else 0)


def test_memory_within_tokens_is_trimmed_in_steps() -> None:
    seen = talk("{ messages = 1000, tokens = 1000 }", 60, words=20)
    same = [now[: len(before)] == before for before, now in itertools.pairwise(seen)]
    assert sum(same) > len(same) * 0.8
    assert max(map(len, seen)) > 10


@pytest.mark.parametrize("messages", [2, 3, 4, 5, 7])
def test_the_last_exchange_is_always_remembered(messages: int) -> None:
    seen = talk(f"{{ messages = {messages} }}", 12)
    assert all(turns for turns in seen[1:])
    assert max(map(len, seen)) <= messages // 2


SUMMARY = Turn("", "short", at=HOUR, summary=True)
SUMMED = [SUMMARY, *TURNS[2:]]


@pytest.mark.parametrize(
    ("history", "now", "told"),
    [
        ("messages = 100", 4, ["short", "q2", "q3", "q4"]),
        ("messages = 4", 4, ["short", "q3", "q4"]),
        ("messages = 100, tokens = 30", 4, ["short", "q3", "q4"]),
        ('messages = 100, ttl = "3h"', 4, ["short", "q2", "q3", "q4"]),
        ('messages = 100, ttl = "2h"', 4, ["q2", "q3", "q4"]),
        ('messages = 100, ttl = "1h"', 9, []),
    ],
)
def test_a_summary_stands_before_what_is_remembered(
    history: str, now: int, told: list[str]
) -> None:
    made = flow(f"history = {{ {history}, summarize = true }}")
    turns = prompt.remembered(made, SUMMED, now=now * HOUR)
    assert [turn.user or turn.assistant for turn in turns] == told


@pytest.mark.parametrize(
    ("history", "crowded", "stay"),
    [
        ("messages = 100", False, 4),  # nothing fell out: all of them, the summary too
        ("messages = 100", True, 1),
        ("messages = 4", False, 1),
        ('messages = 100, ttl = "2h"', False, 4),  # too old: nothing to sum up
    ],
)
def test_what_stays_as_it_is_when_the_rest_is_summed_up(
    history: str, crowded: bool, stay: int
) -> None:
    made = flow(f"history = {{ {history}, summarize = true }}")
    assert prompt.recent(made, SUMMED, 4 * HOUR, crowded=crowded) == stay


def test_what_waits_for_its_summary_is_bounded() -> None:
    made = flow("history = { messages = 4, summarize = true }")
    stored = [SUMMARY]
    for number in range(20):
        new = Turn(f"{number}", "said", at=2 * HOUR)
        count = prompt.kept(made, stored, new)
        stored = [SUMMARY, *[*stored[1:], new][-count:]]
        assert prompt.summary_of(made, stored, 2 * HOUR)
    assert [turn.user for turn in stored[1:]] == ["15", "16", "17", "18", "19"]
    huge = Turn("?", "x" * prompt.MEMORY, at=2 * HOUR)
    assert prompt.kept(made, [SUMMARY, huge], huge) == 1
    beyond = Turn("?", "x" * 3 * prompt.MEMORY, at=2 * HOUR)
    assert prompt.kept(made, [SUMMARY], beyond) == 0
