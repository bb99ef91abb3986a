"""The inbox over HTTP: look up, retry; conversations shown and forgotten; who did what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from service.domain import State
from service.errors import BadRequest
from service.inbox import Filter, Inbox
from service.operations.actions import Actions
from service.operations.insights import Insights, when
from service.operations.stats import Statistics
from service.web.auth import is_form
from service.web.http import JSON, json_object


def filter_of(query: Mapping[str, Any]) -> Filter:
    """The filter that checked parameters mean."""
    state = State(query["state"]) if query["state"] else None
    names = ("flow", "conversation", "error", "text", "since", "until")
    return Filter(state, **{name: query[name] for name in names})


class Requests:
    """Endpoints over the read-model, and what people do to it."""

    def __init__(self, insights: Insights, actions: Actions, max_body: int) -> None:
        self._insights = insights
        self._actions = actions
        self._max_body = max_body

    async def list(self, request: Request) -> Response:
        """GET /requests, newest first."""
        query = request.state.query
        page = await self._insights.requests(
            filter_of(query), limit=query["limit"], before=query["before"]
        )
        return JSON(page)

    async def show(self, request: Request) -> Response:
        """GET /requests/{id}"""
        return JSON(await self._insights.request(request.path_params["id"]))

    async def retry(self, request: Request) -> Response:
        """POST /requests/{id}/retry: a dead letter goes to the end of the queue."""
        id = request.path_params["id"]
        payload = None
        if int(request.headers.get("content-length") or 0) > 0 and not is_form(request):
            body = await json_object(request, self._max_body)
            if set(body) - {"payload"} or not isinstance(body.get("payload", ""), str):
                raise BadRequest('only "payload", a string, can be given', code="bad_field")
            if "payload" in body:
                payload = str(body["payload"]).encode("utf-8", "replace")
                request.state.target = f"{id} (edited)"
        await self._actions.retry(id, payload)
        return JSON(await self._insights.request(id), status_code=202)

    async def remove(self, request: Request) -> Response:
        """DELETE /requests/{id}"""
        await self._actions.remove(request.path_params["id"])
        return JSON({"forgotten": 1})

    async def conversations(self, request: Request) -> Response:
        """GET /conversations"""
        query = request.state.query
        page = await self._insights.conversations(
            limit=query["limit"], before=query["before"], flow=query["flow"]
        )
        return JSON(page)

    async def conversation(self, request: Request) -> Response:
        """GET /conversations/{flow}/{conversation}"""
        params = request.path_params
        return JSON(await self._insights.conversation(params["flow"], params["conversation"]))

    async def forget(self, request: Request) -> Response:
        """DELETE /conversations/{flow}/{conversation}"""
        params = request.path_params
        turns = await self._actions.forget(params["flow"], params["conversation"])
        return JSON({"forgotten": turns})


class Acts:
    """GET /acts: who did what."""

    def __init__(self, store: Inbox) -> None:
        self._store = store

    async def list(self, request: Request) -> Response:
        query = request.state.query
        found = await self._store.desk.acts(query["limit"], query["before"])
        acts = [
            {
                "at": when(one.at),
                "who": one.who,
                "act": one.act,
                "target": one.target,
                "result": one.result,
            }
            for one in found
        ]
        more = found[-1].seq if len(found) == query["limit"] else None
        return JSON({"acts": acts, "next": more})


class Stats:
    """GET /stats"""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics

    async def __call__(self, request: Request) -> Response:
        return JSON(await self._statistics.of(request.state.query["window"]))
