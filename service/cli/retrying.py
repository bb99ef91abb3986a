"""`emqx-gpt requests retry`, of one or of many, with a progress bar."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import orjson
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from service.cli import local_inbox
from service.cli.common import console, say
from service.errors import BadRequest
from service.inbox import Act, Filter, Inbox, epoch_ms
from service.operations.actions import DEAD, Actions
from service.operations.bulk import Bulk

LOOK = 0.1  # seconds


def who() -> str:
    """Whose act it is, in the list of acts."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container without names
        return "cli"


async def retry(
    ids: Sequence[str], filters: tuple[Any, ...], *, all_of_them: bool, payload: str | None
) -> None:
    """Raises BadRequest, NotFound, Conflict."""
    by_filter = any(one is not None for one in filters)
    if (bool(ids) + by_filter + all_of_them) != 1:
        raise BadRequest("name ids, or a filter (such as --flow, --error), or --all")
    if payload is not None and len(ids) != 1:
        raise BadRequest("--payload goes with one id")
    state = filters[0]
    if state is not None and state not in DEAD:
        raise BadRequest("only failed and expired requests are retried")
    async with local_inbox.opened() as (insights, actions, store):
        if not ids:
            await _many(store, actions, local_inbox.wanted(*filters))
            return
        for part in ids:
            id = await local_inbox.whole_id(store, part)
            await actions.retry(id, None if payload is None else payload.encode("utf-8", "replace"))
            edited = " (edited)" if payload is not None else ""
            await store.desk.note(Act(who(), "retry", id + edited, "ok"))
            say(f"{id} {(await insights.request(id))['state']}")


async def _many(store: Inbox, actions: Actions, wanted: Filter) -> None:
    bulk = Bulk(store, actions, now=epoch_ms)
    dead = (await store.stats()).dead
    states = DEAD if wanted.state is None else (wanted.state,)
    most = sum(dead.get(state, 0) for state in states)
    job = await bulk.retry(wanted, who())
    bar = Progress(
        TextColumn("retrying"), BarColumn(), MofNCompleteColumn(), console=console(stderr=True)
    )
    try:
        with bar:
            task = bar.add_task("", total=most)
            state = "running"
            while state == "running":
                await asyncio.sleep(LOOK)
                job, state = await bulk.job(job.id)
                bar.update(task, completed=job.looked_at)
            bar.update(task, total=job.looked_at, completed=job.looked_at)
    finally:
        await bulk.stop()
    given = {name: str(value) for name, value in asdict(wanted).items() if value is not None}
    target = orjson.dumps({"filter": given}).decode()
    await store.desk.note(Act(who(), "retry many", target, job.error or "ok"))
    if job.error:
        raise BadRequest(f"stopped after {job.done}: {job.error}; the same command goes on")
    left = job.looked_at - job.done
    why = "; {left} not, since they changed meanwhile or a tool call of theirs is unsettled"
    say(f"{job.done} retried" + (why.format(left=left) if left else ""))
