"""The bench works: every row gets figures. Whether they are good is for `make bench` to say."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from tests.rig import ROOT

ROWS = "accept,windows,instant,slow,idle,backlog,streaming,pages,open pages"


def bench(rows: str, folder: Path) -> tuple[dict[str, Any], str]:
    """The bench at small sizes: its document, and what it printed."""
    result = subprocess.run(
        [
            *(sys.executable, "-m", "tests.bench", "--quick", "--rows", rows),
            *("--json", str(folder / "bench.json"), "--svg", str(folder / "bench.svg")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=390,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads((folder / "bench.json").read_text())
    for row in found["rows"]:
        assert all(value > 0 for value in row["figures"].values()), row
        assert row["ratio"] is None or row["ratio"] > 0
    return found, result.stdout


@pytest.mark.timeout(400)
def test_two_rows_get_their_figures(tmp_path):
    found, said = bench("accept,instant", tmp_path)
    assert {"accept", "instant"} <= {row["name"] for row in found["rows"]}
    assert "reached" in said


@pytest.mark.timeout(400)
def test_a_quick_bench_gives_figures_for_every_row(tmp_path):
    found, said = bench(ROWS, tmp_path)
    names = [row["name"] for row in found["rows"]]
    assert names == [
        *(
            "accept",
            "latency",
            "windows",
            "instant",
            "one publisher",
            "cpu",
            "slow",
            "plain",
            "memory",
        ),
        *("idle", "backlog", "streaming", "pages SQLite", "pages PostgreSQL", "open pages"),
    ]
    assert found["machine"]["fsync_ms"] > 0
    picture = (tmp_path / "bench.svg").read_text()
    ElementTree.fromstring(picture)
    for text in (picture, json.dumps(found), said):
        assert str(tmp_path) not in text
    assert "reached" in said
