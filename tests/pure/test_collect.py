"""`collect`: what is wrong with it in flows.toml, and what a prompt tells of many messages."""

from __future__ import annotations

import pytest

from service.answering.prompt import understand
from service.answering.prompt_data import later
from service.domain import Message
from service.flows import parse

FLOW = """
[flows.cold]
request = "cold/${device}/state"
reply = "cold/${device}/judged"
collect = { every = "30s" }
"""
FAULTS = {
    ('every = "30s"', "messages = 5"): "every",
    ('every = "30s"', 'every = "50ms"'): "no time to collect",
    ('every = "30s"', 'every = "2d"'): "no time to collect",
    ('every = "30s"', 'every = "20m"'): "as long as deadline",
    ('every = "30s"', 'every = "30s", messages = 1'): "2",
    ('every = "30s"', 'every = "30s", size = "10 B"'): "no size that a batch may have",
    ('every = "30s"', 'every = "30s", by = "${devize}"'): "did you mean ${device}?",
    ('every = "30s"', 'every = "30s", by = "${collected}"'): "can't stand here",
    ('every = "30s"', 'every = "30s", by = "{device}"'): "did you mean ${device}?",
    ("[flows.cold]", "[flows.cold]\nrequire = 'x'"): "can't go with collect",
    ("[flows.cold]", "[flows.cold]\nstrip = 'x'"): "can't go with collect",
    ("[flows.cold]", '[flows.cold]\non_change = "${payload.x}"'): "can't go with collect",
    ("[flows.cold]", '[flows.cold]\ninput = "image"'): "can't go with collect",
    ("[flows.cold]", '[flows.cold]\nallow_response_topics = ["a/#"]'): "can't go with collect",
    ("[flows.cold]", '[flows.cold]\nprompt = "Judge."'): "nothing tells the model of it",
    ("[flows.cold]", '[flows.cold]\nprompt = "${collected.t}"'): "${collected.t.mean}",
    ("[flows.cold]", '[flows.cold]\nprompt = "${collected.t.men}"'): 'did you mean "mean"?',
    ("[flows.cold]", '[flows.cold]\nstatus = "a/${collected.t.last}"'): "can't stand here",
    ("[flows.cold]", "[flows.cold]\nmax_input = 100"): "more than max_input",
    ('collect = { every = "30s" }', 'prompt = "${collected}"'): "there is no collect",
    ("${device}", "${collected}"): "give the level another name",
    ('every = "30s"', 'every = "30s", by = "${clientid}"'): "those of the first message of many",
}


@pytest.mark.parametrize(("change", "said"), FAULTS.items())
def test_faults_are_told_with_their_line(change: tuple[str, str], said: str) -> None:
    _, faults = parse(FLOW.replace(*change))
    assert said in "\n".join(map(str, faults))
    assert all(fault.line for fault in faults)


def test_it_is_fine_as_it_stands() -> None:
    for text in (FLOW, FLOW.replace('"30s"', '"30s", by = "${device}", fields = ["t"]')):
        assert parse(text)[1] == []


def test_by_and_conversation_say_the_same_thing_twice() -> None:
    text = FLOW.replace('"30s"', '"30s", by = "${device}"') + 'conversation = "${device}"\n'
    assert any("write by alone" in str(fault) for fault in parse(text)[1])


def test_messages_that_are_no_json_or_of_several_topics_are_told_as_they_are() -> None:
    made, _ = parse(FLOW)
    assert made is not None
    flow = made.flows["cold"]
    messages = [
        Message("1", "cold/a/state", b"", 1_764_158_400_000),
        Message("2", "cold/a/state", "warm, äh".encode(), 1_764_158_401_000),
        Message("3", "cold/b/state", b"\xff", 1_764_158_402_000),
    ]
    asked = understand(flow, messages[0], {"device": "a"}, later(flow, messages))
    assert asked.text.splitlines() == [
        "3 messages until 2025-11-26 12:00:02 UTC",
        "time (UTC),topic,value",
        "12:00:00,cold/a/state,",
        '12:00:01,cold/a/state,"warm, äh"',
        "12:00:02,cold/b/state,\ufffd",
    ]
