"""docs/security.md names tests that exist, one at least in each row."""

from __future__ import annotations

import re

from tests.rig import ROOT

TEXT = (ROOT / "docs/security.md").read_text("utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def missing(text: str) -> list[str]:
    """What is named and not there."""
    found = []
    for file, test in NAMED.findall(text):
        path = ROOT / file
        source = path.read_text("utf-8") if path.exists() else ""
        if not source or (test and f"def {test}(" not in source):
            found.append(f"{file}::{test}")
    return found


def rows(text: str) -> list[str]:
    """Of the tables that have tests."""
    tables = re.findall(r"\| test \|\n\|[-|]+\|\n((?:\|.*\n)+)", text)
    return [row for table in tables for row in table.splitlines()]


def test_each_row_names_a_test_that_exists() -> None:
    assert missing(TEXT) == []
    assert len(rows(TEXT)) > 50
    assert [row for row in rows(TEXT) if not NAMED.search(row)] == []


def test_what_is_looked_for_would_be_found() -> None:
    text = (
        "| a | b | test |\n|---|---|---|\n| x | y | `tests/rig.py::test_nothing` |\n| x | y | z |\n"
    )
    assert missing(text) == ["tests/rig.py::test_nothing"]
    assert [bool(NAMED.search(row)) for row in rows(text)] == [True, False]
