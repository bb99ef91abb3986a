"""GET /healthz, /readyz, /metrics."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from service.operations.insights import Insights
from service.web.http import JSON


class Health:
    """Alive, able to take and answer, and figures."""

    def __init__(self, insights: Insights) -> None:
        self._insights = insights

    async def healthz(self, request: Request) -> Response:
        """200 while the process's event loop runs."""
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        """200 when database, broker and model all work, else 503; each is named."""
        ready, parts = await self._insights.ready()
        return JSON({"ready": ready, **parts}, status_code=200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """Prometheus' text format."""
        return Response(
            await self._insights.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8"
        )
