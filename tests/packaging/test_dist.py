"""What `make dist` and `make audit` give."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / ".ci"))
import bom  # noqa: E402

pytestmark = pytest.mark.timeout(400)  # pip installs what the bill names


def test_make_dist_gives_wheel_sdist_and_bill(tmp_path):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "dist", f"DIST={tmp_path}"], cwd=ROOT, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("emqx_gpt-*.whl")
    (sdist,) = tmp_path.glob("emqx_gpt-*.tar.gz")
    (bill,) = tmp_path.glob("*.cdx.json")
    names = zipfile.ZipFile(wheel).namelist()
    assert "service/__main__.py" in names
    assert not [name for name in names if name.startswith("tests") or ".env" in name]
    with tarfile.open(sdist) as archive:
        assert not [name for name in archive.getnames() if name.endswith((".env", ".db"))]
    text = bill.read_text("utf-8")
    assert bom.fault(text) is None
    document = json.loads(text)
    components = {one["name"].lower(): one["version"] for one in document["components"]}
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
    )
    assert {"openai", "starlette", "genai-prices", "sqlalchemy"} <= set(components)
    assert not {"pytest", "paho-mqtt", "hypothesis", "cyclonedx-bom"} & set(components)
    assert components["openai"] == pinned["openai"]
    assert str(ROOT) not in text
    refs = {one["bom-ref"] for one in document["components"]}
    root = document["metadata"]["component"]["bom-ref"]
    assert {one["ref"] for one in document["dependencies"]} <= refs | {root}


@pytest.mark.parametrize(
    ("old", "new"), [('"CycloneDX"', '"Cyclone"'), ('"components": [', '"component": [')]
)
def test_a_wrong_bill_is_refused(old, new):
    text = json.dumps(bom.bill())
    assert old in text
    assert bom.fault(text.replace(old, new)) is not None


@pytest.mark.parametrize(
    ("said", "code", "ends"),
    [
        ("No known vulnerabilities found", 0, 0),
        ("Found 2 known vulnerabilities in 1 package", 1, 1),
        ("uvloop  could not be audited: uvloop (0.23.0)", 0, 2),
        ("ConnectionError: name or service not known", 1, 2),
    ],
)
def test_an_audit_that_could_not_ask_says_so(said, code, ends, tmp_path):
    tool = tmp_path / "tool"
    tool.write_text(f"#!/bin/sh\necho '{said}'\nexit {code}\n")
    tool.chmod(0o755)
    done = subprocess.run([ROOT / ".ci" / "audit", tool], capture_output=True, text=True)
    assert done.returncode == ends
    assert said in done.stdout + done.stderr or "1 of the packages" in done.stderr
    assert ("NOT AUDITED" in done.stderr) == (ends == 2)
