"""JSON nested deeper than anything can follow is no JSON, wherever it comes from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.answering import prompt
from service.bodies import DEEPEST, parsed, too_deep
from service.emqx import message
from service.emqx.reasons import reason
from service.errors import BadRequest
from service.llm.json_within import documents
from service.llm.tool_calls import Calls, calls_as_answer, calls_in
from service.mqtt.templates import MISSING, decode_json

DEPTHS = [DEEPEST + 1, 250, 260, 500, 990, 1000, 1020, 1030, 5000, 100_000]


def nested(depth: int, opens: str = "[", inner: str = "") -> str:
    return opens * depth + inner + "".join("]" if one == "[" else "}" for one in opens[::1]) * depth


def objects(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("make", [nested, objects])
def test_too_deep_is_no_json(depth: int, make: Any) -> None:
    with pytest.raises(ValueError):
        parsed(make(depth))
    assert decode_json(make(depth).encode()) is MISSING
    body = f'{{"id": "1", "topic": "t", "payload": {make(depth)}}}'
    with pytest.raises(BadRequest):
        message.parse(body.encode(), now=0)
    assert message.parse(
        json.dumps({"id": "1", "topic": "t", "payload": make(depth)}).encode(), now=0
    )
    assert prompt.check_schema(make(depth), {})[0] is not None
    calls = Calls()
    calls.add({"index": 0, "function": {"name": "f", "arguments": make(depth)}})
    assert calls.all()[0].name == "f"
    call = f'{{"name": "f", "arguments": {make(depth)}}}'
    assert not calls_in([call], {"f": {}})
    assert calls_as_answer(call, {"f": {}}) == ()
    assert isinstance(reason({"message": make(depth)}), str)
    assert not list(documents(make(depth)))


@pytest.mark.parametrize(
    "text", ["[" * 100 + "]" * 100, "[" + "{}," * 5000 + "{}]", '["' + "[" * 999 + '"]']
)
def test_what_is_wide_or_only_looks_deep_is_json(text: str) -> None:
    assert not too_deep(text)
    assert parsed(text)


def test_quotes_and_backslashes_within_texts_do_not_mislead() -> None:
    deep = "[" * 101 + "]" * 101
    assert not too_deep(json.dumps(['\\"' + deep, deep, "\\"]))
    assert too_deep(f'["\\"", {deep}]')
    assert too_deep(f'["\\\\", {deep}, ""]')
