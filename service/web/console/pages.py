"""The pages: what each shows. All they do to requests and flows goes through the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from service.answering.budget import Budgets
from service.domain import ENDS, State
from service.errors import ApiError, BadRequest, NotFound, StoreError, Unauthorized
from service.flows import Catalogue, Flow
from service.inbox import Filter, Inbox
from service.llm.circuit_breaker import CircuitBreakers
from service.operations.controls import Controls
from service.operations.insights import Insights, when
from service.operations.live import Live
from service.operations.stats import WINDOWS, Statistics
from service.operations.waterfall import waterfall
from service.web.auth import Access
from service.web.console.conversation import exchanges
from service.web.console.render import LANGUAGE, LANGUAGES, STATIC, THEME, THEMES, YEAR, Pages
from service.web.requests import filter_of
from service.web.sessions import inside
from service.web.table import FILTERS, PAGE, TEXT, Param, checked

WHOLE = 200_000  # characters of a payload that are shown
TALK = 30  # exchanges of a conversation on one page
DEAD = (State.FAILED, State.EXPIRED)
_LIST = (*FILTERS, *PAGE)


class PageParts(Protocol):
    """What the pages show."""

    flows: Catalogue
    store: Inbox
    live: Live
    statistics: Statistics
    insights: Insights
    controls: Controls
    breakers: CircuitBreakers
    budgets: Budgets


class Console:
    """The pages' handlers, and their routes."""

    def __init__(self, parts: PageParts, access: Access, pages: Pages) -> None:
        self._parts = parts
        self._access = access
        self._pages = pages

    def routes(self) -> list[Route | Mount]:
        shown: Mapping[str, Callable[[Request], Awaitable[Response]]] = {
            "/": self.home,
            "/console/requests": self.requests,
            "/console/requests/{id}": self.request,
            "/console/conversations": self.conversations,
            "/console/conversation": self.conversation,
            "/console/dead": self.dead,
            "/console/flows": self.flows,
            "/console/flows/{name}": self.flow,
            "/console/acts": self.acts,
        }
        guarded = [
            Route(path, self._guarded(page), methods=["GET"], include_in_schema=False)
            for path, page in shown.items()
        ]
        return [
            *guarded,
            Route("/login", self._seen(self.login), methods=["GET"], include_in_schema=False),
            Route("/console/set", self._seen(self.set), methods=["GET"], include_in_schema=False),
            Mount("/console/static", _Static(directory=STATIC)),
            Route("/console/{rest:path}", self._guarded(self.nowhere), include_in_schema=False),
        ]

    # The way in

    def _guarded(
        self, page: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def enter(request: Request) -> Response:
            try:
                request.state.who = await self._access.authorize(request)
            except Unauthorized:
                path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
                return RedirectResponse(f"/login?next={quote(path)}", status_code=303)
            return await page(request)

        return self._seen(enter)

    def _seen(
        self, page: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Errors as a page."""

        async def look(request: Request) -> Response:
            try:
                return await page(request)
            except ApiError as error:
                return await self._error(request, error.status, error.code, error.message)
            except StoreError as error:
                return await self._error(request, 503, error.code, str(error))

        return look

    async def _error(self, request: Request, status: int, code: str, message: str) -> Response:
        values = {"status": status, "code": code, "message": message}
        return await self._pages.page(request, "error.html", values, status)

    async def login(self, request: Request) -> Response:
        """Where a token is asked for."""
        to = inside(request.query_params.get("next", "/"))
        values = {"to": to, "code": request.query_params.get("error")}
        return await self._pages.page(request, "login.html", values)

    async def set(self, request: Request) -> Response:
        """Keeps a language or a theme in the browser."""
        answer = RedirectResponse(inside(request.query_params.get("next", "/")), status_code=303)
        for name, cookie, known in (("lang", LANGUAGE, LANGUAGES), ("theme", THEME, THEMES)):
            if (value := request.query_params.get(name)) in known:
                answer.set_cookie(
                    cookie, str(value), max_age=YEAR, path="/", samesite="lax", httponly=True
                )
        return answer

    # The pages

    async def home(self, request: Request) -> Response:
        """Live: the chain, what waits, what comes."""
        board = await self._parts.live.board()
        hour = None
        if board["totals"] is not None:
            hour = await self._parts.statistics.of("hour")
        return await self._pages.page(request, "live.html", {"board": board, "hour": hour})

    async def requests(self, request: Request) -> Response:
        """The inbox, by a filter."""
        return await self._list(request, "requests.html", {})

    async def dead(self, request: Request) -> Response:
        """What failed or came too late."""
        given = dict(request.query_params)
        if given.get("state") not in DEAD:
            given["state"] = State.FAILED
        dead = (await self._parts.store.stats()).dead
        counts = {str(state): dead.get(state, 0) for state in DEAD}
        return await self._list(request, "dead.html", {"counts": counts}, given)

    async def _list(
        self,
        request: Request,
        template: str,
        more: Mapping[str, Any],
        given: Mapping[str, str] | None = None,
    ) -> Response:
        given = dict(request.query_params) if given is None else given
        wrong = None
        found: dict[str, Any] = {"requests": [], "next": None, "looked_to": None}
        try:
            query = checked(_LIST, given)
            found = await self._parts.insights.requests(
                filter_of(query), limit=query["limit"], before=query["before"]
            )
        except BadRequest as error:
            wrong = error.message
        names = [param.name for param in FILTERS]
        asked = {name: given[name] for name in names if given.get(name)}
        older = urlencode({**asked, "before": found["next"]}) if found["next"] else None
        values = {
            "page": found,
            "asked": asked,
            "query": urlencode(asked),
            "older": older,
            "wrong": wrong,
            "first": "before" not in given,
            "states": [str(one) for one in State],
            "flows": list(self._parts.flows.flows),
            **more,
        }
        return await self._pages.page(request, template, values, 400 if wrong else 200)

    async def request(self, request: Request) -> Response:
        """One request as a waterfall."""
        found = await self._parts.insights.request(request.path_params["id"])
        values = {
            "request": found,
            "bars": waterfall(found),
            "ended": found["state"] in ENDS,
            "dead": found["state"] in DEAD,
            "known": found["flow"] in self._parts.flows.flows,
            "shown": WHOLE,
        }
        return await self._pages.page(request, "request.html", values)

    async def conversations(self, request: Request) -> Response:
        """Those with the latest requests first."""
        query = checked((Param("flow", "", TEXT), *PAGE), request.query_params)
        page = await self._parts.insights.conversations(
            limit=query["limit"], before=query["before"], flow=query["flow"]
        )
        more = {"before": page["next"], **({"flow": query["flow"]} if query["flow"] else {})}
        values = {
            "page": page,
            "flow": query["flow"],
            "flows": list(self._parts.flows.flows),
            "older": urlencode(more) if page["next"] else None,
        }
        return await self._pages.page(request, "conversations.html", values)

    async def conversation(self, request: Request) -> Response:
        """One as a chat, with a box to ask."""
        named = (Param("flow", "", TEXT), Param("conversation", "", TEXT), *PAGE)
        query = checked(named, request.query_params)
        if not query["flow"] or not query["conversation"]:
            raise BadRequest("name a flow and a conversation", code="bad_parameter")
        flow, conversation = query["flow"], query["conversation"]
        page = await self._parts.insights.talk(
            flow, conversation, limit=TALK, before=query["before"]
        )
        if not page["requests"] and not query["before"]:
            raise NotFound(f"no conversation {conversation!r} of flow {flow!r}")
        where = {"flow": flow, "conversation": conversation}
        older = urlencode({**where, "before": page["next"]}) if page["next"] else None
        known = self._parts.flows.flows.get(flow)
        values = {
            **where,
            "exchanges": exchanges(page["requests"]),
            "older": older,
            "topic": page["requests"][0]["topic"] if page["requests"] else None,
            "askable": known is not None and known.input != "image",
            "remembers": known is not None and known.history is not None,
        }
        return await self._pages.page(request, "conversation.html", values)

    async def flows(self, request: Request) -> Response:
        """Figures, pauses, circuits and budgets."""
        window = request.query_params.get("window", "hour")
        if window not in WINDOWS:
            window = "hour"
        stats = await self._parts.statistics.of(window)
        flows = self._parts.flows.file
        paused = {(one.kind, one.name): one for one in self._parts.controls.paused}
        circuits: dict[str, list[Any]] = {}
        for circuit in self._parts.breakers.states():
            circuits.setdefault(circuit.provider, []).append(circuit)
        used: dict[str, list[str]] = {name: [] for name in flows.providers}
        for flow in flows.flows.values():
            for model in flow.all_models:
                text = str(model)
                if text not in used.setdefault(model.provider, []):
                    used[model.provider].append(text)
        values = {
            "window": window,
            "windows": list(WINDOWS),
            "stats": stats,
            "flows": list(flows.flows.values()),
            "gone": [name for name in stats["flows"] if name and name not in flows.flows],
            "models": {name: _models(flow) for name, flow in flows.flows.items()},
            "providers": used,
            "paused": paused,
            "since": {key: when(one.since) for key, one in paused.items()},
            "circuits": circuits,
            "budgets": await self._parts.budgets.spent(),
        }
        return await self._pages.page(request, "flows.html", values)

    async def flow(self, request: Request) -> Response:
        """One flow, to be tried."""
        name = request.path_params["name"]
        flow = self._parts.flows.flows.get(name)
        if flow is None:
            known = ", ".join(self._parts.flows.flows)
            raise NotFound(f"no flow {name!r}; there are: {known}")
        latest = await self._parts.store.find(Filter(flow=name), limit=1)
        values = {
            "flow": flow,
            "models": _models(flow),
            "topics": [pattern.text for pattern in flow.request],
            "levels": list(dict.fromkeys(name for one in flow.request for name in one.names)),
            "latest": latest.rows[0].message.payload[:400].decode("utf-8", "replace")
            if latest.rows and flow.input != "image"
            else "",
        }
        return await self._pages.page(request, "flow.html", values)

    async def nowhere(self, request: Request) -> Response:
        """An address that somebody mistyped."""
        raise NotFound(f"no page at {request.url.path}")

    async def acts(self, request: Request) -> Response:
        """Who did what."""
        query = checked(PAGE, request.query_params)
        found = await self._parts.store.desk.acts(query["limit"], query["before"])
        more = found[-1].seq if len(found) == query["limit"] else None
        values = {
            "acts": [(when(one.at), one) for one in found],
            "older": urlencode({"before": more}) if more else None,
        }
        return await self._pages.page(request, "acts.html", values)


def _models(flow: Flow) -> list[str]:
    return [str(one) for one in flow.models]


class _Static(StaticFiles):
    """Files whose address changes with them."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        if answer.status_code == 200:
            answer.headers["cache-control"] = "public, max-age=31536000, immutable"
            answer.headers["x-content-type-options"] = "nosniff"
        return answer
