"""`emqx-gpt replay`: stored requests asked again, compared with what was said then."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from service import flows as flows_file
from service import safe_text, settings
from service.answering.replay import Compared, ReplayAnswer, Replayer
from service.cli import local_inbox
from service.cli.common import console, say, say_json
from service.cli.model_check import model_of, replayer
from service.domain import ENDS
from service.errors import BadRequest, ConfigError
from service.flows import ModelRef
from service.inbox import Filter, Inbox, Row
from service.operations.bulk import pages

AT_ONCE = 4
CELL = 600  # characters of a text on the terminal


async def replay(
    filters: tuple[Any, ...],
    *,
    limit: int,
    file: Path | None,
    model: str | None,
    as_json: bool,
    html: Path | None,
    yes: bool,
) -> None:
    """Raises ConfigError, BadRequest, StoreError."""
    loaded = settings.load()
    path = file or loaded.flows
    found = flows_file.load(path, model=loaded.openai_model)
    other = model_of(model, found)
    async with local_inbox.opened() as (_, _, store):
        rows = await _rows(store, local_inbox.wanted(*filters), limit)
        known = [row for row in rows if row.flow in found.flows]
        if left := len(rows) - len(known):
            say(f"{left} requests are of flows that {path} does not have: left out.", err=True)
        if not known:
            raise BadRequest("no request that has ended fits")
        _ask_first(known, yes)
        async with replayer(loaded, found, store, AT_ONCE) as again:
            compared = await _all(again, store, known, other)
    if as_json:
        for one in compared:
            say_json(one.as_json())
    else:
        out = console()
        for one in compared:
            _show(out, one)
        _totals(out, compared)
    if html is not None:
        _write(html, compared)


async def _rows(store: Inbox, wanted: Filter, limit: int) -> list[Row]:
    found: list[Row] = []
    async for page in pages(store, wanted, whole=True):
        found += [row for row in page if row.state in ENDS and row.message.payload]
        if len(found) >= limit:
            break
    return found[:limit]


def _ask_first(rows: Sequence[Row], yes: bool) -> None:
    tokens = sum(row.usage.total_tokens for row in rows)
    cost = sum(row.usage.cost or 0.0 for row in rows)
    took = f"{tokens:,} tokens" + (f" and ${cost:.4f}" if cost else "")
    text = f"{len(rows)} requests are asked again; they took {took} then. Nothing is published."
    say(text, err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("nobody to ask here whether that is meant: say --yes")
    if not typer.confirm("Go on?", err=True):
        raise typer.Exit(1)


async def _all(
    again: Replayer, store: Inbox, rows: Sequence[Row], model: ModelRef | None
) -> list[Compared]:
    places = asyncio.Semaphore(AT_ONCE)
    bar = Progress(
        TextColumn("asking"), BarColumn(), MofNCompleteColumn(), console=console(stderr=True)
    )

    async def one(row: Row) -> Compared:
        async with places:
            flow = again.flow_of(row.flow, model)
            if flow is None:
                raise AssertionError("its flow is known")
            made = await again.again(store, row, flow)
            bar.advance(task)
            return made

    with bar:
        task = bar.add_task("", total=len(rows))
        return list(await asyncio.gather(*(one(row) for row in rows)))


def _show(out: Console, one: Compared) -> None:
    same = one.same_text and one.same_calls
    head = Text.assemble(
        (one.row.id[-local_inbox.SHORT :], "bold"),
        f" {one.row.flow} ",
        ("same" if same else "differs", "green" if same else "yellow"),
        (f" (memory {one.memory})" if one.memory != "none" else "", "dim"),
    )
    out.print(head)
    out.print(Text(_cut(one.row.message.payload.decode("utf-8", "replace")), style="dim"))
    table = Table(box=None, pad_edge=False, show_header=False, expand=True)
    table.add_column(ratio=1)
    table.add_column(ratio=1)
    table.add_row(_side(one.before, "then"), _side(one.after, "now"))
    out.print(table)
    out.print()


def _side(said: ReplayAnswer, when: str) -> Text:
    cost = "" if said.usage.cost is None else f", ${said.usage.cost:.6f}"
    figures = f"{said.usage.total_tokens} tokens, {said.seconds:.1f} s{cost}"
    text = Text.assemble((f"{when}: {said.model or '-'}, {figures}\n", "dim"))
    for name, arguments in said.calls:
        text.append(safe_text.shown(f"{name}({_json(arguments)})\n"), style="magenta")
    if said.valid is False:
        text.append("does not fit the schema\n", style="red")
    if said.code is not None:
        text.append(safe_text.shown(f"{said.code}: {said.message}"), style="red")
    else:
        text.append(_cut(said.text or ""))
    return text


def _json(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _cut(text: str) -> str:
    shown = safe_text.lines(text[:CELL])
    return shown if len(text) <= CELL else shown + " …"


def _totals(out: Console, compared: Sequence[Compared]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("", "then", "now"):
        table.add_column(name, justify="left" if not name else "right")
    for name, values in totals(compared).items():
        table.add_row(name, *values)
    out.print(table)


def totals(compared: Sequence[Compared]) -> dict[str, tuple[str, str]]:
    """Sums of both sides, and how many are the same."""
    sides = [[one.before for one in compared], [one.after for one in compared]]

    def both(value: Any) -> tuple[str, str]:
        first, second = (value(side) for side in sides)
        return str(first), str(second)

    checked = [one for one in compared if one.after.valid is not None]
    found = {
        "answered": both(lambda side: sum(said.code is None for said in side)),
        "tool calls": both(lambda side: sum(len(said.calls) for said in side)),
        "tokens": both(lambda side: f"{sum(said.usage.total_tokens for said in side):,}"),
        "seconds": both(lambda side: f"{sum(said.seconds for said in side):.1f}"),
        "US dollars": both(_dollars),
        "same text": ("", f"{sum(one.same_text for one in compared)} of {len(compared)}"),
        "same calls": ("", f"{sum(one.same_calls for one in compared)} of {len(compared)}"),
    }
    if checked:
        fits = both(lambda side: f"{sum(bool(said.valid) for said in side)} of {len(checked)}")
        found["fits the schema"] = fits
    return found


def _dollars(side: Sequence[ReplayAnswer]) -> str:
    costs = [said.usage.cost for said in side if said.usage.cost is not None]
    return f"{sum(costs):.6f}" if costs else "-"


def _write(path: Path, compared: Sequence[Compared]) -> None:
    """A page to read side by side."""
    from service.web.console.render import report

    try:
        path.write_text(report([one.as_json() for one in compared], totals(compared)), "utf-8")
    except OSError as error:
        raise ConfigError(f"can't write {path}: {error.strerror}") from None
    say(f"wrote {path}", err=True)
