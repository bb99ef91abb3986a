"""The REST side: EMQX's `/api/v5` as recorded from 5.8.9."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from secrets import compare_digest
from typing import TYPE_CHECKING
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from service.demo.standin import publishing, rest_resources, rest_rules
from service.demo.standin.message import NODE, rfc3339
from service.demo.standin.resources import Missing, Refused
from service.demo.standin.schema import Invalid

if TYPE_CHECKING:
    from service.demo.standin.mqtt_broker.core import MqttBroker
    from service.demo.standin.resources import Resources

VERSION = "5.8.9"
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
        self, broker: MqttBroker, resources: Resources, api_keys: Mapping[str, str]
    ) -> None:
        self._broker = broker
        self._resources = resources
        self._api_keys = api_keys
        guarded: list[tuple[str, str, Handler]] = [
            ("/nodes", "GET", self.nodes),
            ("/publish", "POST", self.publish),
            ("/publish/bulk", "POST", self.publish_bulk),
            ("/mqtt/retainer/message/{topic:path}", "GET", self.retained),
            ("/mqtt/retainer/message/{topic:path}", "DELETE", self.drop_retained),
        ]
        configured = [
            *rest_resources.Handlers(resources).routes(),
            *rest_rules.Handlers(resources).routes(),
        ]
        guarded += [(path, method, self._one_at_a_time(run)) for path, method, run in configured]
        routes = [Route("/status", self.status)]
        routes += [
            Route(path, self._guard(handler), methods=[method]) for path, method, handler in guarded
        ]
        self.app = Starlette(
            routes=[Mount("/api/v5", routes=routes)],
            exception_handlers={404: _no_such_path, 405: _no_such_method},
        )

    def _guard(self, handler: Handler) -> Handler:
        """API key first; then what handlers raise becomes what EMQX would answer."""

        async def guarded(request: Request) -> Response:
            if (refusal := self._refusal(request)) is not None:
                return refusal
            try:
                return await handler(request)
            except Missing as exc:
                return error(404, "NOT_FOUND", str(exc))
            except Refused as exc:
                return error(400, exc.code, str(exc.errors), **exc.more)
            except Invalid as exc:
                said = json.dumps(exc.as_json(), separators=(",", ":"))
                return error(400, "BAD_REQUEST", said)
            except publishing.NotJson:
                return error(400, "BAD_REQUEST", "Invalid json message received")

        return guarded

    def _one_at_a_time(self, handler: Handler) -> Handler:
        async def alone(request: Request) -> Response:
            if request.method == "GET":
                return await handler(request)
            async with self._resources.changing:
                return await handler(request)

        return alone

    def _refusal(self, request: Request) -> Response | None:
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            message = "Support authorization: basic/bearer "
            return error(401, "AUTHORIZATION_HEADER_ERROR", message)
        try:
            key, _, secret = base64.b64decode(credentials, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            key = secret = ""
        expected = self._api_keys.get(key)
        if expected is not None and compare_digest(expected.encode(), secret.encode()):
            return None
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
            "version": VERSION,
            "edition": "Opensource",
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

    async def retained(self, request: Request) -> Response:
        message = self._broker.find_retained(_topic(request))
        if message is None:
            return error(404, "NOT_FOUND", "Viewed message doesn't exist")
        return JSONResponse(
            {
                "msgid": message.id,
                "topic": message.topic,
                "qos": message.qos,
                "payload": base64.b64encode(message.payload).decode(),
                "publish_at": rfc3339(message.received_at),
                "from_clientid": message.clientid,
                "from_username": message.username or "",
            }
        )

    async def drop_retained(self, request: Request) -> Response:
        if self._broker.retained.pop(_topic(request), None) is None:
            return error(404, "NOT_FOUND", "Viewed message doesn't exist")
        return Response(status_code=204)


_NOT_FOUND = (
    "<html><head><title>404 - NOT FOUND</title></head><body><h1>404 - NOT FOUND</h1></body></html>"
)


async def _no_such_path(_: Request, __: Exception) -> Response:
    return HTMLResponse(_NOT_FOUND, 404)


async def _no_such_method(_: Request, __: Exception) -> Response:
    return Response(status_code=405)


def _topic(request: Request) -> str:
    """The last segment of the path as sent: `%2F` is part of a topic, `/` is not."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    segment = raw.partition(b"/mqtt/retainer/message/")[2].decode("ascii", "replace")
    if "/" in segment:
        raise HTTPException(404)
    return unquote(segment)
