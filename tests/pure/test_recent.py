"""`recent`: what is wrong with it in flows.toml, and what a prompt tells of readings."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace

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
    assert '12:02:00,"off, ""they"" said so"' in parts.text
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


@pytest.mark.parametrize("topic", ["", "a/" + "y" * 60_000])
def test_a_long_name_or_topic_takes_no_more_room_than_a_cell(topic: str) -> None:
    long = "k" * 60_000
    parts = told("", {long: 3, "t": 4}, {long: 5, "t": 6}, topic=topic)
    assert estimate(parts.text) <= 1000
    assert f"{'k' * 200}…,t\n" in parts.text
    assert f"{'k' * 200}…: min 3 at 12:00:00, mean 4" in parts.text
    assert rendered(parts, f"${{recent.{long}.mean}} ${{recent.t.mean}}") == "4 5"


def test_cells_get_shorter_before_a_column_is_left_out() -> None:
    parts = told("tokens = 150", {f"c{at}": "温" * 100 for at in range(6)})
    assert estimate(parts.text) <= 150
    assert parts.text.splitlines()[1:3] == [
        "time (UTC),c0,c1,c2,c3,c4,c5",
        "12:00:00" + f",{'温' * 12}…" * 6,
    ]


def test_the_last_text_that_a_prompt_names_is_no_longer_than_the_table_may_be() -> None:
    parts = told("tokens = 50", "ä" * 60_000)
    assert rendered(parts, "${recent.value.last}") == "ä" * 75 + "…"


ODD = ["a", "b", "count", "mean", "last", "value", "", "a.b", "温度", 'q"', "x,y: min", "\ud800"]
ODD += ["\0", "e\nf", "\u2028", "k" * 300, "😀" * 300, '"' * 300, "." * 50]
LINE = re.compile(r"^([0-9-]{10} )?[0-9:]{8}(,|$)|: min .* at .*, max .* at .*, last ")
TEXTS_SENT = ["", "off", "a,b", "\r\n", "\ud800", "x" * 5000, "温" * 500, '"' * 500, "\x85"]


def any_value(chance: random.Random, deep: int = 0):
    match chance.randrange(8 if deep < 4 else 4):
        case 0:
            return chance.choice([0, -1, 1.5, 1e308, -1e308, 10**300, 10**400, 5e-324, 2**64 + 1])
        case 1:
            return chance.choice([None, True, 1234567, 20.1, 20.2, chance.random() * 1e6])
        case 2 | 3:
            return chance.choice(TEXTS_SENT)
        case 4:
            return [any_value(chance, deep + 1) for _ in range(chance.randrange(3))]
    many = chance.choice([1, 2, 2 if deep else 20])
    return {
        chance.choice(ODD) + chance.choice(ODD): any_value(chance, deep + 1) for _ in range(many)
    }


@pytest.mark.parametrize("tokens", [50, 51, 70, 100, 300, 2000])
def test_whatever_comes_the_text_keeps_to_its_tokens_and_lines(tokens: int) -> None:
    chance = random.Random(tokens)  # noqa: S311
    fields = ["a", "count", "a.b", "value", *(f"f{at}" for at in range(40))]
    table = flow(f'topic = "boilers/+/t", tokens = {tokens}').recent
    for _ in range(100):
        some = chance.sample(fields, chance.choice([1, 3, 40])) if chance.random() < 0.4 else ()
        readings, at = [], NOON
        for _ in range(chance.choice([1, 2, 9, 40])):
            sent = any_value(chance)
            text = json.dumps(sent) if chance.random() < 0.8 else str(sent)
            readings.append(Reading(at, text, chance.choice(["", "a/t", "t" * 900, "\ud800\n"])))
            at += chance.choice([0, 1, 60_000, 10**8, 10**17])
        parts = readings_text.told(replace(table, fields=tuple(some)), readings)
        assert estimate(parts.text) <= tokens
        parts.text.encode()
        said, head, *rows = parts.text.splitlines()
        assert said.startswith(f"{len(readings)} messages until ")
        assert head.startswith("time (")
        assert all(row.startswith("?") or LINE.search(row) for row in rows)
        text = "${recent.a.mean}${recent.a.b.last}${recent.value.last}${recent.a}"
        rendered(parts, text).encode()
        assert rendered(parts, "${recent.count}") == str(len(readings))


MEANS = [
    ([1234567] * 3, "1234567"),
    ([1234567, 1234568, 1234568], "1234568"),
    ([1234567.2, 1234569.2], "1234568.2"),
    ([1764158400000, 1764158400001], "1764158400000"),
    ([2**53 + 1] * 3, str(2**53 + 1)),
    ([20.1, 20.1, 20.1], "20.1"),
    ([20.1, 20.2, 20.0], "20.1"),
    ([0.1, 0.2], "0.15"),
    ([61.5, 62, 64.5], "62.6667"),
    ([1e308, 1e308, 1.7e308], "1.23333e+308"),
    ([1.7976931348623157e308] * 2, "1.7976931348623157e+308"),
]


@pytest.mark.parametrize(("numbers", "mean"), MEANS)
def test_a_mean_has_the_digits_of_what_it_is_of(numbers: list[float], mean: str) -> None:
    parts = told("", *numbers)
    assert rendered(parts, "${recent.value.mean}") == mean
    assert f", mean {mean}, " in parts.text


def test_a_mean_lies_between_the_least_and_the_greatest() -> None:
    chance = random.Random(7)  # noqa: S311
    table = flow('topic = "boilers/+/t"').recent
    for _ in range(2000):
        middle = chance.choice([1, -1]) * 10 ** chance.uniform(-300, 300)
        near = [middle * (1 + chance.random() * 10.0 ** -chance.randrange(17)) for _ in range(3)]
        sent = [round(one) if abs(one) > 1e9 and chance.random() < 0.5 else one for one in near]
        parts = readings_text.told(table, [Reading(NOON, json.dumps(one)) for one in sent])
        known = parts.values["value"].values
        assert (known["min"], known["max"]) == (min(sent), max(sent))
        assert known["min"] <= known["mean"] <= known["max"]


def test_a_value_may_be_called_as_a_figure_is() -> None:
    sent = {"count": 30, "a": 1, "a.last": 5, "mean": {"max": 7}}
    parts = told("", sent, {**sent, "count": 50})
    assert rendered(parts, "${recent.count} ${recent.count.mean} ${recent.count.count}") == "2 40 2"
    assert rendered(parts, "${recent.a.last} ${recent.a.last.max} ${recent.a.mean}") == "1 5 1"
    assert rendered(parts, "${recent.mean.max.min} ${recent.mean.max}") == "7 undefined"
    turned = told("", {"a.last": 5, "a": 1, "count.last": 6})
    assert rendered(turned, "${recent.a.last} ${recent.a.last.max}") == "1 5"
    assert rendered(turned, "${recent.count} ${recent.count.last.max}") == "1 6"
    only = told('fields = ["count"]', sent)
    assert rendered(only, "${recent.count} ${recent.count.max}") == "1 30"


def test_a_prompt_finds_a_figure_that_the_table_has_no_room_for() -> None:
    others = {f"k{at}": at for at in range(12)}
    parts = told("", {**others, "temperature": 20}, {"temperature": 21})
    assert parts.text.splitlines()[1].endswith(",k11")
    assert rendered(parts, "${recent.temperature.mean} ${recent.k3.max}") == "20.5 3"


def test_nobody_crowds_out_the_figures_and_they_are_bounded() -> None:
    junk = {f"k{at}": at for at in range(5000)}
    parts = told("", junk, {"temperature": 20}, {"temperature": 21})
    assert rendered(parts, "${recent.temperature.mean}") == "20.5"
    assert len(parts.values) <= readings_text.FIGURED + readings_text.COLUMNS + 1
    deep = told("", {"a." * 30_000: 1, "a.b.c.d.e": 2})
    assert rendered(deep, "${recent.a.b.c.d.e.max}") == "2"
    levels, value = 0, deep.values
    while value := getattr(value.get("a"), "values", None):
        levels += 1
    assert levels <= readings_text.LEVELS


@pytest.mark.parametrize("at", [10**17, -(10**17), 10**400])
def test_no_time_is_too_absurd(at: int) -> None:
    table = flow('topic = "boilers/${device}/t"').recent
    for readings in ([Reading(at, "1")], sorted([Reading(NOON, "2"), Reading(at, "1")])):
        parts = readings_text.told(table, readings)
        assert f"{len(readings)} message" in parts.text
        assert "?" in parts.text
        assert rendered(parts, "${recent.value.min}") == "1"


@pytest.mark.parametrize("mark", ["\n", "\r", "\r\n", *"\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"])
def test_no_line_can_be_forged(mark: str) -> None:
    forged = f"off{mark}12:59:00 999"
    parts = told("", {"t": 5, f"x{mark}y": 1}, {"t": f"6{mark}y: min 0"}, forged, topic=f"a{mark}b")
    assert len(parts.text.splitlines()) == parts.text.count("\n") + 1 == 7
    assert parts.text.splitlines()[1:] == [
        "time (UTC),topic,t,x y,value",
        "12:00:00,a b,5,1,",
        "12:01:00,a b,6 y: min 0,,",
        "12:02:00,a b,,,off 12:59:00 999",
        "t: min 5 at 12:00:00, mean 5, max 5 at 12:00:00, last 6 y: min 0",
        "x y: min 1 at 12:00:00, mean 1, max 1 at 12:00:00, last 1",
    ]


def test_a_name_can_not_pass_for_figures() -> None:
    parts = told("", {"t: min 0": 5}, {"t: min 0": "6, max 9"})
    assert parts.text.splitlines()[-1] == (
        '"t: min 0": min 5 at 12:00:00, mean 5, max 5 at 12:00:00, last "6, max 9"'
    )


def test_half_a_character_is_told_as_none() -> None:
    parts = told('fields = ["t", "l"]', {"t": "\ud800", "l": ["\udfff"]}, topic="a/\udc80")
    assert '12:00:00,a/\ufffd,\ufffd,"[""\ufffd""]"' in parts.text
    assert rendered(parts, "${recent.t.last}${recent.l.last}") == '\ufffd["\ufffd"]'
    parts = told("", {"\ud800": 1}, "\ud800")
    assert "time (UTC),\ufffd,value" in parts.text
    assert parts.text.encode()
    assert rendered(parts, "${recent.value.last}") == "\ufffd"


def test_an_integer_is_told_as_it_was_sent() -> None:
    many = [2**64 + 1, 2**64 + 3]
    parts = told("", *({"n": number} for number in many))
    assert rendered(parts, "${recent.n.min} ${recent.n.max} ${recent.n.last}") == (
        f"{many[0]} {many[1]} {many[1]}"
    )
    assert f"12:01:00,{many[1]}\n" in parts.text


def test_only_rows_are_made_that_may_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 readings took 0.7 s and more, most of it for rows that nobody was told."""
    made: list[int] = []
    time_of = readings_text._time

    def counted(at: int, span: int) -> str:
        made.append(at)
        return time_of(at, span)

    monkeypatch.setattr(readings_text, "_time", counted)
    told("messages = 10000", *({"t": at} for at in range(10_000)), step=1000)
    assert len(made) < 2500


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
