"""The bench works: every row gets figures. Whether they are good is for `make bench` to say."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from tests.rig import ROOT

ROWS = "accept,windows,instant,slow,idle,backlog,streaming,pages,open pages"


@pytest.mark.timeout(400)
def test_a_quick_bench_gives_figures_for_every_row(tmp_path):
    result = subprocess.run(
        [
            *(sys.executable, "-m", "tests.bench", "--quick", "--rows", ROWS),
            *("--json", str(tmp_path / "bench.json"), "--svg", str(tmp_path / "bench.svg")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=390,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "bench.json").read_text())
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
    for row in found["rows"]:
        assert all(value > 0 for value in row["figures"].values()), row
        assert row["ratio"] is None or row["ratio"] > 0
    assert found["machine"]["fsync_ms"] > 0
    picture = (tmp_path / "bench.svg").read_text()
    ElementTree.fromstring(picture)
    for text in (picture, json.dumps(found), result.stdout):
        assert str(tmp_path) not in text
    assert "reached" in result.stdout
