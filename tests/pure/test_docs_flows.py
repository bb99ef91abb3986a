"""docs/flows.md: every example loads, every key is explained and shown."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.flows import Flow, parse
from service.flows.keys import FlowKeys, HistoryKeys, PriceKeys, ProviderKeys, ToolKeys
from service.flows.report import keys_of
from service.mqtt.topics import FIELDS
from service.rulesql.functions import FUNCTIONS

TEXT = (Path(__file__).parents[2] / "docs" / "flows.md").read_text("utf-8")
BLOCKS = re.findall(r"^```toml\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
EXPLAINED = {
    name
    for row in re.findall(r"^\| (`.*?`) \|", TEXT, re.MULTILINE)
    for name in re.findall(r"`([^`]+)`", row)
}


def written(table: Any, *ways: tuple[str, ...]) -> Iterator[str]:
    """The keys that an example sets in the tables at `ways`; * is any name."""
    for first, *rest in ways:
        names = table if first == "*" else [first] if first in table else []
        for name in names:
            inner = table[name]
            if rest:
                yield from written(inner, tuple(rest))
            else:
                for item in inner if isinstance(inner, list) else [inner]:
                    yield from item


def shown(*ways: tuple[str, ...]) -> set[str]:
    return {key for block in BLOCKS for key in written(tomllib.loads(block), *ways)}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[0])
def test_every_example_loads_without_a_warning(block: str) -> None:
    made, faults = parse(block, "docs/flows.md")
    assert not faults, [str(fault) for fault in faults]
    assert made is not None


@pytest.mark.parametrize(
    ("keys", "ways"),
    [
        (keys_of(FlowKeys), [("flows", "*"), ("defaults",)]),
        (keys_of(HistoryKeys), [("flows", "*", "history"), ("defaults", "history")]),
        (keys_of(ToolKeys), [("flows", "*", "tools")]),
        (keys_of(ProviderKeys), [("providers", "*")]),
        (keys_of(PriceKeys), [("prices", "*")]),
    ],
    ids=["flow", "history", "tools", "providers", "prices"],
)
def test_every_key_is_in_an_example(keys: list[str], ways: list[tuple[str, ...]]) -> None:
    assert set(keys) <= shown(*ways)


def test_every_key_is_explained() -> None:
    history = {f"history.{key}" for key in keys_of(HistoryKeys)}
    tables = {*keys_of(FlowKeys), *keys_of(ToolKeys), *keys_of(ProviderKeys), *history} - {"tools"}
    assert tables <= EXPLAINED
    assert EXPLAINED - tables == {name for name in EXPLAINED if name.startswith("${")}
    assert "with `tools`" in TEXT
    for key in keys_of(PriceKeys):
        assert f"`{key}` for" in TEXT


def test_every_name_of_a_message_is_explained() -> None:
    for name in FIELDS:
        assert f"`${{{name}}}`" in TEXT


def test_every_function_of_where_is_named() -> None:
    section = TEXT.partition("\n## where")[2]
    assert set(FUNCTIONS) <= set(re.findall(r"`(\w+)`", section))


@pytest.mark.parametrize(
    ("key", "default"),
    [("timeout", '"60s"'), ("qos", "`1`"), ("input", '"text"'), ("format", '"text"')]
    + [("dedupe", '"${id}"'), ("deadline", '"15m"'), ("model", '"gpt-5.4-mini"')],
)
def test_defaults_are_told_as_they_are(key: str, default: str) -> None:
    (row,) = re.findall(rf"^\| `{key}` \|.*$", TEXT, re.MULTILINE)
    assert default in row.rsplit("|", 2)[1]
    plain = Flow("x", ())
    value = {"timeout": "60s", "deadline": "15m"}.get(key, str(getattr(plain, key)))
    assert value in default
    assert (plain.timeout, plain.deadline) == (60, 900)
