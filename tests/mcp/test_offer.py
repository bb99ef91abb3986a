"""Names, schemas and safeguards of MCP tools, as models are offered them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from service.flows import McpServer
from service.mcp.offer import Listed, clean, name_of, offer
from service.mcp.result_text import LONGEST, bounded, text_of

PLANT = McpServer(url="http://127.0.0.1:1/mcp", name="plant")
EMPTY = {"type": "object", "properties": {}}


def listed(name: str = "x", **hints: Any) -> Listed:
    return Listed(name, schema={"type": "object"}, **hints)


@pytest.mark.parametrize(
    ("hints", "offered", "at_most_once"),
    [
        ({"read_only": True}, True, False),
        ({"read_only": True, "destructive": True}, True, False),
        ({"destructive": False, "idempotent": True}, True, False),
        ({"destructive": False}, True, True),
        ({"destructive": True}, False, None),
        ({"idempotent": True}, False, None),  # MCP: it may destroy, unless it says not to
        ({"read_only": False}, False, None),
        ({}, False, None),
    ],
    ids=str,
)
def test_the_hints_decide(hints: dict[str, bool], offered: bool, at_most_once: bool | None) -> None:
    made, left = offer(PLANT, [listed(**hints)])
    assert (len(made), len(left)) == ((1, 0) if offered else (0, 1))
    if made:
        assert made[0].at_most_once is at_most_once


def test_names_fit_and_are_told_apart() -> None:
    names = ["a.b", "a/b", "a_b", "x" * 100, "x" * 101, "große Pumpe"]
    made, _ = offer(PLANT, [listed(name, read_only=True) for name in names])
    assert [tool.own_name for tool in made] == names
    assert len({tool.name for tool in made}) == len(names)
    for tool in made:
        assert tool.name.startswith("plant__")
        assert len(tool.name) <= 64
        assert tool.name.isascii()
    assert name_of("plant", "get_state") == "plant__get_state"


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({}, EMPTY),
        ({"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "x"}, EMPTY),
        ({"oneOf": [{"required": ["a"]}], "if": {}, "then": {}}, EMPTY),
        ({"type": "object", "x-mcp-header": "A"}, EMPTY),
        (
            {"properties": {"x-a": {"type": "string", "x-b": 1}, "pattern": {"pattern": "^a$"}}},
            {
                "type": "object",
                "properties": {"x-a": {"type": "string"}, "pattern": {"pattern": "^a$"}},
            },
        ),
        (
            {"properties": {"a": {"pattern": "(?<!x)y", "minLength": 1}}},
            {"type": "object", "properties": {"a": {"minLength": 1}}},
        ),
        (
            {
                "properties": {"a": {"$ref": "#/$defs/A"}},
                "$defs": {"A": {"enum": ["x", {"$id": "y"}]}},
            },
            {
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/A"}},
                "$defs": {"A": {"enum": ["x", {"$id": "y"}]}},
            },
        ),
    ],
)
def test_schemas_are_cleaned(given: Any, made: Any) -> None:
    assert clean(given) == made


def nested(levels: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    "given",
    [
        None,
        [],
        "object",
        {"type": "array"},
        {"type": ["object", "null"]},
        {"properties": []},
        {"required": "a"},
        {"properties": {"a": {"type": "strin"}}},
        {"properties": {"a": {"$ref": "#/$defs/B"}}},
        {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
        {"properties": {"a": {"maximum": 2**70}}},
        {"description": "x" * 20_000},
        nested(60),
    ],
    ids=lambda given: str(given)[:40],
)
def test_schemas_that_can_not_be_used_leave_the_tool_out(given: Any) -> None:
    with pytest.raises(ValueError):
        clean(given)
    made, left = offer(PLANT, [Listed("x", schema=given, read_only=True)])
    assert (made, list(left)) == ((), ["x"])


def block(kind: str, **fields: Any) -> Any:
    return SimpleNamespace(type=kind, **fields)


def test_what_is_no_text_is_left_out_with_a_note() -> None:
    blocks = [
        block("text", text="well"),
        block("image", mime_type="image/png", data="x" * 1000),
        block("audio", mime_type="audio/wav"),
        block("resource", resource=SimpleNamespace(text="inside")),
        block("resource", resource=SimpleNamespace(mime_type=None, blob="x")),
        block("resource_link", name="manual", uri="https://example.org/m"),
        block("hologram"),
    ]
    assert text_of(blocks, {"a": 1}, failed=False).split("\n")[1:] == [
        "well",
        "(left out: image/png; only text can be shown)",
        "(left out: audio/wav; only text can be shown)",
        "inside",
        "(left out: a file; only text can be shown)",
        "(a link to manual: https://example.org/m)",
        "(left out: something of an unknown kind; only text can be shown)",
    ]


def test_a_value_without_a_text_is_told_as_json() -> None:
    assert text_of([], {"open": True}, failed=False).endswith(':\n{"open":true}')
    assert text_of([], 2**80, failed=False).endswith(f":\n{2**80}")
    assert text_of([], None, failed=False).endswith(":\n(it said nothing)")


def test_a_text_is_cut_between_characters_and_has_nothing_that_a_database_refuses() -> None:
    cut = bounded("é" * LONGEST)
    assert cut.startswith("é" * (LONGEST // 2) + "\n(cut here")
    assert bounded("a\0b\ud800") == "a\ufffdb?"
    assert bounded("é" * (LONGEST // 2)) == "é" * (LONGEST // 2)
