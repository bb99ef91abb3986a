"""What is looked up when Prometheus asks: the inbox, circuits, pauses, budgets.

The inbox and the budgets are the same for all processes on one database, so take the maximum
over them, not the sum; circuits are of this process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from prometheus_client import Gauge

from service.domain import Spent, State
from service.errors import StoreError
from service.flows import Catalogue
from service.inbox import Inbox
from service.llm.circuit_breaker import CircuitBreakers
from service.operations.controls import FLOW, PROVIDER, Controls
from service.operations.metrics import Metrics

GOOD_FOR = 1000  # ms that budgets are given again
OPEN = (State.QUEUED, State.ANSWERING, State.WAITING, State.ANSWERED)
DEAD = (State.FAILED, State.EXPIRED)

log = logging.getLogger("emqx-gpt.metrics")

Budgets = Callable[[], Awaitable[Sequence[Spent]]]


class Scrape:
    """GET /metrics of one process. `now` gives epoch ms."""

    def __init__(
        self,
        metrics: Metrics,
        flows: Catalogue,
        store: Inbox,
        breakers: CircuitBreakers,
        controls: Controls,
        budgets: Budgets,
        *,
        now: Callable[[], int],
        troubles: Callable[[], Mapping[str, str | None]] = dict,
    ) -> None:
        self._troubles = troubles
        self._metrics = metrics
        self._flows = flows
        self._store = store
        self._breakers = breakers
        self._controls = controls
        self._spent = budgets
        self._now = now
        self._looking = asyncio.Lock()
        self._looked_at = -GOOD_FOR
        metrics.expect(flows.file)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"emqx_gpt_{name}", text, labels, registry=metrics.registry)

        self._backlog = gauge("backlog", "Requests waiting")
        self._age = gauge("backlog_age_seconds", "Age of the oldest waiting request")
        self._open = gauge("open", "Requests not ended, by where they are", "flow", "state")
        self._dead = gauge("dead_letters", "Requests that failed or came too late", "state")
        self._circuit = gauge(
            "circuit_open",
            "1: this model failed, or its provider refused the key, and no call has been answered "
            "since",
            "provider",
            "model",
        )
        self._paused = gauge("paused", "1: a person paused it", "kind", "name")
        self._mcp_up = gauge(
            "mcp_up", "1: an MCP server's tools could be had when it was last asked", "server"
        )
        self._budgets = {
            unit: (
                gauge(f"budget_{unit}_used", f"{words} of today (UTC), reserved ones too", "flow"),
                gauge(f"budget_{unit}_limit", f"{words} that a day (UTC) may have", "flow"),
            )
            for unit, words in (("tokens", "Tokens"), ("dollars", "US dollars"))
        }

    async def __call__(self) -> bytes:
        """Prometheus' text format."""
        self._circuits()
        self._pauses()
        self._mcp_up.clear()
        for server, why in self._troubles().items():
            self._mcp_up.labels(server).set(why is None)
        try:
            await self._inbox()
            await self._budget()
        except StoreError as error:  # what else there is to see matters most just then
            log.debug("no figures of the inbox: %s", error.message)
        return self._metrics.text()

    async def _inbox(self) -> None:
        stats = await self._store.stats()
        self._backlog.set(stats.open)
        oldest = stats.oldest_at
        self._age.set(0.0 if oldest is None else max(0.0, (self._now() - oldest) / 1000))
        counts = {(name, state): 0 for name in self._flows.flows for state in OPEN}
        for (flow, state), count in stats.counts.items():
            at = (flow if flow and flow in self._flows.flows else "", state)
            counts[at] = counts.get(at, 0) + count
        self._open.clear()
        for (name, state), count in counts.items():
            self._open.labels(name, str(state)).set(count)
        for state in DEAD:
            self._dead.labels(str(state)).set(stats.dead.get(state, 0))

    def _circuits(self) -> None:
        self._circuit.clear()  # what no flow uses any more
        for flow in self._flows.flows.values():
            for model in flow.all_models:
                at = self._circuit.labels(model.provider, str(model))
                at.set(self._breakers.broken(model))

    def _pauses(self) -> None:
        now = {(one.kind, one.name) for one in self._controls.paused}
        self._paused.clear()
        for kind, names in ((FLOW, self._flows.flows), (PROVIDER, self._flows.providers)):
            for name in names:
                self._paused.labels(kind, name).set((kind, name) in now)

    async def _budget(self) -> None:
        async with self._looking:
            if 0 <= self._now() - self._looked_at < GOOD_FOR:
                return
            found = await self._spent()
            for gauges in self._budgets.values():
                for gauge in gauges:
                    gauge.clear()
            for one in found:
                used, limit = self._budgets[one.unit]
                used.labels(one.flow).set(one.used)
                limit.labels(one.flow).set(one.limit)
            self._looked_at = self._now()
