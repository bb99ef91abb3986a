"""docs/flows.md: every example loads, every key is explained and shown."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.flows import parse
from service.flows.keys import keys_of, tables_in
from service.flows.tables import (
    Collect,
    File,
    FlowKeys,
    History,
    McpKeys,
    Messages,
    Price,
    ProviderKeys,
    Recent,
)
from service.flows.tool import Bounds, Confirm, Tool, Verify
from service.mqtt.topics import FIELDS
from service.rulesql.functions import FUNCTIONS

TEXT = (Path(__file__).parents[2] / "docs" / "flows.md").read_text("utf-8")
BLOCKS = re.findall(r"^```toml\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
SECTIONS = {part.partition("\n")[0]: part for part in TEXT.split("\n## ")}

WAITING = "Tools that wait, ask and check"


def explained(*sections: str) -> set[str]:
    """The keys that have a row in these sections; in all others without any."""
    apart = {"Tools", WAITING, "MCP servers", "Providers and prices", "Templates"}
    wanted = sections or SECTIONS.keys() - apart
    rows = [row for name in wanted for row in re.findall(r"^\| (`.*?`) \|", SECTIONS[name], re.M)]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def written(table: Any, *ways: tuple[str, ...]) -> Iterator[str]:
    """The keys that an example sets in the tables at `ways`; * is any name."""
    for first, *rest in ways:
        names = table if first == "*" else [first] if first in table else []
        for name in names:
            inner = table[name]
            for item in inner if isinstance(inner, list) else [inner]:
                yield from written(item, tuple(rest)) if rest else item


def shown(*ways: tuple[str, ...]) -> set[str]:
    return {key for block in BLOCKS for key in written(tomllib.loads(block), *ways)}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[0])
def test_every_example_loads_without_a_warning(block: str) -> None:
    made, faults = parse(block, "docs/flows.md")
    assert not faults, [str(fault) for fault in faults]
    assert made is not None


WAYS: dict[Any, list[tuple[str, ...]]] = {
    FlowKeys: [("flows", "*"), ("defaults",)],
    History: [("flows", "*", "history"), ("defaults", "history")],
    Recent: [("flows", "*", "recent")],
    Collect: [("flows", "*", "collect")],
    Messages: [("flows", "*", "messages")],
    Tool: [("flows", "*", "tools")],
    Confirm: [("flows", "*", "tools", "confirm")],
    Bounds: [("flows", "*", "tools", "bounds")],
    Verify: [("flows", "*", "tools", "verify")],
    ProviderKeys: [("providers", "*")],
    McpKeys: [("mcp", "*")],
    Price: [("prices", "*")],
}


def test_no_table_is_forgotten() -> None:
    assert tables_in(File) == WAYS.keys()


@pytest.mark.parametrize("table", WAYS, ids=lambda table: table.__name__)
def test_every_key_is_in_an_example(table: Any) -> None:
    assert keys_of(table).keys() <= shown(*WAYS[table])


def test_every_key_is_explained_and_no_other() -> None:
    inner = {
        f"{table.__name__.lower()}.{key}"
        for table in (History, Messages, Recent, Collect)
        for key in keys_of(table)
    }
    mcp = explained("MCP servers")
    assert mcp == keys_of(McpKeys).keys() | {"tools_from", "description"}
    assert (
        explained() | {"tools_from", "description"}
        == keys_of(FlowKeys).keys() - {"tools", "messages"} | inner
    )
    assert explained("Tools") == keys_of(Tool).keys()
    waiting = {
        f"{table.__name__.lower()}.{key}"
        for table in (Confirm, Bounds, Verify)
        for key in keys_of(table)
    }
    assert explained(WAITING) == waiting
    assert explained("Providers and prices") == keys_of(ProviderKeys).keys()
    assert "with `tools`" in TEXT
    for key in keys_of(Price):
        assert f"`{key}` for" in SECTIONS["Providers and prices"]


def test_every_name_of_a_message_is_explained() -> None:
    for name in FIELDS:
        assert f"`${{{name}}}`" in TEXT


def test_every_function_of_where_is_named() -> None:
    assert set(FUNCTIONS) <= set(re.findall(r"`(\w+)`", SECTIONS["where"]))


SETS = [key for key in keys_of(FlowKeys).values() if key.default not in (None, (), {})]


@pytest.mark.parametrize("key", SETS, ids=lambda key: key.name)
def test_defaults_are_told_as_they_are(key: Any) -> None:
    row, *_ = re.findall(rf"^\| `{key.name}` \|.*$", TEXT, re.MULTILINE)
    (told, *_) = re.findall(r"`([^`]+)`", row.rsplit("|", 2)[1])
    made, _ = parse(f'[flows.x]\nrequest = "in"\nreply = "out"\n{key.name} = {told}\n')
    assert made is not None
    assert getattr(made.flows["x"], key.name) == key.default
