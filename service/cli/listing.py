"""Requests as lines: each fits the terminal, with topic, question and reply."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.cells import set_cell_size
from rich.text import Text

from service import safe_text
from service.cli.common import console, say_json
from service.cli.local_inbox import SHORT
from service.inbox import Filter, epoch_ms
from service.operations.insights import Insights

COLOURS = {"done": "green", "failed": "red", "expired": "yellow", "ignored": "dim"}
LOOK = 1.0  # seconds between two looks
WATCHED = 200  # newest requests that are looked at again


async def once(insights: Insights, wanted: Filter, limit: int, *, as_json: bool) -> None:
    """The newest, newest first."""
    requests = (await insights.requests(wanted, limit=limit))["requests"]
    if as_json:
        for one in requests:
            say_json(one)
        return
    out = console()
    out.print(_head(out.width))
    for one in requests:
        out.print(_line(one, out.width), soft_wrap=True)
    if not requests:
        out.print("No request fits.", style="dim")


async def follow(insights: Insights, wanted: Filter, limit: int, *, as_json: bool) -> None:
    """Each as it comes, and again in each state that it is seen in; until interrupted."""
    out = console()
    seen: dict[str, str] = {}
    if not as_json:
        out.print(_head(out.width))
    first = True
    while True:
        page = await insights.requests(wanted, limit=limit if first else WATCHED)
        found: Sequence[dict[str, Any]] = page["requests"]
        for one in reversed(found):
            if seen.get(one["id"]) == one["state"]:
                continue
            if as_json:
                say_json(one)
            else:
                out.print(_line(one, out.width), soft_wrap=True)
        sys.stdout.flush()
        if first:  # what came before those that were asked for is no news
            page = await insights.requests(wanted, limit=WATCHED)
            found, first = page["requests"], False
        seen = {one["id"]: one["state"] for one in found}
        await asyncio.sleep(LOOK)


def age(ms: float) -> str:
    """At most four characters."""
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)):
        if ms >= length:
            return f"{int(ms // length)}{unit}"
    return f"{max(0, int(ms // 1000))}s"


def _epoch(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp() * 1000


def _columns(width: int) -> tuple[int, int, int]:
    """Cells of topic, question and reply."""
    room = max(width - SHORT - 10 - 5 - 3, 24)
    topic = min(room // 3, 40)
    question = (room - topic) // 2
    return topic, question, room - topic - question - 2


def _head(width: int) -> Text:
    topic, question, _ = _columns(width)
    names = [("id", SHORT + 1), ("state", 10), ("age", 5), ("topic", topic + 1)]
    line = "".join(name.ljust(cells) for name, cells in names)
    return Text(line + "question".ljust(question + 1) + "reply", style="bold")


def _line(request: Mapping[str, Any], width: int) -> Text:
    topic, question, reply = _columns(width)
    error = request["error"] if request["state"] != "done" else None
    said = f"{error['code']}: {error['message']}" if error else request["said"] or ""
    state = request["state"]
    line = Text(no_wrap=True)
    line.append(request["id"][-SHORT:] + " ", style="dim")
    line.append(state.ljust(10), style=COLOURS.get(state, "cyan"))
    line.append(age(epoch_ms() - _epoch(request["accepted_at"])).rjust(4) + " ", style="dim")
    line.append(_cut(request["topic"], topic) + " ", style="dim")
    line.append(_cut(request["text"], question) + " ")
    line.append(_cut(said, reply).rstrip(), style="red" if error else "")
    return line


def _cut(text: str, cells: int) -> str:
    """In one line of so many cells; what is cut ends with an ellipsis."""
    flat = safe_text.shown(" ".join(text.split()))
    sized = set_cell_size(flat, cells)
    if sized.rstrip() == flat.rstrip() or cells < 2:
        return sized
    return set_cell_size(set_cell_size(flat, cells - 1).rstrip() + "…", cells)
