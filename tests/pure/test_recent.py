"""`recent`: what is wrong with it in flows.toml, and what a prompt tells of readings."""

from __future__ import annotations

import json

import pytest

from service.answering import readings_text
from service.answering.prompt import estimate
from service.domain import Message, Reading
from service.emqx import message as webhook
from service.emqx.config_file import render
from service.flows import parse
from service.mqtt.templates import Scope, Template

NOON = 1_764_158_400_000  # 2025-11-26 12:00 UTC
FLOW = """
[flows.boiler]
request = "boilers/${device}/ask"
reply = "boilers/${device}/say"
system = "${recent}"
"""


def flow(recent: str, text: str = FLOW):
    made, faults = parse(f"{text}recent = {{ {recent} }}\n")
    assert made is not None, [str(fault) for fault in faults]
    return made.flows["boiler"]


def told(recent: str, *payloads: object, step: int = 60_000, topic: str = ""):
    found = [
        Reading(NOON + at * step, one if isinstance(one, str) else json.dumps(one), topic)
        for at, one in enumerate(payloads)
    ]
    keys = ", ".join(filter(None, ['topic = "boilers/${device}/t"', recent]))
    return readings_text.told(flow(keys).recent, found)


def rendered(parts, text: str) -> str:
    scope = Scope(Message("1", "t", b"{}", 0), {}, {"recent": parts})
    return Template.parse(text).render(scope)


FAULTS = {
    'topic = "boilers/${devcie}/t"': "is not captured by",
    'topic = "boilers/+/t", for = "90d"': "longer than a window may be",
    'topic = "boilers/+/t", size = "1 GB"': "no size that a window may have",
    'topic = "boilers/+/t", size = 10': "no size that a window may have",
    'topic = "boilers/+/t", messages = 0': "greater than or equal to 1",
    'topic = "boilers/+/t", messages = 100000': "less than or equal to 10000",
    'topic = "boilers/+/t", fields = ["a b"]': "no value of a JSON payload",
    'topic = "boilers/+/t", fields = ["payload.a"]': "within the payload already",
    'topic = "$events/#"': "can't be listened to",
    "messages = 3": "topic",
}


@pytest.mark.parametrize(("recent", "said"), FAULTS.items())
def test_faults_are_told(recent: str, said: str) -> None:
    made, faults = parse(f"{FLOW}recent = {{ {recent} }}\n")
    assert made is None
    assert any(said in str(fault) for fault in faults), [str(fault) for fault in faults]


TEXTS = {
    'prompt = "${recent.temp.men}"': 'did you mean "mean"?',
    'prompt = "${recent.tmp.mean}"': 'did you mean "temp"?',
    'prompt = "${recent.temp}"': "${recent.temp.mean}",
    'conversation = "${recent}"': "can't stand here",
    'status = "boilers/${recent.temp.last}"': "can't stand here",
}


@pytest.mark.parametrize(("line", "said"), TEXTS.items())
def test_names_of_figures_are_checked(line: str, said: str) -> None:
    made, faults = parse(f'{FLOW}{line}\nrecent = {{ topic = "a/+", fields = ["temp"] }}\n')
    assert made is None
    assert any(said in str(fault) for fault in faults), [str(fault) for fault in faults]


def test_without_recent_its_name_stands_for_nothing_and_with_it_somebody_should_read_it() -> None:
    made, faults = parse(FLOW)
    assert made is None
    assert "there is no recent" in str(faults[0])
    unread = FLOW.replace('system = "${recent}"\n', "")
    _, faults = parse(f'{unread}recent = {{ topic = "a/+" }}\n')
    assert [fault.warning for fault in faults] == [True]
    assert "nothing reads it" in str(faults[0])
    remembered = FLOW.replace("system", "prompt") + "history = { messages = 4 }\n"
    _, faults = parse(f'{remembered}recent = {{ topic = "a/+" }}\n')
    assert any("write ${recent} into system" in str(fault) for fault in faults)


