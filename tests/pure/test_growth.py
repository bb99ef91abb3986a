"""What devices and models write is read in time in proportion to its length."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator

import pytest

from service.answering import chunks, speech
from service.bodies import too_deep
from service.emqx import message, reasons
from service.errors import BadRequest
from service.flows.regex import Regex
from service.flows.schemas import Schema, fault_in
from service.llm import contents, markup, tool_calls
from service.mqtt import templates, topics

MOST = 3.2  # times as long for twice the text; what grows with its square takes 4
UNITS = [
    *("{", "[", "<", "`", "\\", " ", "${", "\n", "}", "]", '"', "*", "_", "#", ">", "a", "("),
    *(
        "<think>",
        "</think>",
        "```\n",
        "[{",
        '{"a":',
        "[1,",
        "[1,[],",
        "|a|b|\n|-|-|\n",
        "1. a\n",
        "> ",
    ),
    *("【", "<!--", "<a ", "![", "[x](", "www.", "a b. ", "\u200d", "<tool_call>", "functions.a:1"),
    *(
        "<function=a>",
        "<function=a><parameter=b>",
        "<arg_key>a</arg_key>",
        "  \n",
        "- [ ] ",
        "`<s>",
    ),
    *(
        '<parameter name="a">',
        "- [ ] ",
        "to=a ",
        "{}",
        '{"name":"a"}',
        "<|channel|>",
        "a*",
        "a. \n",
        "\t",
    ),
]


def feed(text: str) -> None:
    separator = markup.Separator()
    for at in range(0, len(text), 7):
        separator.feed(text[at : at + 7])
    separator.end()


def speaking(text: str) -> None:
    said = speech.Speaking()
    for at in range(0, len(text), 64):
        said.feed(text[at : at + 64])
    said.end()


def calls(text: str) -> None:
    tool_calls.calls_in([text], {"a": {}})
    tool_calls.calls_as_answer(text, {"a": {}})


def webhook(text: str) -> None:
    whole = json.dumps({"id": "1", "topic": text, "payload": text, "pub_props": {"a": text}})
    message.parse(whole.encode(), now=0)
    with pytest.raises(BadRequest):
        message.parse(text.encode(), now=0)


WAKE = (Regex("(.*hey robot)"), Regex("(a+)+$"), Regex(r"\b(?:\w+\s*)*!"), Regex("(.*)*x"))
SCHEMA = Schema(
    {"items": {"pattern": "^(a*)*$"}, "uniqueItems": True, "contains": {"pattern": "(x+x+)+y"}}
)
TAILS = {"[1,": " x", "[": " x", '{"a":': "x", "{": '"a"'}  # what ends far from where it began
READERS: dict[str, Callable[[str], object]] = {
    "markup": markup.separate,
    "markup in deltas": feed,
    "JSON within words": lambda text: list(contents.documents_of(text)),
    "tool calls as text": calls,
    "speech": speech.spoken,
    "speech in deltas": speaking,
    "pieces": lambda text: (chunks.numbered(text, 1000), chunks.shortened(text, 500)),
    "a payload's JSON": lambda text: templates.decode_json(text.encode()),
    "the webhook": webhook,
    "EMQX's words": reasons.reason,
    "a topic": lambda text: (topics.matches("a/#", text), topics.fault_in_name(text)),
    "depth": too_deep,
    "wake words": lambda text: [regex.search(text) for regex in WAKE],
    "schemas": lambda text: fault_in([text, *text[:2000]], SCHEMA),
}


@pytest.fixture(autouse=True)
def _no_collections() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()
    gc.collect()


def seconds(read: Callable[[str], object], text: str) -> float:
    """Of CPU, so that a busy machine counts for little."""
    began = time.process_time()
    read(text)
    return time.process_time() - began


@pytest.mark.parametrize("name", READERS)
def test_twice_the_text_takes_twice_the_time(name: str) -> None:
    read = READERS[name]
    for unit in UNITS:
        size, tries = 1 << 13, 0
        while size < 1 << 19:
            tail = TAILS.get(unit, "")
            text, twice = (unit * (length // len(unit)) + tail for length in (size, 2 * size))
            took = seconds(read, twice)
            if took < 0.03:  # too short to be told from noise: a longer one
                size *= 4
                continue
            if took <= MOST * max(seconds(read, text), 1e-9):
                break
            tries += 1
            assert tries < 4, f"{unit!r}: {took:.3f} s for {len(twice)} characters"
