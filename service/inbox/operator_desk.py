"""The operator's desk: who did what, what is paused, how far acts on many requests are."""

from __future__ import annotations

from service.inbox import acts
from service.inbox.acts import Act, BulkJob, Pause, Resume
from service.inbox.commit import Engine


class Desk:
    """What people do, in the database of the inbox. Raises StoreError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def note(self, act: Act) -> None:
        """Write down what somebody did; its time is now."""
        await self._engine.submit(acts.note, act)

    async def acts(self, limit: int, before: int | None = None) -> list[Act]:
        """Newest first; `before` is the `seq` of the last one seen."""
        return await self._engine.view(lambda tx: acts.listed(tx, limit, before))

    async def change(self, one: Pause | Resume) -> bool:
        """Pause or resume; whether that changed anything."""
        return await self._engine.submit(acts.change, one)

    async def paused(self) -> list[Pause]:
        return await self._engine.view(acts.pauses)

    async def put_job(self, job: BulkJob) -> None:
        """Store how far it is."""
        await self._engine.submit(acts.put_job, job)

    async def job(self, id: str) -> BulkJob | None:
        return await self._engine.view(lambda tx: acts.job(tx, id))
