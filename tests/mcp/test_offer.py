"""Names, schemas and safeguards of MCP tools, as models are offered them."""

from __future__ import annotations

import time
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
    assert name_of("plant", "a.b") == "plant__a_b_2e7336dc"  # for ever


def names_of(*names: str) -> dict[str, str]:
    made, _ = offer(PLANT, [listed(name, read_only=True) for name in names])
    return {tool.name: tool.own_name for tool in made}


def test_a_name_means_the_same_tool_whatever_is_listed_beside_it() -> None:
    long = "x" * 100
    both = names_of("set.valve", "set_valve", long)
    assert both == names_of(long, "set_valve", "set.valve")
    assert both["plant__set_valve"] == "set_valve"
    for alone in ("set.valve", "set_valve", long):
        assert names_of(alone).items() <= both.items()


def test_tools_that_would_share_a_name_are_all_left_out() -> None:
    taken = name_of("plant", "set.valve").removeprefix("plant__")
    assert names_of("set.valve", taken, "x") == names_of(taken, "set.valve", "x")
    assert names_of("set.valve", taken, "x").keys() == {"plant__x"}
    assert names_of("x", "x") == {"plant__x": "x"}


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


def patterned(*patterns: str) -> Any:
    return {"properties": {f"p{at}": {"pattern": one} for at, one in enumerate(patterns)}}


def work_of(tools: list[Listed], kept: Any = None) -> tuple[float, int, dict[str, str]]:
    began = time.thread_time()
    made, left = offer(PLANT, tools, kept)
    return time.thread_time() - began, len(made), left


def hostile(at: int) -> Any:
    """As large a schema as is taken, and another one for each tool."""
    return patterned(*(f"^[a-z]{{1,9}}[0-9]+x?{at}{one}$" for one in range(250)))


@pytest.mark.parametrize(
    ("count", "schema", "seconds"),
    [
        (60, lambda at: patterned(rf"^(?:\w{{1,100}}){{{at % 50 + 1}}}$"), 0.5),
        (20_000, lambda at: {"type": "object"}, 0.5),
        (20_000, lambda at: {"type": "array"}, 0.5),
        (280, hostile, 2.0),
        (280, lambda at: patterned(rf"\w{{50}}{at}", rf"\S{{300}}{at}"), 2.0),
    ],
    ids=["dear patterns", "many", "many that can't be used", "large", "just cheap enough"],
)
def test_a_list_takes_no_longer_than_its_reader_wants(
    count: int, schema: Any, seconds: float
) -> None:
    tools = [Listed(f"t{at:05}", schema=schema(at), read_only=True) for at in range(count)]
    spent, offered, left = work_of(tools)
    assert spent < seconds
    assert offered <= 128
    assert offered + len(left) == min(count, 1000)
    assert left


def test_what_did_not_change_is_not_looked_at_again() -> None:
    tools = [Listed(f"t{at}", schema=hostile(at), read_only=True) for at in range(15)]
    kept: Any = {}
    first, offered, _ = work_of(tools, kept)
    again, as_before, _ = work_of(tools, kept)
    assert offered == as_before == 15
    assert again < first / 5
    work_of([], kept)
    assert kept == {}  # and what is gone is forgotten


def test_tools_that_can_not_be_used_take_no_place_of_others() -> None:
    bad = [Listed(f"bad{at}", schema={"type": "array"}, read_only=True) for at in range(300)]
    good = [listed(f"good{at}", read_only=True) for at in range(200)]
    made, left = offer(PLANT, bad + good)
    assert [tool.own_name for tool in made] == [tool.name for tool in good[:128]]
    assert left["good128"] == "a model takes 128 tools, and so many go before; narrow allow"


@pytest.mark.parametrize(
    "patterns",
    [
        [r"^\w{1,64}$"],
        [r"^\d{1,200}$", r"^.{1,1000}$", r"^\w+(?:\.\w+)*@\w+\.\w{2,}$", r"^[^\W_]+$"],
        [r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,20}[a-z]{2,63}"],
        [r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$"] * 100,
        ["x" * 500],
    ],
    ids=str,
)
def test_patterns_that_people_write_are_cheap_enough(patterns: list[str]) -> None:
    assert clean(patterned(*patterns))["properties"]["p0"] == {"pattern": patterns[0]}


@pytest.mark.parametrize(
    "patterns",
    [
        [r"^\w{1,300}$"],
        [r"\w" * 200],
        [r"[\W\D\S]" * 60],
        [r"(?:(?:\w{1,10}){1,10}){2}"],
        [r"(?:a{1,500}){1,500}"],
        ["|".join([r"\w{9}"] * 80)],
        [rf"^\w{{1,20}}{at}$" for at in range(5)],
    ],
    ids=lambda patterns: patterns[0][:30],
)
def test_dear_patterns_leave_their_tool_out_unread(patterns: list[str]) -> None:
    clean(patterned(r"[\W\D\S]"))  # tables that are made once
    began = time.thread_time()
    with pytest.raises(ValueError, match="its patterns take too long to compile"):
        clean(patterned(*patterns))
    assert time.thread_time() - began < 0.05


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
