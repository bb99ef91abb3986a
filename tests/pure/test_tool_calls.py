# ruff: noqa: E501
"""Tool calls as servers really send them. Tables."""

from typing import Any

import pytest

from service.llm.tool_calls import (
    Calls,
    calls_as_answer,
    calls_in,
    normal_arguments,
    sendable_arguments,
    short_id,
)

LIGHT = {
    "type": "object",
    "properties": {"room": {"enum": ["kitchen"]}, "on": {"type": "boolean"}},
}
TOOLS: dict[str, Any] = {"set_light": LIGHT, "all_off": {}}
ON = ("set_light", '{"room":"kitchen","on":true}')
OFF = ("set_light", '{"room":"bedroom","on":false}')


def piece(index: int | None, id: str = "", name: str = "", arguments: Any = "") -> dict[str, Any]:
    made: dict[str, Any] = {"id": id or None, "function": {"name": name, "arguments": arguments}}
    return made if index is None else {**made, "index": index}


def gathered(*pieces: dict[str, Any]) -> list[tuple[str, str, str]]:
    calls = Calls()
    for one in pieces:
        calls.add(one)
    return [(call.id, call.name, call.arguments) for call in calls.all()]


def test_pieces_of_a_call_are_joined() -> None:
    pieces = [piece(0, "a", "set_light", '{"room":'), piece(0, arguments='"kitchen","on":true}')]
    assert gathered(*pieces) == [("a", *ON)]


BOTH = [("a", *ON), ("b", *OFF)]


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(0, "a", *ON), piece(1, "b", *OFF)],
        [piece(0, "a", *ON), piece(0, "b", *OFF)],
        [piece(None, "a", *ON), piece(None, "b", *OFF)],
        [piece(1, "a", *ON), piece(2, "b", *OFF)],
        # each piece with its id, each with an index of its own
        [piece(0, "a", "set_light", ON[1][:9]), piece(1, "a", "set_light", ON[1][9:]), piece(2, "b", *OFF)],
        # only the first piece has an index
        [piece(0, "a", "set_light"), piece(None, arguments=ON[1]), piece(1, "b", *OFF)],
        # side by side
        [piece(0, "a", "set_light", ON[1][:9]), piece(1, "b", "set_light", OFF[1][:9]),
         piece(0, arguments=ON[1][9:]), piece(1, arguments=OFF[1][9:])],
    ],
)  # fmt: skip
def test_two_calls_are_two_whatever_the_index_says(pieces: list[dict[str, Any]]) -> None:
    assert gathered(*pieces) == BOTH


def test_a_second_complete_object_is_a_second_call() -> None:
    pieces = [piece(0, "a", *ON), piece(0, arguments=OFF[1])]
    assert [call[1:] for call in gathered(*pieces)] == [ON, OFF]


def test_two_calls_with_one_id_get_two() -> None:
    first, second = gathered(piece(0, "a", *ON), piece(1, "a", *OFF))
    assert first[0] != second[0]


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        (None, "{}"),
        ("", "{}"),
        ("  ", "{}"),
        ("null", "{}"),
        ({"on": True}, '{"on":true}'),
        ('"{\\"on\\": true}"', '{"on":true}'),
        ('{"on": true}', '{"on":true}'),
        ("[1]", "[1]"),
        ('{"on": tru', '{"on": tru'),  # told to the model as its mistake
    ],
)
def test_arguments(given: Any, arguments: str) -> None:
    assert gathered(piece(0, "a", "x", given))[0][2] == arguments


@pytest.mark.parametrize("broken", ['{"on": tru', "[1]", '"x"', "", "null"])
def test_what_goes_back_is_an_object(broken: str) -> None:
    assert sendable_arguments(broken) == "{}"
    assert sendable_arguments('{"a": 1}') == '{"a": 1}'
    assert normal_arguments("{}") == "{}"


def test_short_ids_are_the_same_for_the_same() -> None:
    made = short_id("call_PTLP8xhu3uwZk4l3nlnrrJha", 9)
    assert len(made) == 9
    assert made.isalnum()
    assert made == short_id("call_PTLP8xhu3uwZk4l3nlnrrJha", 9)
    assert made != short_id("call_other", 9)
    assert short_id("abcdefgh1", 9) == "abcdefgh1"


WRITTEN = [
    '<tool_call>\n{"name": "set_light", "arguments": {"room": "kitchen", "on": true}}\n</tool_call>',
    '<tool_call>{"name": "set_light", "arguments": "{\\"room\\":\\"kitchen\\",\\"on\\":true}"}</tool_call>',
    '<function=set_light>{"room": "kitchen", "on": true}</function>',
    "<tool_call>\n<function=set_light>\n<parameter=room>\nkitchen\n</parameter>\n"
    "<parameter=on>\ntrue\n</parameter>\n</function>\n</tool_call>",
    "<tool_call>set_light\n<arg_key>room</arg_key>\n<arg_value>kitchen</arg_value>\n"
    "<arg_key>on</arg_key>\n<arg_value>true</arg_value>\n</tool_call>",
    '<minimax:tool_call><invoke name="set_light"><parameter name="room">kitchen</parameter>'
    '<parameter name="on">true</parameter></invoke></minimax:tool_call>',
    '[TOOL_CALLS][{"name": "set_light", "arguments": {"room": "kitchen", "on": true}}]',
    '<|python_tag|>{"type": "function", "name": "set_light", "parameters": {"room": "kitchen", "on": true}}',
    "<|channel|>commentary to=functions.set_light<|constrain|>json<|message|>"
    '{"room": "kitchen", "on": true}',
    "<|tool_calls_section_begin|><|tool_call_begin|>functions.set_light:0"
    '<|tool_call_argument_begin|>{"room": "kitchen", "on": true}<|tool_call_end|>',
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>set_light\n```json\n'
    '{"room": "kitchen", "on": true}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
]  # fmt: skip


@pytest.mark.parametrize("text", WRITTEN)
def test_a_call_that_came_as_text(text: str) -> None:
    calls = calls_in([text], TOOLS)
    assert calls is not None
    assert [(call.name, call.arguments) for call in calls] == [ON]


def test_several_calls_in_one_text() -> None:
    text = (
        '<tool_call>\n{"name": "set_light", "arguments": {"room": "kitchen", "on": true}}\n'
        '{"name": "all_off", "arguments": {}}\n</tool_call>'
    )
    calls = calls_in([text], TOOLS)
    assert calls is not None
    assert [call.name for call in calls] == ["set_light", "all_off"]
    assert len({call.id for call in calls}) == 2


def test_what_is_no_call_can_not_be_read() -> None:
    assert calls_in(["<tool_call>I would switch the light</tool_call>"], TOOLS) is None


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"name": "set_light", "arguments": {"room": "kitchen", "on": true}}', ["set_light"]),
        ('```json\n{"name": "all_off", "parameters": {}}\n```', ["all_off"]),
        ('[set_light(room="kitchen", on=True)]', ["set_light"]),
        ('[{"name": "all_off", "arguments": {}}]', ["all_off"]),
        ('{"name": "Ada", "age": 5}', []),
        ('{"name": "unknown", "arguments": {}}', []),
        ("The light is on.", []),
        ("[1, 2, 3]", []),
        ("[set_light", []),
    ],
)
def test_an_answer_that_is_nothing_but_a_call(text: str, names: list[str]) -> None:
    assert [call.name for call in calls_as_answer(text, TOOLS)] == names
