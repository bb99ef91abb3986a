"""GET /healthz, /readyz, /metrics."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from service.inbox import Inbox
from service.operations.health import Health
from service.operations.metrics import Metrics
from service.web.http import JSON


class Probes:
    """Alive, able to take and answer, and figures. `now` gives epoch ms."""

    def __init__(
        self, health: Health, metrics: Metrics, store: Inbox, *, now: Callable[[], int]
    ) -> None:
        self._health = health
        self._metrics = metrics
        self._store = store
        self._now = now

    async def healthz(self, request: Request) -> Response:
        """200 while the process's event loop runs."""
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        """200 when database, broker and model all work, else 503; each is named."""
        ready, parts = await self._health.ready()
        return JSON({"ready": ready, **parts}, status_code=200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """Prometheus' text format."""
        text = await self._metrics.exposition(self._store, self._now())
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
