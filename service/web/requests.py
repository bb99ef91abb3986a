"""The inbox over HTTP: look up, retry; conversations shown and forgotten."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from service.domain import State
from service.errors import BadRequest
from service.operations.actions import Actions
from service.operations.insights import Insights
from service.web.http import JSON


class Requests:
    """Endpoints over the read-model, and what people do to it."""

    def __init__(self, insights: Insights, actions: Actions) -> None:
        self._insights = insights
        self._actions = actions

    async def list(self, request: Request) -> Response:
        """GET /requests?state=&flow=&conversation=&limit=&before=, newest first."""
        query = request.query_params
        unknown = set(query) - {"state", "flow", "conversation", "limit", "before"}
        if unknown:
            raise BadRequest(f"unknown parameter {sorted(unknown)[0]!r}", code="bad_parameter")
        try:
            state = State.parse(query["state"]) if query.get("state") else None
        except ValueError as error:
            raise BadRequest(str(error), code="bad_parameter") from None
        limit = _number(query.get("limit", "50"), "limit", 500)
        before = query.get("before")
        page = await self._insights.requests(
            state=state,
            flow=query.get("flow") or None,
            conversation=query.get("conversation") or None,
            limit=limit,
            before=_number(before, "before", 2**62) if before else None,
        )
        return JSON(page)

    async def show(self, request: Request) -> Response:
        """GET /requests/{id}"""
        return JSON(await self._insights.request(request.path_params["id"]))

    async def retry(self, request: Request) -> Response:
        """POST /requests/{id}/retry: a dead letter goes to the end of the queue."""
        id = request.path_params["id"]
        await self._actions.retry(id)
        return JSON(await self._insights.request(id), status_code=202)

    async def conversation(self, request: Request) -> Response:
        """GET /conversations/{flow}/{conversation}"""
        params = request.path_params
        return JSON(await self._insights.conversation(params["flow"], params["conversation"]))

    async def forget(self, request: Request) -> Response:
        """DELETE /conversations/{flow}/{conversation}"""
        params = request.path_params
        turns = await self._actions.forget(params["flow"], params["conversation"])
        return JSON({"forgotten": turns})


def _number(text: str, name: str, most: int) -> int:
    if not text.isdecimal() or len(text) > 20 or not 1 <= int(text) <= most:
        raise BadRequest(f"{name} is a number from 1 to {most}", code="bad_parameter")
    return int(text)
