"""What people paused: flows and providers, for all replicas, over restarts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from service.errors import BadRequest, NotFound, StoreError
from service.flows import Catalogue, Flow
from service.inbox import Inbox, Pause, Resume

EVERY = 1.0  # seconds between looks
FLOW, PROVIDER = "flow", "provider"

log = logging.getLogger("emqx-gpt.worker")


class Controls:
    """What is paused, as one process knows it. `changed` is told the providers."""

    def __init__(
        self,
        store: Inbox,
        flows: Catalogue,
        *,
        now: Callable[[], int],
        changed: Callable[[frozenset[str]], None],
    ) -> None:
        self._store = store
        self._flows = flows
        self._now = now
        self._changed = changed
        self._task: asyncio.Task[None] | None = None
        self.paused: Sequence[Pause] = ()
        self.flows: frozenset[str] = frozenset()

    async def start(self) -> None:
        """Look once, then again and again. Raises StoreError: who can't know had better not ask."""
        await self.look()
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        """Raises StoreError."""
        found = await self._store.desk.paused()
        if found == self.paused:
            return
        self.paused = found
        self.tell()

    def tell(self) -> None:
        """Have it carried out, for the flows there are now."""
        self.flows = frozenset(one.name for one in self.paused if one.kind == FLOW)
        self._changed(frozenset(one.name for one in self.paused if one.kind == PROVIDER))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.look()
            except StoreError as error:  # what was paused stays so
                log.debug("not known whether anything was paused: %s", error.message)

    async def pause(self, kind: str, name: str, who: str) -> bool:
        """From now on its requests wait; whether it was not paused before. Raises NotFound."""
        self._known(kind, name)
        done = await self._store.desk.change(Pause(kind, name, self._now(), who))
        await self.look()
        return done

    async def resume(self, kind: str, name: str) -> bool:
        """Whether it was paused. Raises NotFound."""
        if not any((one.kind, one.name) == (kind, name) for one in self.paused):
            self._known(kind, name)  # one that is gone from flows.toml can still be resumed
        done = await self._store.desk.change(Resume(kind, name))
        await self.look()
        return done

    def _known(self, kind: str, name: str) -> None:
        there = {FLOW: list(self._flows.flows), PROVIDER: list(self._flows.providers)}
        if kind not in there:
            raise BadRequest("only flows and providers are paused", code="bad_parameter")
        if name not in there[kind]:
            raise NotFound(f"no {kind} {name!r}; there are: {', '.join(there[kind])}")

    def stopped(self, flow: Flow) -> str | None:
        """Why this flow asks nobody now: "paused", or None."""
        providers = {one.name for one in self.paused if one.kind == PROVIDER}
        if flow.name in self.flows or all(one.provider in providers for one in flow.models):
            return "paused"
        return None
