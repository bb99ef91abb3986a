"""Able to take and answer? Database, broker and model, each named, with what is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from service.emqx.publish_api import Emqx
from service.errors import BrokerError, StoreError
from service.inbox import Inbox
from service.llm.circuit_breaker import CircuitBreakers
from service.operations.losses import LossWatch

READY_CACHE = 2.0  # seconds a look at the broker counts, so that probes cost it little


class Health:
    """One process's health. `outage` is why the broker takes nothing now; the publisher,
    which knows it first, writes it here."""

    def __init__(
        self,
        store: Inbox,
        emqx: Emqx,
        breakers: CircuitBreakers,
        losses: LossWatch,
        mcp: Callable[[], Mapping[str, str | None]] = dict,
    ) -> None:
        self._mcp = mcp
        self._store = store
        self._losses = losses
        self._emqx = emqx
        self._breakers = breakers
        self._seen: BrokerError | None = None
        self._look_again = 0.0
        self.outage: BrokerError | None = None
        self.closing = False  # the process shuts down
        self.flows_refused: str | None = None  # what is wrong with flows.toml as it stands
        self._back_at: float | None = None  # when the last outage was over

    def back(self) -> None:
        """The outage is over."""
        self.outage = None
        self._back_at = time.monotonic()

    def back_within(self, seconds: float) -> bool:
        """Whether an outage is over for less than this."""
        return self._back_at is not None and time.monotonic() - self._back_at < seconds

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether all work, and how each is."""
        parts = {"database": await self._database(), "broker": await self._broker()}
        closed = sorted(self._breakers.states(), key=lambda one: one.ok)
        parts["model"] = {"ok": all(one.ok for one in closed)}
        if closed:
            parts["model"] |= {"code": closed[0].code, "message": closed[0].message}
            parts["model"]["providers"] = [one.provider for one in closed]
        if servers := self._mcp():
            # Flows answer without them, so they keep nobody from being ready.
            away = [f"{name} {why}" for name, why in servers.items() if why is not None]
            parts["mcp"] = {"ok": True} | ({"warning": "; ".join(away)} if away else {})
        if self.flows_refused is not None:
            parts["flows"] = {"ok": True, "warning": self.flows_refused}
        if self.closing:
            parts["service"] = {"ok": False, "code": "shutting_down", "message": "shutting down"}
        return all(part["ok"] for part in parts.values()), parts

    async def _database(self) -> dict[str, Any]:
        try:
            await self._store.ping()
        except StoreError as error:
            return {"ok": False, "code": error.code, "message": error.message}
        return {"ok": True}

    async def _broker(self) -> dict[str, Any]:
        error = self.outage or await self._ping()
        part: dict[str, Any] = {"ok": True}
        if error is not None:
            part = {"ok": False, "code": error.code, "message": error.message}
        if (warning := self._losses.warning) is not None:
            part["warning"] = warning
        return part

    async def _ping(self) -> BrokerError | None:
        if time.monotonic() >= self._look_again:
            self._seen = None
            try:
                await self._emqx.ping()
            except BrokerError as error:
                self._seen = error
            self._look_again = time.monotonic() + READY_CACHE
        return self._seen
