"""GET /healthz, /readyz, /metrics."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from service.errors import ApiError
from service.operations.health import Health
from service.operations.scrape import Scrape
from service.web.auth import Access
from service.web.http import JSON


def _briefly(part: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name in ("ok", "code")}


class Probes:
    """Alive, able to take and answer, and figures."""

    def __init__(
        self,
        health: Health,
        scrape: Scrape,
        *,
        access: Access,
    ) -> None:
        self._access = access
        self._health = health
        self._scrape = scrape

    async def healthz(self, request: Request) -> Response:
        """200 while the process's event loop runs."""
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        """200 when database, broker and model all work, else 503; each is named.

        Why one does not is told to those who have a token: others' servers chose the words.
        """
        ready, parts = await self._health.ready()
        try:
            await self._access.authorize(request)
        except ApiError:
            parts = {name: _briefly(part) for name, part in parts.items()}
        return JSON({"ready": ready, **parts}, status_code=200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """Prometheus' text format."""
        return Response(await self._scrape(), media_type="text/plain; version=0.0.4; charset=utf-8")
