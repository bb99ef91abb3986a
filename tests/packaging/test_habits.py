"""What people who change this meet: hooks, workflows, forms, release notes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = [ROOT / ".github" / "ISSUE_TEMPLATE" / name for name in ("bug.yml", "idea.yml")]
FORM, WORKFLOW = "vendor.github-issue-forms", "vendor.github-workflows"
SCHEMAS = dict.fromkeys(WORKFLOWS, WORKFLOW) | dict.fromkeys(FORMS, FORM)


def run(*words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    words = tuple(map(str, words))
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=env)


def fits(path: Path, schema: str) -> bool:
    """By the schema that comes with the package: nothing is fetched."""
    done = run(BIN / "check-jsonschema", "--builtin-schema", schema, path)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.returncode == 0


def steps(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text("utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_workflows_and_forms_fit_their_schemas(path: Path, tmp_path: Path) -> None:
    assert fits(path, SCHEMAS[path])
    broken = tmp_path / path.name
    broken.write_text(path.read_text("utf-8").replace("name:", "nmae:"))
    assert not fits(broken, SCHEMAS[path])


def test_the_workflow_runs_what_everybody_runs() -> None:
    test, release = WORKFLOWS[1], WORKFLOWS[0]
    said = [step.get("run", "") for step in steps(test)]
    assert "make test" in said
    assert any("make dist" in step.get("run", "") for step in steps(release))
    for command in (word for text in said for word in re.findall(r"^make (\w+)", text)):
        assert re.search(rf"^{command}:.*## ", MAKEFILE, re.MULTILINE), command
    least = PROJECT["project"]["requires-python"].removeprefix(">=")
    jobs = yaml.safe_load(test.read_text("utf-8"))["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"][0] == least
    # What they need of the system is what .ci/run installs.
    assert "sudo .ci/system" in said
    assert "\n.ci/system\n" in (ROOT / ".ci" / "run").read_text("utf-8")
    assert os.access(ROOT / ".ci" / "system", os.X_OK)
    for path in WORKFLOWS:
        assert "permissions" in yaml.safe_load(path.read_text("utf-8")), path


def test_the_hooks_are_what_make_test_begins_with(tmp_path: Path) -> None:
    path = ROOT / ".pre-commit-config.yaml"
    done = run(BIN / "pre-commit", "validate-config", path)
    assert done.returncode == 0, done.stdout + done.stderr
    (repo,) = yaml.safe_load(path.read_text("utf-8"))["repos"]
    for hook in repo["hooks"]:
        program = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert program == "emqx-gpt" or f"$(BIN)/{program}" in MAKEFILE
        assert (BIN / program).exists()


@pytest.mark.parametrize("words", [(), ("VERSION=Unreleased",)])
def test_release_notes_are_what_the_changelog_says(words: tuple[str, ...]) -> None:
    version = words[0].partition("=")[2] if words else PROJECT["project"]["version"]
    done = run(BIN / "python", ROOT / ".ci" / "notes.py", *(w.partition("=")[2] for w in words))
    assert done.returncode == 0, done.stderr
    section = CHANGELOG.split(f"## [{version}]")[1].split("\n", 1)[1].split("\n## [")[0]
    assert done.stdout.strip() == section.strip()


def test_a_version_without_notes_is_told() -> None:
    done = run(BIN / "python", ROOT / ".ci" / "notes.py", "9.9.9")
    assert done.returncode == 1
    assert "no notes of 9.9.9; there are: Unreleased, 0.1.0" in done.stderr
