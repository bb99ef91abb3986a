"""What counts as the same, where a device's answer is compared: numbers by value, ids as texts."""

from __future__ import annotations

from typing import Any

import pytest

from service.answering.tool_limits import OverLimit, check_bounds
from service.domain import Message
from service.flows import Bounds, Tool
from service.mqtt.comparisons import Comparison
from service.mqtt.templates import Scope, Template


def same(text: str, payload: str, **arguments: Any) -> bool:
    said = Message("m", "t", payload.encode(), 0)
    return Comparison.parse(text).holds(Scope(said, {}, arguments))


@pytest.mark.parametrize(
    ("said", "id"),
    [
        ("9007199254740993", 9007199254740992),
        ("123456789012345678901", 123456789012345678902),
        ('"9007199254740993"', "9007199254740992"),
        ('"007"', "7"),
        ('"007"', 7),
        ("7", "007"),
        ('"1e3"', "1000"),
        ('"1_0"', "10"),
        ('"1_0"', 10),
        ('"infinity"', "1e999"),
        ('"1e999"', "1e9999"),
        ('"nan"', "NaN"),
        ('"٢٠"', "20"),
        ('"٢٠"', 20),
        ('" 7"', "7"),
        ('"+7"', "7"),
        ("true", 1),
        ("true", "1"),
    ],
)
def test_ids_that_differ_are_not_the_same(said: str, id: Any) -> None:
    assert not same("${payload.nr} = ${nr}", f'{{"nr": {said}}}', nr=id)


@pytest.mark.parametrize(
    ("text", "payload", "wanted"),
    [
        ("${payload.nr} = ${to}", '{"nr": 7}', "7"),
        ("${payload.nr} = ${to}", '{"nr": 7.0}', 7),
        ("${payload.nr} = ${to}", '{"nr": "7.0"}', 7),
        ("${payload.nr} = ${to}", '{"nr": "21.50"}', "21.5"),
        ("${payload.nr} = ${to}", '{"nr": 1e22}', 10**22),
        ("${payload.nr} = ${to}", '{"nr": -0}', 0),
        ("${payload.on} = ${to}", '{"on": true}', True),
        ("${payload.on} = ${to}", '{"on": "true"}', True),
        ("${payload} = ${to}", "1.0", 1),
        ("${payload} = ${to}", "2.15e1", 21.5),
        ("${payload} = ${to}", " 21.50\r\n", 21.5),  # as an Arduino's dtostrf and println write it
        ("${payload} = 1", "1.0", None),
        ("${payload} = 1.0", "1", None),
        ("${payload} = on", "on", None),
    ],
)
def test_numbers_are_the_same_by_their_value(text: str, payload: str, wanted: Any) -> None:
    assert same(text, payload, to=wanted)


def test_an_exponent_without_end_is_no_number() -> None:
    assert not same("${payload} = ${to}", "1e" + "9" * 40, to=1)
    assert not same("${payload} = ${to}", "1e999999999", to=1)


HEAT = Tool(
    "heat", "d", bounds=Bounds("to", Template.parse("heat/now"), 3, Template.parse("${payload}"))
)


async def bounded(stands: str, to: Any) -> str:
    async def retained(topic: str) -> bytes:
        return stands.encode()

    arguments, message = {"to": to}, Message("m", "t", b"", 0)
    try:
        await check_bounds(HEAT, arguments, Scope(message, {}, arguments), retained)
    except OverLimit as refused:
        return str(refused)
    return "fine"


@pytest.mark.parametrize("stands", ["2_0", "٢٠", "nan", "inf", "020", "", "warm", "1e" + "9" * 30])
async def test_what_is_no_number_bounds_nothing_and_is_refused(stands: str) -> None:
    assert (await bounded(stands, 20)).startswith("refused: how things stand is no number")


@pytest.mark.parametrize(
    ("stands", "to", "fine"),
    [
        ("20", 23, True),
        ("20.0", 23.01, False),
        (" 20.00\n", 17, True),
        ("1.4", 4.4, True),  # as floats these differ by more than 3
        ("1e999999999", 20, False),
        ("20", 10**400, False),
    ],
)
async def test_bounds_are_exact(stands: str, to: Any, fine: bool) -> None:
    assert ((await bounded(stands, to)) == "fine") is fine
