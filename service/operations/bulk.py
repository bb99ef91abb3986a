"""One act on all requests that a filter finds, in the background; how far it is can be read."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from service.errors import Conflict, EmqxGptError, NotFound, StoreError
from service.inbox import BulkJob, Filter, Inbox, Row
from service.operations.actions import DEAD, Actions

PAGE = 200
AT_ONCE = 4  # jobs of one process
SILENT = 30_000  # ms without a sign of life: its process is gone

log = logging.getLogger("emqx-gpt")


class Bulk:
    """The jobs of one process. `now` gives epoch ms."""

    def __init__(self, store: Inbox, actions: Actions, *, now: Callable[[], int]) -> None:
        self._store = store
        self._actions = actions
        self._now = now
        self._tasks: set[asyncio.Task[None]] = set()

    async def retry(self, wanted: Filter | Sequence[str], who: str) -> BulkJob:
        """Begin to retry all failed and expired requests that the filter finds, or these.
        Raises Conflict while too many jobs run."""
        if len(self._tasks) >= AT_ONCE:
            raise Conflict(f"{AT_ONCE} such jobs run already; wait for one to end")
        now = self._now()
        job = BulkJob(secrets.token_hex(8), "retry", who, now, now)
        await self._store.desk.put_job(job)
        task = asyncio.create_task(self._retry(job, wanted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    async def job(self, id: str) -> tuple[BulkJob, str]:
        """How far it is, and how it is: running, done, failed, or interrupted with its process.
        Raises NotFound."""
        job = await self._store.desk.job(id)
        if job is None:
            raise NotFound(f"no job {id!r}; they are forgotten after a day")
        if job.ended_at is not None:
            return job, "failed" if job.error else "done"
        return job, "running" if self._now() - job.beat_at < SILENT else "interrupted"

    async def stop(self) -> None:
        """What is left undone stays as it was: the same filter finds it again."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _retry(self, job: BulkJob, wanted: Filter | Sequence[str]) -> None:
        error = None
        try:
            async for ids, flows in self._pages(wanted):
                done = await asyncio.gather(
                    *(self._actions.requeue(id, flow) for id, flow in zip(ids, flows, strict=True))
                )
                job = replace(
                    job,
                    beat_at=self._now(),
                    looked_at=job.looked_at + len(ids),
                    done=job.done + sum(done),
                )
                await self._store.desk.put_job(job)
        except EmqxGptError as failed:
            error = failed.code
            log.warning("a retry of many requests stopped: %s", failed.message)
        except Exception:
            error = "internal"
            log.exception("an internal error in a retry of many requests")
        now = self._now()
        try:
            await self._store.desk.put_job(replace(job, beat_at=now, ended_at=now, error=error))
        except StoreError as failed:
            log.warning("the end of a job is not stored: %s", failed.message)

    async def _pages(
        self, wanted: Filter | Sequence[str]
    ) -> AsyncIterator[tuple[list[str], list[str | None]]]:
        if not isinstance(wanted, Filter):
            for at in range(0, len(wanted), PAGE):
                ids = list(wanted[at : at + PAGE])
                rows = await asyncio.gather(*(self._store.request(id) for id in ids))
                found = [row for row in rows if row is not None and row.state in DEAD]
                yield [row.id for row in found], [row.flow for row in found]
            return
        states = (wanted.state,) if wanted.state is not None else DEAD
        for state in states:
            async for dead in pages(self._store, replace(wanted, state=state)):
                yield [row.id for row in dead], [row.flow for row in dead]


async def pages(store: Inbox, wanted: Filter, *, whole: bool = False) -> AsyncIterator[list[Row]]:
    """All that a filter finds, newest first, of what is there now."""
    before: int | None = None
    while True:
        page = await store.find(wanted, limit=PAGE, before=before, whole=whole)
        if page.rows:
            yield page.rows
        if page.next is None:
            return
        before = page.next
