"""Does what a model wrote fit its schema: the same words for any of it, compiled once."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from service.flows.schemas import LARGEST, Schema, extent, fault_in
from tests.pure.test_flow import flow


def deep(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("schema", "value", "said"),
    [
        ({"properties": {"a": {"pattern": "^[a-z]+$"}}}, {"a": "Z"}, '$.a: "Z" does not match'),
        ({"properties": {"a": {"pattern": r"^\w+$"}}}, {"a": "Küche"}, None),
        (
            {"properties": {"pattern": {"const": {"pattern": "("}}}},
            {"pattern": {"pattern": "("}},
            None,
        ),
        ({"patternProperties": {r"^\d+$": {"type": "null"}}}, {"٣": 1}, "$.٣: 1 is not of type"),
        ({"items": {"enum": [1, 2]}}, [1, 3], "$[1]: 3 is not"),
        ({"type": "integer"}, 1.0, None),
        ({"type": "integer"}, True, "$: true is not of type"),
        ({"format": "date"}, "no date", None),
        ({"uniqueItems": True}, [{"a": 1}, {"a": 1.0}], "$: "),
        ({"$ref": "#"}, 1, None),
        ({"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "null"}, 0, "$: 0"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(
    schema: dict[str, Any], value: Any, said: str | None
) -> None:
    found = fault_in(value, Schema(schema))
    assert found is None if said is None else (found is not None and found.startswith(said)), found


def test_a_pattern_is_named_as_it_was_written() -> None:
    found = fault_in("Ä", {"pattern": r"^\d$"})
    assert found is not None
    assert found.endswith(r'does not match "^\d$"')


def test_a_flows_schema_is_compiled_once() -> None:
    schema = flow("schema = { type = 'object' }").schema
    assert isinstance(schema, Schema)
    assert schema.compiled is schema.compiled


def test_a_large_answer_that_does_not_fit_is_told_in_few_words() -> None:
    found = fault_in(["x" * 10_000] * 1000, {"type": "object"})
    assert found is not None
    assert len(found) < 3000


def test_refs_that_double_at_each_level_are_counted() -> None:
    names = [f"a{number}" for number in range(20)]
    defs: dict[str, Any] = {
        name: {"anyOf": [{"$ref": f"#/$defs/{after}"}] * 2}
        for name, after in itertools.pairwise(names)
    }
    schema = {"$defs": {**defs, names[-1]: {"type": "null"}}, "$ref": "#/$defs/a0"}
    assert extent(schema) > LARGEST
    assert extent({"items": {"$ref": "#"}}) < 10


def test_a_schema_that_doubles_at_each_level_is_looked_at_once_for_each_place() -> None:
    ways = [{"properties": {"a": {"$ref": "#"}}, "minProperties": least} for least in (0, 1, 1)]
    schema = Schema({"type": "object", "anyOf": ways})
    assert fault_in(deep(90), schema) is not None  # 3 ** 90 ways
    assert fault_in({}, schema) is None
