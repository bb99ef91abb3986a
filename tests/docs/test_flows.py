"""Every flow that a page shows is one that `emqx-gpt check` takes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from service.flows import parse
from tests.docs.pages import blocks, name, pages
from tests.rig import ROOT

SHIPPED = tomllib.loads((ROOT / "flows.toml").read_text("utf-8"))
BARE = '[flows.bare]\nrequest = "bare/in"\nreply = "bare/out"\n'
OTHERS = ("[[tests]]",)  # files of other commands


def shown() -> list[tuple[Path, str]]:
    return [
        (page, block.text)
        for page in pages()
        for block in blocks(page)
        if block.kind == "toml" and not block.text.startswith(OTHERS)
    ]


@pytest.mark.parametrize(
    ("page", "text"),
    shown(),
    ids=lambda one: one.split("\n")[0][:30] if isinstance(one, str) else name(one),
)
def test_a_flow_on_a_page_is_without_a_fault(page: Path, text: str) -> None:
    whole = text if "[flows." in text else BARE + text
    found, faults = parse(whole, name(page))
    assert not faults, [str(fault) for fault in faults]
    assert found is not None


def test_there_are_many() -> None:
    assert len(shown()) > 40


NEW = ("reports.md",)  # whose flow is not among them
SCENARIOS = [
    page for page in sorted((ROOT / "docs" / "scenarios").glob("*.md")) if page.name not in NEW
]


@pytest.mark.parametrize("page", SCENARIOS, ids=name)
def test_the_flow_of_a_scenario_is_the_one_that_comes_with_the_project(page: Path) -> None:
    """The first block; a page may leave tools out."""
    first = next(block for block in blocks(page) if block.kind == "toml")
    ((flow, keys),) = tomllib.loads(first.text)["flows"].items()
    shipped = SHIPPED["flows"][flow]
    tools = keys.pop("tools", [])
    assert keys == {key: value for key, value in shipped.items() if key != "tools"}
    assert all(tool in shipped["tools"] for tool in tools)
