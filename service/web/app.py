"""All endpoints as one ASGI application."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from service.answering.budget import Budgets
from service.answering.intake import Intake
from service.answering.recent import Recents
from service.answering.replay import Replayer
from service.answering.tool_answers import ToolAnswers
from service.errors import ApiError, Forbidden, NotFound, StoreError, Unavailable
from service.flows import Catalogue
from service.inbox import Inbox
from service.llm.circuit_breaker import CircuitBreakers
from service.operations.actions import Actions
from service.operations.bulk import Bulk
from service.operations.controls import Controls
from service.operations.events import Hub
from service.operations.health import Health
from service.operations.insights import Insights
from service.operations.live import Live
from service.operations.metrics import Metrics
from service.operations.scrape import Scrape
from service.operations.stats import Statistics
from service.settings import Settings
from service.web.ask import Ask
from service.web.auth import Access
from service.web.console.pages import Console
from service.web.console.render import Pages
from service.web.controls import ControlsApi
from service.web.decisions import Decisions
from service.web.events import Events
from service.web.flows import FlowsApi
from service.web.guard import Guard, Handler
from service.web.health import Probes
from service.web.http import Tokens, error_response
from service.web.many_requests import ManyRequests
from service.web.openapi import Described
from service.web.origin import Names, refusal
from service.web.replay import Replay
from service.web.requests import Acts, Requests, Stats
from service.web.routes import ENDPOINTS
from service.web.sessions import Sessions
from service.web.table import Needs
from service.web.webhook import Webhook

log = logging.getLogger("emqx-gpt.web")


class Parts(Protocol):
    """What the endpoints work on; bootstrap makes it."""

    settings: Settings
    flows: Catalogue
    store: Inbox
    intake: Intake
    tool_answers: ToolAnswers
    recents: Recents
    hub: Hub
    live: Live
    statistics: Statistics
    insights: Insights
    actions: Actions
    bulk: Bulk
    controls: Controls
    health: Health
    breakers: CircuitBreakers
    budgets: Budgets
    replayer: Replayer
    metrics: Metrics
    scrape: Scrape
    now: Callable[[], int]

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


def create_app(parts: Parts) -> Starlette:
    """The application; its lifespan starts and stops the service."""
    settings = parts.settings
    access = Access(settings.operator_tokens, settings.viewer_tokens)
    webhook = Webhook(
        parts.intake,
        Tokens("WEBHOOK_TOKEN", settings.webhook_tokens),
        parts.metrics,
        max_body=settings.max_body,
        now=parts.now,
        names=settings.names,
        own_token=settings.own_webhook_token,
        known=lambda name: name in parts.flows.flows,
        recents=parts.recents,
        address=settings.client_identity == "address",
        tool_answers=parts.tool_answers,
    )
    guard = Guard(access, parts.store)
    handlers = _handlers(parts, guard)
    routes: list[BaseRoute] = [Route("/webhook", webhook)]
    for endpoint in ENDPOINTS:
        if endpoint.access is not Needs.WEBHOOK:
            handler = guard.guarded(endpoint, handlers[endpoint.name])
            routes.append(Route(endpoint.path, handler, methods=[endpoint.method]))
    routes += Console(parts, access, Pages()).routes()

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await parts.start()
        try:
            yield
        finally:
            await parts.stop()

    app = Starlette(
        routes=routes,
        middleware=[Middleware(_OfNoStrangePage, names=settings.names)],
        lifespan=lifespan,
        exception_handlers={
            ApiError: _api_error,
            StoreError: _store_error,
            HTTPException: _http_error,
            Exception: _fault,
        },
    )
    app.state.webhook = webhook
    app.state.max_body = settings.max_body
    app.state.max_connections = settings.max_connections
    return app


def _handlers(parts: Parts, guard: Guard) -> dict[str, Handler]:
    """The handler of each endpoint, by its name in `routes`."""
    requests = Requests(parts.insights, parts.actions, parts.settings.max_body)
    decisions = Decisions(parts.insights, parts.actions, parts.tool_answers)
    many = ManyRequests(parts.store, parts.bulk)
    controls = ControlsApi(parts.controls, parts.breakers)
    described = Described(ENDPOINTS)
    sessions = Sessions(guard.access, guard.note)
    probes = Probes(parts.health, parts.scrape, access=guard.access)
    return {
        "ask": Ask(
            parts.flows,
            parts.intake,
            parts.hub,
            parts.insights,
            max_body=parts.settings.max_body,
            now=parts.now,
        ),
        "requests.list": requests.list,
        "requests.show": requests.show,
        "requests.retry": requests.retry,
        "requests.confirm": decisions.confirm,
        "requests.settle": decisions.settle,
        "requests.forget": requests.remove,
        "requests.replay": Replay(parts.store, parts.replayer),
        "requests.retry_many": many.retry,
        "requests.export": many.export,
        "jobs.show": many.job,
        "flows": FlowsApi(parts.flows).list,
        "controls.list": controls.list,
        "controls.pause": controls.pause,
        "controls.resume": controls.resume,
        "stats": Stats(parts.statistics),
        "conversations.list": requests.conversations,
        "conversations.show": requests.conversation,
        "conversations.forget": requests.forget,
        "events": Events(parts.live),
        "acts.list": Acts(parts.store).list,
        "session.show": sessions.show,
        "session.login": sessions.login,
        "session.logout": sessions.logout,
        "described.openapi": described.openapi,
        "described.docs": described.docs,
        "described.style": described.style,
        "healthz": probes.healthz,
        "readyz": probes.readyz,
        "metrics": probes.metrics,
    }


class _OfNoStrangePage:
    """Refuses what a page of another site makes a browser send. The webhook sees to it itself,
    since EMQX drops a message on a 403."""

    def __init__(self, app: ASGIApp, names: Names) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and scope["path"] != "/webhook":
            why = refusal(scope["headers"], self._names)
            if why is not None:
                app = error_response(Forbidden(why))
        await app(scope, receive, send)


async def _api_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return error_response(error)


async def _store_error(request: Request, error: Exception) -> Response:
    return error_response(Unavailable(str(error), code="store_busy", retry_after=2))


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 404:
        return error_response(NotFound(f"nothing at {request.url.path}"))
    made = ApiError(error.detail, code=f"http_{error.status_code}")
    made.status = error.status_code
    answer = error_response(made)
    answer.headers.update(error.headers or {})
    return answer


async def _fault(request: Request, error: Exception) -> Response:
    log.error("an internal error at %s", request.url.path, exc_info=error)
    return error_response(ApiError("an internal error; see the service's log"))
