"""What people do to the inbox: ask a dead letter again, forget a conversation."""

from __future__ import annotations

from collections.abc import Callable

from service.errors import Conflict
from service.flows import Catalogue
from service.inbox import Inbox
from service.operations.insights import found, known

DEADLINE = 900.0  # seconds, for a request whose flow is gone


class Actions:
    """Changes that the API and the CLI make. `now` gives epoch ms."""

    def __init__(self, store: Inbox, flows: Catalogue, *, now: Callable[[], int]) -> None:
        self._store = store
        self._flows = flows
        self._now = now

    async def requeue(self, id: str, flow: str | None, payload: bytes | None = None) -> bool:
        """A dead letter goes to the end of the queue, with another payload if one is given."""
        known = self._flows.flows.get(flow or "")
        seconds = known.deadline if known else DEADLINE
        deadline = self._now() + int(seconds * 1000)
        return await self._store.retry(id, deadline=deadline, payload=payload)

    async def retry(self, id: str, payload: bytes | None = None) -> None:
        """The same for one by its id. Raises NotFound, Conflict."""
        row = await found(self._store, id)
        if not await self.requeue(id, row.flow, payload):
            state = (await found(self._store, id)).state
            raise Conflict(f"it is {state}; only failed and expired requests are retried")

    async def remove(self, id: str) -> None:
        """Forget an ended request, as if it was older than RETENTION. Raises NotFound, Conflict."""
        if not await self._store.remove(id):
            state = (await found(self._store, id)).state
            raise Conflict(f"it is {state}; only a request that has ended is forgotten")

    async def forget(self, flow: str, conversation: str) -> int:
        """Forget a conversation; how many turns it had. Raises NotFound for an unknown flow."""
        known(self._flows, flow)
        return await self._store.forget(flow, conversation)
