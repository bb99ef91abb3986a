"""The way in for all endpoints: who calls, what the query says, and what was done, written down."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from service.errors import EmqxGptError
from service.inbox import Act, Inbox
from service.web.auth import Access, Who
from service.web.table import Endpoint, Needs, query

Handler = Callable[[Request], Awaitable[Response]]


class Guard:
    """Guards handlers. They find `request.state.who` and, checked, `request.state.query`."""

    def __init__(self, access: Access, store: Inbox) -> None:
        self.access = access
        self._store = store

    def guarded(self, endpoint: Endpoint, handler: Handler) -> Handler:
        """The handler behind all that its endpoint says."""

        async def enter(request: Request) -> Response:
            if endpoint.access is not Needs.OPEN:
                request.state.who = await self.access.authorize(request)
                if trust := request.scope.get("trust"):
                    trust()
            if not endpoint.open_query:
                request.state.query = query(endpoint, request.query_params)
            if endpoint.act is None:
                return await handler(request)
            return await self._noted(endpoint.act, request, handler)

        return enter

    async def _noted(self, act: str, request: Request, handler: Handler) -> Response:
        who: Who = request.state.who
        target = "/".join(str(value) for value in request.path_params.values())
        try:
            answer = await handler(request)
        except EmqxGptError as error:
            await self.note(who, act, target, error.code)
            raise
        detail = getattr(request.state, "target", target)  # what the handler knows better
        await self.note(who, act, detail, "ok")
        return answer

    async def note(self, who: Who, act: str, target: str, result: str) -> None:
        """Write down who did what. Raises StoreError."""
        await self._store.desk.note(Act(who.name, act, target, result))
