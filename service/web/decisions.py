"""What people say about a request's tool calls: yes or no before one, what became of one after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from service.answering.tool_answers import ToolAnswers
from service.errors import BadRequest
from service.operations.actions import Actions
from service.operations.insights import Insights
from service.web.http import JSON, json_object

BODY = 4096  # bytes
OUTCOMES = ("committed", "refused")


class Decisions:
    """The endpoints. A PIN comes in a body, and goes no further than to where it is compared."""

    def __init__(self, insights: Insights, actions: Actions, tool_answers: ToolAnswers) -> None:
        self._insights = insights
        self._actions = actions
        self._tool_answers = tool_answers

    async def confirm(self, request: Request) -> Response:
        """POST /requests/{id}/confirm"""
        id = request.path_params["id"]
        body = await _body(request, "answer", ("yes", "no"), "pin")
        await self._insights.row(id)
        await self._tool_answers.decide(
            id,
            body["answer"] == "yes",
            call_id=body.get("call_id") or None,
            pin=(body.get("pin") or "").strip() or None,
            who=request.state.who.name,
        )
        request.state.target = f"{id} ({body['answer']})"
        return JSON(await self._insights.request(id))

    async def settle(self, request: Request) -> Response:
        """POST /requests/{id}/settle"""
        id = request.path_params["id"]
        body = await _body(request, "outcome", OUTCOMES)
        who = request.state.who.name
        await self._actions.settle(id, body["outcome"], body.get("call_id") or None, who)
        request.state.target = f"{id} ({body['outcome']})"
        return JSON(await self._insights.request(id))


async def _body(
    request: Request, name: str, words: tuple[str, str], *more: str
) -> Mapping[str, Any]:
    """The body, whose `name` is one of two words. Raises BadRequest, which repeats none of it: it
    may hold a PIN."""
    body = await json_object(request, BODY)
    known = (name, "call_id", *more)
    if not set(body) <= set(known) or not all(isinstance(one, str) for one in body.values()):
        raise BadRequest(f"only {', '.join(known)} can be given, as strings", code="bad_field")
    if body.get(name) not in words:
        raise BadRequest(f'"{name}" is "{words[0]}" or "{words[1]}"', code="bad_field")
    return body
