"""Release notes: what CHANGELOG.md says of one version.

    python .ci/notes.py [VERSION]

Without VERSION that of pyproject.toml. Raises SystemExit for a version that has no notes.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def notes(version: str, changelog: str) -> str:
    """The text below the version's heading."""
    parts = re.split(r"^## \[([^\]]+)\].*$", changelog, flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    text = found.get(version, "").strip()
    if not text:
        known = ", ".join(found)
        raise SystemExit(f"CHANGELOG.md has no notes of {version}; there are: {known}")
    return text


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    version = sys.argv[1] if len(sys.argv) > 1 else project["version"]
    print(notes(version, (ROOT / "CHANGELOG.md").read_text("utf-8")))


if __name__ == "__main__":
    main()
