"""What is no Python and belongs to the package is packed with it."""

from __future__ import annotations

import tomllib
from pathlib import PurePath

from tests.rig import ROOT


def test_each_file_of_the_package_is_packed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["service"]
    files = [
        path.relative_to(ROOT / "service")
        for path in (ROOT / "service").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    left_out = [
        str(path)
        for path in files
        if not any(
            PurePath(path).match(pattern) and len(path.parts) == pattern.count("/") + 1
            for pattern in patterns
        )
    ]
    assert len(files) > 20
    assert left_out == []
