"""What every open page shows: what waits and died, how the parts are, the newest requests."""

from __future__ import annotations

from typing import Any

from service.errors import StoreError
from service.inbox import Filter, Inbox
from service.operations.controls import Controls
from service.operations.health import Health
from service.operations.insights import shown, when
from service.operations.losses import LossWatch
from service.operations.stats import Statistics

NEWEST = 20  # requests
TEXT = 120  # characters of their questions and replies
_FIELDS = ("id", "flow", "conversation", "state", "topic", "accepted_at", "ended_at", "error")


class Board:
    """Looked at once for all pages."""

    def __init__(
        self,
        store: Inbox,
        health: Health,
        controls: Controls,
        losses: LossWatch,
        statistics: Statistics,
    ) -> None:
        self._store = store
        self._health = health
        self._controls = controls
        self._losses = losses
        self._statistics = statistics

    async def __call__(self) -> dict[str, Any]:
        """`totals`, `hour` and `latest` are None while the database is away."""
        _, parts = await self._health.ready()
        board: dict[str, Any] = {
            "links": parts,
            "paused": [{"kind": one.kind, "name": one.name} for one in self._controls.paused],
            "totals": None,
            "hour": None,
            "latest": None,
        }
        try:
            board["totals"] = await self._totals()
            board["hour"] = (await self._statistics.of("hour"))["total"]
            board["latest"] = await self._latest()
        except StoreError:
            board["totals"] = None
        return board

    async def _totals(self) -> dict[str, Any]:
        stats = await self._store.stats()
        states: dict[str, int] = {}
        flows: dict[str, dict[str, int]] = {}
        for (flow, state), count in stats.counts.items():
            states[str(state)] = states.get(str(state), 0) + count
            flows.setdefault(flow or "", {})[str(state)] = count
        return {
            "open": stats.open,
            "oldest_at": when(stats.oldest_at),
            "states": states,
            "flows": flows,
            "dead": {str(state): count for state, count in stats.dead.items()},
            "given_up": self._losses.lost,
        }

    async def _latest(self) -> list[dict[str, Any]]:
        page = await self._store.find(Filter(), limit=NEWEST)
        latest = []
        for row in page.rows:
            document = shown(row, whole=False)
            brief = {name: document[name] for name in _FIELDS}
            brief["text"] = document["text"][:TEXT]
            brief["said"] = (document["said"] or "")[:TEXT]
            latest.append(brief)
        return latest
