"""For a flow that nobody wrote a scene for, a message is made that it answers."""

import json
from typing import Any

import pytest

from service.demo.join import join_lines
from service.demo.samples import one, samples, ticked, why_not
from service.demo.screen import clean, shown, wrapped
from service.flows import Flow, Flows, parse
from tests.rig import ROOT


def flows(text: str) -> Flows:
    found, faults = parse(text)
    assert found is not None, faults
    return found


def flow(body: str) -> Flow:
    return flows(f'[flows.mine]\nreply = "out/x"\n{body}').flows["mine"]


@pytest.mark.parametrize(
    "where",
    [
        "is_num(payload.t) and payload.t > 40",
        "is_num(payload.t) and payload.t < -5.5",
        "payload.kind = 'ask' and payload.n <> 0",
        "payload.a.b = true or payload.c = 3",
        "is_str(payload.text)",
        "payload = 'help'",
        "is_null(payload.quiet) and payload.level >= 7",
        "payload.items[1].name = 'pump'",
        "qos = 1 and payload.x = 1",
    ],
)
def test_a_condition_is_met(where: str) -> None:
    made = flow(f'request = "in/${{device}}"\nwhere = "{where}"\nprompt = "${{payload}}"')
    sample = one(made)
    assert sample is not None
    assert why_not(made, sample.topic, sample.payload) is None
    assert sample.replies == ("out/x",)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('request = "a/b"\nprompt = "${payload.speed} ${payload.who.name}"', {"speed", "who"}),
        ('request = "a/b"\ninput = "json"', set()),
        ('request = "a/b"\nreply = "out/${payload.to}"\nhistory = {messages = 2}', {"to"}),
    ],
)
def test_a_payload_has_what_the_templates_read(body: str, expected: set[str]) -> None:
    made = flow(body.replace('reply = "out/${', 'error = "e/x"\nstatus = "s/${'))
    sample = one(made)
    assert sample is not None
    assert expected <= set(json.loads(sample.payload))


@pytest.mark.parametrize("word", ["jarvis", "(?i)hey jarvis", "机器人", "(jarvis|computer)[,:]"])
def test_a_wake_word_is_said(word: str) -> None:
    made = flow(f"request = \"a/+/b/#\"\nrequire = '{word}'")
    sample = one(made)
    assert sample is not None
    assert sample.topic == "a/demo/b/demo"
    assert made.heard(sample.payload.decode())


def test_a_condition_that_nothing_meets() -> None:
    made = flow('request = "a/b"\nwhere = "payload.x = 1 and payload.x = 2"')
    assert one(made) is None
    assert samples(made) == ()
    assert any("publish to a/b" in line for line in lines(made))


def lines(made: Flow, **where: Any) -> list[str]:
    return list(join_lines(Flows({made.name: made}, {}, {}), "127.0.0.1", 1883))


def test_the_shipped_scenes_fit_the_shipped_flows() -> None:
    shipped = flows((ROOT / "flows.toml").read_text())
    for made in shipped.flows.values():
        said = [topic for each in samples(made) for topic in each.replies]
        assert ticked(made) if made.every else said, made.name
    for line in join_lines(shipped, "192.168.100.100", 18830):
        assert len(line) <= 80, line


def test_the_play_ends_where_a_flow_would_not_answer_again() -> None:
    alarm = """
    request = "sensors/${device}/telemetry"
    where = "is_num(payload.temperature) and payload.temperature > 20"
    """
    for more, played in (("", 2), ("cooldown = '5m'", 1), ("limit = '1/h'", 1), ("qos = 0", 2)):
        made = flows(f'[flows.alarm]\nreply = "alerts/${{device}}"\n{alarm}\n{more}')
        assert [bool(each.replies) for each in samples(made.flows["alarm"])] == [True] * played


def test_text_of_strangers_does_not_steer_the_terminal() -> None:
    assert clean("a\x1b[2Jb\u202ec") == "a\ufffd[2Jb\ufffdc"
    assert shown(b"\x1b]0;title\x07 hi\n there") == "\ufffd]0;title\ufffd hi there"
    assert shown(b"\xff\xd8\xff") == "(a JPEG picture, 3 bytes)"


@pytest.mark.parametrize(
    "text",
    [
        "one two three four five",
        "x" * 100,
        "今天天气很好，我们出去走走吧",
        '{"a":1,"b":2,"c":[3,4,5]}',
    ],
)
def test_wrapping_keeps_every_character_and_the_width(text: str) -> None:
    found = wrapped(text, 12, 2, 4)
    assert all(len(line) <= 12 for line in found)
    assert "".join("".join(found).split()) == "".join(text.split())


def test_a_flow_by_the_clock_has_no_message_and_says_when_it_asks() -> None:
    made = flow('every = "0 7 * * *"\nprompt = "Sum up the night."')
    assert samples(made) == ()
    lines = " ".join(join_lines(Flows({made.name: made}, {}, {}), "127.0.0.1", 1883))
    assert "asks by the clock (0 7 * * *), listen on out/x" in " ".join(lines.split())
