"""The offline model's JSON: taken from the text, and always valid for its schema."""

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.demo.offline_model.fill import fill

READING = {
    "type": "object",
    "properties": {
        "device": {"type": "string"},
        "room": {"enum": ["kitchen", "attic", "unknown"]},
        "temperature": {"type": "number"},
        "humidity": {"type": ["integer", "null"]},
        "alarm": {"type": "boolean"},
    },
    "required": ["device", "room", "temperature", "humidity", "alarm"],
}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (
            "kitchen temp 23.5 °C, humidity 40%, from sensor-7",
            ["sensor-7", "kitchen", 23.5, 40, False],
        ),
        (
            "temperature=-4;hum=55;room=attic;device=esp32-a1;alarm=yes",
            ["esp32-a1", "attic", -4, 55, True],
        ),
        ('{"t": 19.5, "device": "boiler"}', ["boiler", "unknown", 19.5, None, False]),
        ("厨房温度23.5度，湿度40%", ["未知", "kitchen", 23.5, 40, False]),
        ("2026-11-03 attic: 21 degrees, no alarm", ["unknown", "attic", 21, None, False]),
        ("", ["unknown", "unknown", 0, None, False]),
        (
            "sensor-7 in der Küche: Temperatur 21,5 Grad, Luftfeuchtigkeit 40 Prozent, kein Alarm",
            ["sensor-7", "kitchen", 21.5, 40, False],
        ),
    ],
)
def test_a_document_is_read_from_the_text(text: str, values: list[Any]) -> None:
    found = fill(READING, text)
    jsonschema_rs.validate(READING, found)
    assert list(found.values()) == values


READINGS = {
    "type": "object",
    "properties": {
        "summary": {"type": "string"},
        "readings": {"type": "array", "items": {"$ref": "#/$defs/reading"}},
    },
    "required": ["readings", "summary"],
    "$defs": {
        "reading": {
            "type": "object",
            "properties": {
                "quantity": {"type": "string"},
                "value": {"type": "number"},
                "unit": {"type": "string"},
            },
            "required": ["quantity", "value", "unit"],
        }
    },
}


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("tank 3 abt 66 % full, 18C", [("level", 66, "%"), ("temperature", 18, "°C")]),
        ('{"temp": -4.5, "hum": 40}', [("temperature", -4.5, "°C"), ("humidity", 40, "%")]),
        ("temp=21.5 bat=3.1V", [("temperature", 21.5, "°C"), ("battery", 3.1, "V")]),
        ("1013 hPa; 812 ppm", [("pressure", 1013, "hPa"), ("co2", 812, "ppm")]),
        ("温度18度，湿度40%", [("temperature", 18, "°C"), ("humidity", 40, "%")]),
        ("the humidity is fine", []),
        ("hello", []),
    ],
)
def test_each_measurement_becomes_a_reading(
    text: str, readings: list[tuple[str, float, str]]
) -> None:
    found = fill(READINGS, text)
    jsonschema_rs.validate(READINGS, found)
    assert [tuple(each.values()) for each in found["readings"]] == readings
    assert found["summary"] == text


def test_arrays_references_and_nesting() -> None:
    schema = {
        "type": "object",
        "properties": {
            "readings": {"type": "array", "items": {"$ref": "#/$defs/reading"}, "minItems": 1},
            "tags": {"type": "array", "items": {"enum": ["hot", "cold"]}},
            "todo": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
            "day": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
            "child": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
            "mood": {"allOf": [{"$ref": "#/$defs/mood"}]},
        },
        "required": ["readings", "tags", "todo", "day", "child", "mood"],
        "$defs": {
            "mood": {"enum": ["positive", "negative", "neutral"]},
            "reading": {
                "type": "object",
                "properties": {"room": {"type": "string"}, "temperature": {"type": "number"}},
                "required": ["room", "temperature"],
            },
        },
    }
    found = fill(schema, "2026-11-03: kitchen 21.5, bedroom 19 and it is cold, I love it")
    jsonschema_rs.validate(schema, found)
    assert found["readings"] == [
        {"room": "kitchen", "temperature": 21.5},
        {"room": "bedroom", "temperature": 19},
    ]
    assert found["tags"] == ["cold"]
    assert (found["day"], found["child"], found["mood"]) == ("2026-11-03", None, "positive")
    jsonschema_rs.validate(schema, fill(schema, ""))


_limits = st.tuples(st.integers(-50, 50), st.integers(0, 60))
_leaves = st.one_of(
    st.just({"type": "string"}),
    st.just({"type": "boolean"}),
    st.just({"type": ["number", "null"]}),
    st.just({}),
    st.lists(st.sampled_from(["on", "off", "kitchen", 3, None]), min_size=1).map(
        lambda options: {"enum": options}
    ),
    st.integers(0, 5).map(lambda n: {"type": "string", "minLength": n, "maxLength": n + 3}),
    _limits.map(lambda e: {"type": "integer", "minimum": e[0], "maximum": e[0] + e[1]}),
    _limits.map(lambda e: {"type": "number", "exclusiveMinimum": e[0]}),
)
_names = st.sampled_from(["room", "on", "temperature", "count", "unit", "name", "song", "x"])


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties)[::2],
        "additionalProperties": False,
    }


_schemas = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.dictionaries(_names, inner, max_size=4).map(_object),
        st.tuples(inner, st.integers(0, 2)).map(
            lambda e: {"type": "array", "items": e[0], "minItems": e[1], "maxItems": e[1] + 1}
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda each: {"anyOf": each}),
    ),
    max_leaves=8,
)
_texts = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(
            ["kitchen", "temperature", "is", "22.5", "-3", "°C", "40%", "on", ",", "name:", "and"]
        ),
        max_size=12,
    ).map(" ".join),
)


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(_schemas, _texts, st.booleans())
def test_every_document_fits_its_schema(schema: dict[str, Any], text: str, eager: bool) -> None:
    found = fill(schema, text, eager=eager)
    jsonschema_rs.validate(schema, found)
    assert fill(schema, text, eager=eager) == found
