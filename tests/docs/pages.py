"""What stands on a page: its blocks of code, in order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.rig import ROOT

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^>]+) -->\n)?^```(?P<kind>[a-z]*)\n(?P<text>.*?)^```", re.M | re.S
)


@dataclass(frozen=True, slots=True)
class Block:
    """Fenced code: `kind` is sh, toml, text …; `mark` the comment on the line before it."""

    kind: str
    text: str
    mark: str = ""


def blocks(path: Path) -> list[Block]:
    text = path.read_text("utf-8")
    return [
        Block(found["kind"], found["text"], found["mark"] or "") for found in _BLOCK.finditer(text)
    ]


def pages() -> list[Path]:
    """Every document that people read, the READMEs included."""
    patterns = ("README*.md", "emqx/README.md", "docs/**/*.md", "examples/**/*.md")
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def marked(page: str, mark: str) -> str:
    """The one block of a page below this comment."""
    (found,) = [one.text for one in blocks(ROOT / page) if one.mark == mark]
    return found
