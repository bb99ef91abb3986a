"""The sentences in place of a reply: whose words, in which language."""

from __future__ import annotations

import pytest

from service.answering.sentences import sentence
from service.flows import Flow, parse


def flow(more: str = "") -> Flow:
    text = f'[flows.f]\nrequest = "a/${{user}}"\nreply = "b/${{user}}"\n{more}'
    flows, faults = parse(text)
    assert flows is not None, [str(fault) for fault in faults]
    return flows.flows["f"]


SAID = [  # keys of the flow, code, message, sentence
    ("", "limit", "hello", None),
    ("", "limit", "二", "请求太多，请稍等一会儿。"),
    ("", "limit", "Wie wird das Wetter?", "Zu viele Anfragen, bitte kurz warten."),
    ("", "limit", "Schalte das Licht in der Küche an", "Zu viele Anfragen, bitte kurz warten."),
    ("", "limit", "What is the weather in Zürich?", None),
    ("", "limit", "the die is cast", None),
    ("", "limit", "天気はどうですか", None),
    ("", "limit", "", None),
    ('language = "zh"', "limit", "hello", "请求太多，请稍等一会儿。"),
    ('language = "en"', "limit", "二", None),
    (
        'language = "de"',
        "model_timeout",
        "x",
        "Das kann ich gerade nicht beantworten, bitte später noch einmal fragen.",
    ),
    ('language = "de"', "daily_tokens", "x", "Das Kontingent für heute ist aufgebraucht."),
    ('prompt = "温度是 ${payload.t}。"', "expired", '{"t": 4}', "没能及时回答，请再问一次。"),
    (
        'system = "Du bist ein Thermostat und antwortest auf Deutsch."',
        "not_json",
        "21",
        "Die Nachricht ist kein JSON.",
    ),
    ('messages = { limit = "Langsam!" }', "limit", "二", "Langsam!"),
    ('messages = { limit = "Langsam!" }', "expired", "hello", None),
    ('messages = { failed = "Oops." }', "model_quota", "hello", "Oops."),
    ("", "forgotten", "/reset", "OK, our conversation so far is forgotten."),
    ("", "forgotten", "忘记。", "好的，之前的对话我已经忘记了。"),
    ('messages = { forgotten = "Done." }', "forgotten", "忘记。", "Done."),
]


@pytest.mark.parametrize(("keys", "code", "text", "said"), SAID)
def test_what_is_said(keys: str, code: str, text: str, said: str | None) -> None:
    assert sentence(flow(keys), code, text) == said


def test_an_unknown_message_is_refused() -> None:
    flows, faults = parse('[flows.f]\nrequest = "a"\nreply = "b"\nmessages = { late_ = "x" }')
    assert flows is None
    assert "did you mean" in str(faults[0])


RESETS = [
    ("Forget that.", True),
    ("forget that", True),
    ("FORGET THAT!", True),
    ("Forget, that…", True),
    ("“Forget that.”", True),
    ("忘记。", True),
    ("忘记！\0", True),
    ("/reset", True),
    ("/Reset.", True),
    ("reset", False),
    ("Don't forget that.", False),
    ("forget that and go", False),
    ("", False),
    (".", False),
]


@pytest.mark.parametrize(("text", "resets"), RESETS)
def test_reset_words_as_speech_recognition_writes_them(text: str, resets: bool) -> None:
    found = flow('history = { reset = ["forget that", "忘记", "/reset"] }').history
    assert found is not None
    assert found.resets(text) is resets


HEARD = [
    ("Hey Robot, turn on the light.", "turn on the light."),
    ("hey robot turn on", "turn on"),
    ("HEY ROBOT! -5 °C?", "-5 °C?"),
    ("so hey robot: go", "go"),
    ("turn on", None),
]


@pytest.mark.parametrize(("text", "heard"), HEARD)
def test_wake_words_as_speech_recognition_writes_them(text: str, heard: str | None) -> None:
    keys = 'strip = "(.*hey robot)"\nrequire = "hey robot"'
    assert flow(keys).heard(text) == heard
