"""The bars of a bench as an SVG picture that reads well on light and on dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from tests.bench.rows import Bar, Row

WIDTH = 760
LEFT = 190  # where bars begin
ROOM = 400  # the longest bar
BAR = 14
ROW = 62

_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .what { font-weight: 600 }
  .small { font-size: 11px; fill: #6e7781 }
  .ours { fill: #0d9488 }
  .base { fill: #afb8c1 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .small { fill: #8d96a0 }
    .ours { fill: #2dd4bf }
    .base { fill: #57606a }
  }
"""


def svg(rows: Sequence[Row], machine: dict[str, Any]) -> str:
    """A group of two bars for each row that has a baseline."""
    shown = [row for row in rows if row.bars]
    height = ROW * len(shown) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(_title(shown))}</title>",
        f"<style>{_STYLE}</style>",
    ]
    for number, row in enumerate(shown):
        parts += _group(row, 16 + number * ROW)
    said = (
        f"{machine['cores']} cores, Python {machine['python']}, SQLite {machine['sqlite']} "
        f"with synchronous=FULL, fsync {machine['fsync_ms']} ms; everything on one machine."
    )
    parts.append(f'<text class="small" x="10" y="{height - 12}">{escape(said)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _title(rows: Sequence[Row]) -> str:
    return "; ".join(f"{row.what}: {row.ours}" for row in rows)


def _group(row: Row, top: int) -> list[str]:
    most = max(bar.value for bar in row.bars) or 1.0
    what = row.what[0].upper() + row.what[1:]
    lines = [f'<text class="what" x="10" y="{top}">{escape(what)}</text>']
    for number, bar in enumerate(row.bars):
        lines += _bar(bar, "base" if number else "ours", most, top + 7 + number * (BAR + 3))
    return lines


def _bar(bar: Bar, kind: str, most: float, top: int) -> list[str]:
    length = max(2, round(ROOM * bar.value / most))
    middle = top + BAR - 3
    return [
        f'<text class="small" x="{LEFT - 8}" y="{middle}" text-anchor="end">'
        f"{escape(bar.label)}</text>",
        f'<rect class="{kind}" x="{LEFT}" y="{top}" width="{length}" height="{BAR}" rx="2"/>',
        f'<text class="small" x="{LEFT + length + 8}" y="{middle}">{escape(bar.text)}</text>',
    ]
