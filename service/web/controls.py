"""Pause and resume flows and providers."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from service.llm.circuit_breaker import CircuitBreakers
from service.operations.controls import FLOW, PROVIDER, Controls
from service.operations.insights import when
from service.web.http import JSON

KINDS = {"flows": FLOW, "providers": PROVIDER}


class ControlsApi:
    """The endpoints."""

    def __init__(self, controls: Controls, breakers: CircuitBreakers) -> None:
        self._controls = controls
        self._breakers = breakers

    async def list(self, request: Request) -> Response:
        """GET /paused"""
        return JSON(self._shown())

    async def pause(self, request: Request) -> Response:
        """POST /{flows,providers}/{name}/pause"""
        kind, name = self._which(request)
        await self._controls.pause(kind, name, request.state.who.name)
        return JSON(self._shown())

    async def resume(self, request: Request) -> Response:
        """POST /{flows,providers}/{name}/resume"""
        await self._controls.resume(*self._which(request))
        return JSON(self._shown())

    def _which(self, request: Request) -> tuple[str, str]:
        kind = KINDS[request.url.path.split("/")[1]]
        request.state.target = f"{kind} {request.path_params['name']}"
        return kind, request.path_params["name"]

    def _shown(self) -> dict[str, Any]:
        return {
            "paused": [
                {"kind": one.kind, "name": one.name, "since": when(one.since), "who": one.who}
                for one in self._controls.paused
            ],
            "circuits": [
                {
                    "provider": one.provider,
                    "model": one.model,
                    "code": one.code,
                    "message": one.message,
                    "seconds": round(one.seconds, 1),
                }
                for one in self._breakers.states()
            ],
        }
