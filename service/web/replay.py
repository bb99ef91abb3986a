"""POST /requests/{id}/replay: ask again and compare; nothing is published."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from service.answering.replay import Replayer
from service.errors import BadRequest, Conflict
from service.flows import ModelRef
from service.inbox import Inbox
from service.operations.insights import found
from service.web.auth import is_form
from service.web.http import JSON, json_object

BODY = 4096  # bytes
AT_ONCE = 4  # in one process; devices come first


class Replay:
    """The endpoint."""

    def __init__(self, store: Inbox, replayer: Replayer) -> None:
        self._store = store
        self._replayer = replayer
        self._running = 0

    async def __call__(self, request: Request) -> Response:
        with self._replayer.pinned():
            return await self._again(request)

    async def _again(self, request: Request) -> Response:
        model = None
        if int(request.headers.get("content-length") or 0) > 0 and not is_form(request):
            body = await json_object(request, BODY)
            if set(body) - {"model"} or not isinstance(body.get("model", ""), str):
                raise BadRequest('only "model", a string, can be given', code="bad_field")
            model = body.get("model") or None
        row = await found(self._store, request.path_params["id"])
        if not row.state.ended:
            raise Conflict(f"it is {row.state}; only a request that has ended is asked again")
        flow = self._replayer.flow_of(row.flow, self._model(model))
        if flow is None:
            raise Conflict(f"there is no flow {row.flow!r} any more")
        if self._running >= AT_ONCE:
            raise Conflict(f"{AT_ONCE} replays run already; wait for one to end")
        if model:
            request.state.target = f"{row.id} ({model})"
        self._running += 1
        try:
            compared = await self._replayer.again(self._store, row, flow)
        finally:
            self._running -= 1
        return JSON(compared.as_json())

    def _model(self, text: str | None) -> ModelRef | None:
        """Raises BadRequest: a provider that nobody knows."""
        if text is None:
            return None
        model = ModelRef.parse(text)
        known = self._replayer.providers
        if not model.model or model.provider not in known:
            listed = ", ".join(known)
            raise BadRequest(
                f"no provider {model.provider!r}; there are: {listed}", code="bad_field"
            )
        return model
