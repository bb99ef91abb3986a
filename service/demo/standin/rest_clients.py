"""The REST side's looks at clients, subscriptions, topics, retained messages and numbers."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.demo.standin.mqtt_broker.outbox import MAX_INFLIGHT, MAX_QUEUED
from service.demo.standin.mqtt_broker.reason_codes import Reason
from service.demo.standin.mqtt_broker.session import Session
from service.demo.standin.published import NODE, Message, rfc3339
from service.demo.standin.resources import Missing, Refused
from service.mqtt.topics import matches

if TYPE_CHECKING:
    from service.demo.standin.mqtt_broker.core import MqttBroker
    from service.demo.standin.mqtt_broker.router import Subscription

Handler = Callable[[Request], Awaitable[Response]]
_GONE = "Viewed message doesn't exist"


class Handlers:
    """One handler for each call. What they raise is turned into answers by `rest`."""

    def __init__(self, broker: MqttBroker) -> None:
        self._broker = broker

    def routes(self) -> list[tuple[str, str, Handler]]:
        return [
            ("/clients", "GET", self.clients),
            ("/clients/{clientid}", "GET", self.client),
            ("/clients/{clientid}", "DELETE", self.kick),
            ("/clients/{clientid}/subscriptions", "GET", self.client_subscriptions),
            ("/subscriptions", "GET", self.subscriptions),
            ("/topics", "GET", self.topics),
            ("/stats", "GET", self.stats),
            ("/metrics", "GET", self.metrics),
            ("/mqtt/retainer/messages", "GET", self.all_retained),
            ("/mqtt/retainer/message/{topic:path}", "GET", self.retained),
            ("/mqtt/retainer/message/{topic:path}", "DELETE", self.drop_retained),
        ]

    async def clients(self, request: Request) -> Response:
        query = request.query_params
        names = query.getlist("clientid")
        found = [
            shown
            for session in self._broker.sessions.values()
            if (shown := _client(session))
            and (not names or session.client_id in names)
            and query.get("like_clientid", "") in session.client_id
            and query.get("username", shown["username"]) == shown["username"]
            and query.get("conn_state", _state(session)) == _state(session)
        ]
        return paged(request, found)

    async def client(self, request: Request) -> Response:
        return JSONResponse(_client(self._session(request)))

    async def kick(self, request: Request) -> Response:
        session = self._session(request)
        session.expiry = 0
        if session.link is not None:
            session.link.end(Reason.ADMINISTRATIVE_ACTION, "kicked out over REST")
        else:
            self._broker.discard(session)
        return Response(status_code=204)

    async def client_subscriptions(self, request: Request) -> Response:
        session = self._session(request)
        return JSONResponse(
            [_subscription(topic, one) for topic, one in session.subscriptions.items()]
        )

    async def subscriptions(self, request: Request) -> Response:
        query = request.query_params
        found = [
            shown
            for session in self._broker.sessions.values()
            for topic, one in session.subscriptions.items()
            if (shown := _subscription(topic, one))
            and query.get("clientid", session.client_id) == session.client_id
            and query.get("topic", one.filter) == one.filter
            and query.get("qos", str(one.options.qos)) == str(one.options.qos)
            and query.get("share_group", one.group) == one.group
            and ("match_topic" not in query or matches(one.filter, query["match_topic"]))
        ]
        return paged(request, found)

    async def topics(self, request: Request) -> Response:
        wanted = request.query_params.get("topic")
        found = {
            one.filter
            for session in self._broker.sessions.values()
            for one in session.subscriptions.values()
        }
        return paged(
            request,
            [{"topic": one, "node": NODE} for one in sorted(found) if wanted in (None, one)],
        )

    async def stats(self, request: Request) -> Response:
        broker = self._broker
        sessions = list(broker.sessions.values())
        counted = {
            "connections": broker.client_count,
            "live_connections": broker.client_count,
            "sessions": len(sessions),
            "cluster_sessions": len(sessions),
            "subscriptions": broker.subscription_count,
            "subscribers": sum(bool(one.subscriptions) for one in sessions),
            "topics": len({one.filter for s in sessions for one in s.subscriptions.values()}),
            "suboptions": broker.subscription_count,
            "subscriptions.shared": sum(
                one.group is not None for s in sessions for one in s.subscriptions.values()
            ),
            "retained": len(broker.retained),
            "delayed": 0,
            "channels": broker.client_count,
        }
        found: dict[str, object] = {}
        for name, number in counted.items():
            found |= {f"{name}.count": number, f"{name}.max": number}
        if request.query_params.get("aggregate") == "true":
            return JSONResponse(found)
        return JSONResponse([{"node": NODE, **found}])

    async def metrics(self, request: Request) -> Response:
        found = dict(self._broker.counters)
        if request.query_params.get("aggregate") == "true":
            return JSONResponse(found)
        return JSONResponse([{"node": NODE, **found}])

    async def all_retained(self, request: Request) -> Response:
        wanted = request.query_params.get("topic", "#")
        kept = self._broker.retained.values()
        found = [_retained(one) for one in kept if matches(wanted, one.topic)]
        return paged(request, [{k: v for k, v in one.items() if k != "payload"} for one in found])

    async def retained(self, request: Request) -> Response:
        message = self._broker.find_retained(_topic(request))
        if message is None:
            raise Missing(_GONE)
        return JSONResponse(_retained(message))

    async def drop_retained(self, request: Request) -> Response:
        if self._broker.retained.pop(_topic(request), None) is None:
            raise Missing(_GONE)
        return Response(status_code=204)

    def _session(self, request: Request) -> Session:
        found = self._broker.sessions.get(request.path_params["clientid"])
        if found is None:
            error = Missing("Client ID not found")
            error.code = "CLIENTID_NOT_FOUND"
            raise error
        return found


def page_of(request: Request) -> tuple[int, int]:
    """Page and limit. Raises Refused."""
    query = request.query_params
    try:
        page, limit = int(query.get("page", "1")), int(query.get("limit", "100"))
    except ValueError:
        raise Refused("page and limit are integers") from None
    if page < 1 or limit < 1:
        raise Refused("page and limit are at least 1")
    return page, limit


def paged(request: Request, found: Sequence[object]) -> Response:
    page, limit = page_of(request)
    at = (page - 1) * limit
    meta = {"count": len(found), "hasnext": at + limit < len(found), "limit": limit, "page": page}
    return JSONResponse({"data": list(found[at : at + limit]), "meta": meta})


def _state(session: Session) -> str:
    return "connected" if session.link is not None else "disconnected"


def _client(session: Session) -> dict[str, object]:
    link = session.last_link
    assert link is not None
    assert link.hello is not None
    shown: dict[str, object] = {
        "clientid": session.client_id,
        "username": link.hello.username,
        "node": NODE,
        "connected": session.link is not None,
        "ip_address": link.peer[0],
        "port": link.peer[1],
        "proto_name": "MQTT",
        "proto_ver": link.version,
        "keepalive": link.hello.keepalive,
        "clean_start": link.hello.clean_start,
        "expiry_interval": session.expiry,
        "is_bridge": False,
        "created_at": rfc3339(session.created_at),
        "connected_at": rfc3339(session.connected_at),
        "subscriptions_cnt": len(session.subscriptions),
        "subscriptions_max": "infinity",
        "inflight_cnt": session.outbox.inflight,
        "inflight_max": MAX_INFLIGHT,
        "mqueue_len": session.outbox.queued,
        "mqueue_max": MAX_QUEUED,
        "mqueue_dropped": session.outbox.dropped,
        "awaiting_rel_cnt": len(session.awaiting_release),
        "recv_pkt": link.received,
        "send_pkt": link.sent,
    }
    if session.link is None:
        shown["disconnected_at"] = rfc3339(session.disconnected_at)
    return shown


def _subscription(topic: str, one: Subscription) -> dict[str, object]:
    return {
        "topic": topic,
        "clientid": one.session.client_id,
        "qos": one.options.qos,
        "nl": int(one.options.no_local),
        "rap": int(one.options.retain_as_published),
        "rh": one.options.retain_handling,
        "node": NODE,
        "durable": False,
    }


def _retained(message: Message) -> dict[str, object]:
    return {
        "msgid": message.id,
        "topic": message.topic,
        "qos": message.qos,
        "payload": base64.b64encode(message.payload).decode(),
        "publish_at": rfc3339(message.received_at),
        "from_clientid": message.clientid,
        "from_username": message.username or "",
    }


def _topic(request: Request) -> str:
    """The last segment of the path as sent: `%2F` is part of a topic, `/` is not."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    segment = raw.partition(b"/mqtt/retainer/message/")[2].decode("ascii", "replace")
    if "/" in segment:
        raise HTTPException(404)
    return unquote(segment)
