"""The REST side: EMQX's `/api/v5` as recorded from 5.8.9."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from secrets import compare_digest
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from service.demo.standin import publishing, rest_clients, rest_resources, rest_rules
from service.demo.standin.access import ApiKey, refusal
from service.demo.standin.published import NODE
from service.demo.standin.refusal import Invalid
from service.demo.standin.resources import Missing, Refused

if TYPE_CHECKING:
    from service.demo.standin.mqtt_broker.core import MqttBroker
    from service.demo.standin.resources import Resources

_UNMEASURED = {
    "max_fds": 0,
    "memory_total": "0.00G",
    "memory_used": "0.00M",
    "otp_release": "stand-in",
    "process_available": 0,
    "process_used": 0,
}
Handler = Callable[[Request], Awaitable[Response]]


def error(status: int, code: str, message: str, **more: object) -> JSONResponse:
    """EMQX's error shape."""
    return JSONResponse({"code": code, "message": message, **more}, status)


class RestApi:
    """The handlers. `app` is the ASGI application."""

    def __init__(
        self,
        broker: MqttBroker,
        resources: Resources,
        api_keys: Mapping[str, ApiKey],
        namespaces: Mapping[str, Resources] | None = None,
    ) -> None:
        self._broker = broker
        self._api_keys = api_keys
        common: list[tuple[str, str, Handler]] = [
            ("/nodes", "GET", self.nodes),
            ("/publish", "POST", self.publish),
            ("/publish/bulk", "POST", self.publish_bulk),
            *rest_clients.Handlers(broker).routes(),
        ]
        spaces = namespaces or {}
        # one table of handlers for each namespace: a key sees its own
        self._tables = {
            found.namespace: {
                (path, method): _one_at_a_time(handler, found)
                for path, method, handler in (
                    *rest_resources.Handlers(found, spaces).routes(),
                    *rest_rules.Handlers(found, spaces).routes(),
                )
            }
            for found in (resources, *spaces.values())
        }
        routes = [Route("/status", self.status)]
        routes += [
            Route(path, self._guard(path, method, handler), methods=[method])
            for path, method, handler in common
        ]
        routes += [
            Route(path, self._guard(path, method, None), methods=[method])
            for path, method in self._tables[None]
        ]
        self.app = Starlette(
            routes=[Mount("/api/v5", routes=routes)],
            exception_handlers={404: _no_such_path, 405: _no_such_method},
        )

    def _guard(self, path: str, method: str, common: Handler | None) -> Handler:
        """API key first; then what handlers raise becomes what EMQX would answer."""

        async def guarded(request: Request) -> Response:
            key = self._key_of(request)
            if isinstance(key, Response):
                return key
            if (words := refusal(key, method, path)) is not None:
                return error(403, "UNAUTHORIZED_ROLE", words)
            handler = common or self._tables[key.namespace][path, method]
            try:
                return await handler(request)
            except Missing as exc:
                return error(404, exc.code, str(exc))
            except Refused as exc:
                return error(400, exc.code, str(exc.errors), **exc.more)
            except Invalid as exc:
                said = json.dumps(exc.as_json(), separators=(",", ":"))
                return error(400, "BAD_REQUEST", said)
            except publishing.NotJson:
                return error(400, "BAD_REQUEST", "Invalid json message received")

        return guarded

    def _key_of(self, request: Request) -> ApiKey | Response:
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            message = "Support authorization: basic/bearer "
            return error(401, "AUTHORIZATION_HEADER_ERROR", message)
        try:
            name, _, secret = base64.b64decode(credentials, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            name = secret = ""
        key = self._api_keys.get(name)
        if key is not None and compare_digest(key.secret.encode(), secret.encode()):
            return key
        return error(401, "BAD_API_KEY_OR_SECRET", "Check api_key/api_secret")

    async def status(self, _: Request) -> Response:
        said = f"Node {NODE} is started\nemqx is running"
        return PlainTextResponse(said, headers={"retry-after": "15"})

    async def nodes(self, _: Request) -> Response:
        clients = self._broker.client_count
        load = os.getloadavg()
        node = {
            **_UNMEASURED,
            "load1": round(load[0], 2),
            "load5": round(load[1], 2),
            "load15": round(load[2], 2),
            "node": NODE,
            "node_status": "running",
            "version": self._broker.version,
            "edition": "Opensource" if self._broker.version < "5.9" else "Enterprise",
            "role": "core",
            "connections": clients,
            "live_connections": clients,
            "cluster_sessions": len(self._broker.sessions),
            "uptime": self._broker.uptime_ms,
        }
        return JSONResponse([node])

    async def publish(self, request: Request) -> Response:
        status, answer = publishing.publish(
            self._broker, publishing.parse_json(await request.body())
        )
        return JSONResponse(answer, status)

    async def publish_bulk(self, request: Request) -> Response:
        status, answer = publishing.publish_bulk(
            self._broker, publishing.parse_json(await request.body())
        )
        return JSONResponse(answer, status)


_NOT_FOUND = (
    "<html><head><title>404 - NOT FOUND</title></head><body><h1>404 - NOT FOUND</h1></body></html>"
)


def _one_at_a_time(handler: Handler, resources: Resources) -> Handler:
    async def alone(request: Request) -> Response:
        if request.method == "GET":
            return await handler(request)
        async with resources.changing:
            return await handler(request)

    return alone


async def _no_such_path(_: Request, __: Exception) -> Response:
    return HTMLResponse(_NOT_FOUND, 404)


async def _no_such_method(_: Request, __: Exception) -> Response:
    return Response(status_code=405)
