"""`emqx-gpt requests list / show / retry`: the inbox, dead letters included."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from service import flows, plain, settings
from service.cli.common import console, run_async, say, say_json
from service.domain import State
from service.errors import BadRequest, StoreUnusable
from service.inbox import Filter, Inbox, database, epoch_ms
from service.operations.actions import Actions
from service.operations.insights import Insights

requests_app = typer.Typer(help="The inbox: what came, how it ended.", no_args_is_help=True)
_ALWAYS = ("id", "state", "flow", "conversation", "accepted")
COLOURS = {"done": "green", "failed": "red", "expired": "yellow", "ignored": "dim"}


@contextlib.asynccontextmanager
async def _inbox() -> AsyncIterator[tuple[Insights, Actions]]:
    loaded = settings.load()
    found = flows.load(loaded.flows, model=loaded.openai_model)
    _must_be_there(loaded.database_url.get_secret_value())
    store = Inbox(loaded.database_url.get_secret_value(), now=epoch_ms)
    await store.open()
    try:
        yield Insights(store, found), Actions(store, found, now=epoch_ms)
    finally:
        await store.close()


def _must_be_there(address: str) -> None:
    """Raises StoreUnusable if SQLite would have to make the file: looking must not make one."""
    if not address.startswith("sqlite"):
        return
    path = Path(database.parse(address).database or "")
    if not path.exists():
        raise StoreUnusable(
            f"there is no database {path} yet, so nothing was ever stored in it: the service makes "
            "it when it starts (emqx-gpt serve). DATABASE_URL names another one; for a running "
            "demo: emqx-gpt --env demo.env requests list"
        )


@requests_app.command("list")
def list_requests(
    state: Annotated[str | None, typer.Option(help="queued, answering, …, failed")] = None,
    flow: Annotated[str | None, typer.Option(help="Only this flow")] = None,
    conversation: Annotated[str | None, typer.Option(help="Only this conversation")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line")] = False,
) -> None:
    """Requests, newest first."""
    run_async(_list(state, flow, conversation, limit, as_json))


async def _list(
    state: str | None, flow: str | None, conversation: str | None, limit: int, as_json: bool
) -> None:
    try:
        wanted = State.parse(state) if state else None
    except ValueError as error:
        raise BadRequest(str(error)) from None
    async with _inbox() as (insights, _):
        page = await insights.requests(Filter(wanted, flow, conversation), limit=limit)
    if as_json:
        for item in page["requests"]:
            say_json(item)
        return
    console().print(_table(page["requests"]))


def _table(requests: Sequence[Mapping[str, Any]]) -> Table:
    """One row each; without the columns that would be empty, so that 80 characters do."""
    shown = ["id", "state", "flow", "conversation", "accepted", "cost", "error"]
    shown = [name for name in shown if name in _ALWAYS or any(item[name] for item in requests)]
    table = Table(box=None, pad_edge=False)
    for name in shown:
        table.add_column(name, no_wrap=name in ("id", "state", "accepted"), overflow="fold")
    for item in requests:
        colour = COLOURS.get(item["state"], "cyan")
        row = {
            "id": item["id"],
            "state": f"[{colour}]{item['state']}[/]",
            "flow": escape(plain.shown(item["flow"] or "-")),
            "conversation": escape(plain.shown(item["conversation"] or "-")),
            "accepted": _clock(item["accepted_at"]),
            "cost": "" if item["cost"] is None else f"${item['cost']:.6f}",
            "error": escape(item["error"]["code"] if item["error"] else ""),
        }
        table.add_row(*(row[name] for name in shown))
    return table


def _clock(moment: str) -> str:
    """ISO 8601 in UTC → local time as people read it."""
    return datetime.fromisoformat(moment).astimezone().strftime("%m-%d %H:%M:%S")


@requests_app.command()
def show(id: Annotated[str, typer.Argument(help="The request's id")]) -> None:
    """One request with its attempts, reply, usage and times, as JSON."""

    async def work() -> None:
        async with _inbox() as (insights, _):
            document = await insights.request(id)
        say_json(document, indent=2)

    run_async(work())


@requests_app.command()
def retry(id: Annotated[str, typer.Argument(help="The request's id")]) -> None:
    """A dead letter goes to the end of the queue with a new deadline."""

    async def work() -> None:
        async with _inbox() as (insights, actions):
            await actions.retry(id)
            document = await insights.request(id)
        say(f"{document['id']} {document['state']}")

    run_async(work())