def test_a_table_and_figures_of_json() -> None:
    parts = told("", {"t": 20, "m": "heat"}, {"t": 23.5}, {"t": None, "m": "off"}, {"t": 21})
    assert parts.text == (
        "4 messages until 2025-11-26 12:03:00 UTC\n"
        "time (UTC),t,m\n"
        "12:00:00,20,heat\n"
        "12:01:00,23.5,\n"
        "12:02:00,null,off\n"
        "12:03:00,21,\n"
        "t: min 20 at 12:00:00, mean 21.5, max 23.5 at 12:01:00, last 21"
    )
    text = "${recent.t.mean} ${recent.t.min} ${recent.t.max} ${recent.t.last} ${recent.t.count}"
    assert rendered(parts, text) == "21.5 20 23.5 21 3"
    assert rendered(parts, "${recent.m.last} ${recent.m.mean} ${recent.count}") == "off undefined 4"


def test_fields_are_paths_and_what_is_no_json_is_told_too() -> None:
    parts = told('fields = ["env.t"]', {"env": {"t": 1}, "x": 2}, "rebooted", {"env": [3]})
    assert parts.text.splitlines()[1:5] == [
        "time (UTC),env.t,value",
        "12:00:00,1,",
        "12:01:00,,rebooted",
        "12:02:00,,",
    ]
    assert rendered(parts, "${recent.env.t.max}") == "1"


def test_plain_numbers_and_texts_are_values() -> None:
    parts = told("", "21", "23", 'off, "they" said\nso')
    assert '12:02:00,"off, ""they"" said\nso"' in parts.text
    assert rendered(parts, "${recent.value.mean}") == "22"


def test_nothing_was_published() -> None:
    parts = told('for = "90m"')
    assert parts.text == "(nothing was published in the last 90m)"
    assert rendered(parts, "${recent.count} ${recent.t.mean}") == "0 undefined"


def test_a_long_table_is_thinned_out_and_its_figures_are_of_all() -> None:
    many = [{"t": 500 if at == 777 else 20} for at in range(2000)]
    parts = told("messages = 2000, tokens = 300", *many, step=60_000)
    assert estimate(parts.text) <= 300
    lines = parts.text.splitlines()
    assert lines[0].startswith("2000 messages until 2025-11-27 21:19:00 UTC, ")
    assert lines[2].startswith("2025-11-26 12:00:00")
    assert lines[-2].startswith("2025-11-27 21:19:00")
    assert "max 500 at 2025-11-27 00:57:00" in lines[-1]


@pytest.mark.parametrize(
    "payload", ["1e400", "[1]", "9" * 400, '"\\ud800"', "{" * 5000, "null", "", "true"]
)
def test_odd_payloads_hurt_nothing(payload: str) -> None:
    parts = told("", payload, {"t": 1})
    assert "t: min 1 at 12:01:00" in parts.text


def test_huge_cells_and_many_columns_are_bounded() -> None:
    parts = told("tokens = 50", {f"c{at}": "x" * 10_000 for at in range(50)})
    assert len(parts.text) < 5000


def test_levels_keep_their_windows_apart_and_an_empty_one_is_its_own() -> None:
    one = flow('topic = "a/${device}/t"')
    windows = [one.window_of({"device": level}) for level in ("b1", "", "-", "~x", "b1 ")]
    assert len(set(windows)) == 5
    assert one.window_of({}) is None
    assert flow('topic = "a/+/t"').window_of({}) is not None


def test_the_rule_sends_no_more_than_is_kept_and_only_flows_with_a_window_have_one() -> None:
    made, _ = parse(f'{FLOW}recent = {{ topic = "boilers/${{device}}/t" }}\n')
    assert made is not None
    (text,) = render(made).values()
    assert "SELECT 'boiler' AS recent, topic, payload, publish_received_at" in text
    assert 'FROM "boilers/+/t"' in text
    assert "actions.http.emqx_gpt_recent" in text
    plain, _ = parse(FLOW.replace("${recent}", "hi"))
    assert plain is not None
    assert "recent" not in next(iter(render(plain).values()))


def test_a_question_is_no_reading() -> None:
    for body in (b'{"recent":"x","id":"1","topic":"t"}', b'{"recent":1,"topic":"t"}', b"[]", b"{"):
        assert webhook.reading(body, now=5) is None
    kept = webhook.reading(b'{"recent":"x","topic":"t","payload":{"a":1}}', now=5)
    assert kept == webhook.Kept("x", "t", b'{"a":1}', 5)
    kept = webhook.reading(b'{"recent":"x","topic":"t","payload_base64":"/w=="}', now=5)
    assert kept == webhook.Kept("x", "t", b"\xff", 5)
