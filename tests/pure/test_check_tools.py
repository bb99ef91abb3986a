"""Faults of tools that wait, ask and check: each with its line, its key and what to do."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from service.flows import parse

X = '[flows.x]\nrequest = "in/${user}"\nreply = "out/${user}"\n'
TOOL = '[[flows.x.tools]]\nname = "t"\ndescription = "d"\ntopic = "dev/${room}/set"\n'
ROOM = 'parameters = { required = ["room"], properties = { room = { type = "string" } } }\n'
T = X + TOOL + ROOM
CONFIRM = 'confirm = { ask = "ask/${user}", answer = "said/${user}", pin_env = "PIN" }'
DEGREES = TOOL + (
    'parameters = { required = ["room"], properties = { room = {}, to = { type = "number" } } }\n'
)


def faults_of(text: str, environ: Mapping[str, str] | None = None) -> list[tuple[int | None, str]]:
    _, faults = parse(text, environ=environ)
    return [(fault.line, str(fault)) for fault in faults]


@pytest.mark.parametrize(
    ("text", "line", "says", "hint"),
    [
        # topics on which nobody else can answer
        (T + 'answer = "$SYS/brokers"', 9, "a topic of the broker", "not begin with $"),
        (T + 'answer = "heard/${room}/+"', 9, "one publishes to a plain topic", ""),
        (T + 'answer = "dev/${room}/set"', 9, "our own message would be the answer", "differ"),
        (T + 'answer = "out/${user}"', 9, "can be reached by flows.x.reply", "differ in a level"),
        (T + 'answer = "dev/${rom}/state"', 9, "${rom} stands for nothing", "${room}"),
        (
            T + 'confirm = { ask = "ask/${user}", answer = "ask/${user}" }',
            9,
            "the question would answer itself",
            "differ in a level",
        ),
        (T + 'confirm = { ask = "ask", answer = "in/${user}" }', 9, "is a request topic", "asked"),
        # keys that go with others
        (T + 'match = "${payload.id}"', 9, "match: does nothing without answer", "where does it"),
        (T + 'answer_timeout = "3s"', 9, "does nothing without answer", ""),
        (T + "response_topic = true", 9, "response_topic: does nothing without answer", ""),
        (
            X + TOOL.replace("topic =", "read =") + ROOM + 'answer = "a/b"',
            9,
            "answer: does nothing without topic",
            "a command",
        ),
        # words
        (T + 'hours = "07:00-22:00"', 9, "has no time zone", '"07:00-22:00 UTC"'),
        (T + 'hours = "07:00-22:00 Berlin"', 9, '"Berlin" is no time zone', "Europe/Berlin"),
        (T + 'hours = "all day"', 9, "hours are such as", "Europe/Berlin"),
        (T + 'hours = "07:00-07:00 UTC"', 9, "begins and ends at the same time", ""),
        (T + 'rate = "3"', 9, '"3" can\'t be used', "3/min"),
        (T + 'answer = "a"\nmatch = "x = y"', 10, "reads nothing of what the device says", ""),
        (T + 'answer = "a"\nmatch = "${payload.id} ="', 10, "nothing to compare with", ""),
        (T + 'verify = { expect = "${payload} = 1" }', 9, "needs one of read and answer", "read:"),
        (
            T + 'verify = { expect = "${payload} = 1", read = "a", answer = "b" }',
            9,
            "needs one of read and answer",
            "",
        ),
        (T + 'confirm = { ask = "a" }', 9, "answer: is missing", ""),
        (T + 'confirm = { ask = "a", answer = "b", timeout = "0s" }', 9, "confirm.timeout", ""),
        # bounds
        (
            T + 'bounds = { argument = "to", read = "a", max_change = 1 }',
            9,
            '"to" is no argument of t',
            "its arguments: room",
        ),
        (
            T + 'bounds = { argument = "room", read = "a", max_change = 1 }',
            9,
            '"room" is no number',
            'type = "number"',
        ),
        (
            X + DEGREES + 'bounds = { argument = "to", read = "a", max_change = 1 }',
            9,
            '"to" may be missing from a call',
            'required = ["to"',
        ),
        # replies
        (
            X.replace("out/${user}", "dev/${user}/set") + TOOL + ROOM,
            3,
            'can reach "dev/${room}/set" of the tool t',
            "differ in a level",
        ),
    ],
)  # fmt: skip
def test_each_fault_is_told_with_its_line_and_its_cure(
    text: str, line: int, says: str, hint: str
) -> None:
    found = faults_of(text)
    assert len(found) == 1, found
    assert found[0][0] == line, found
    assert says in found[0][1], found
    assert hint in found[0][1], found


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "PIN is not set"),
        ({"PIN": "12"}, "PIN is no PIN of digits"),
        ({"PIN": "secret"}, "3 to 12 digits"),
        ({"PIN": "4711"}, None),
        (None, None),  # who only reads the file
    ],
)
def test_a_pin_has_to_be_there(environ: Mapping[str, str] | None, says: str | None) -> None:
    found = faults_of(T + CONFIRM, environ)
    if says is None:
        assert found == []
    else:
        [(line, text)] = found
        assert (line, says in text) == (9, True), text
        assert "secret" not in text.replace("no secret", "")
