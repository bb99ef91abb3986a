"""Publishing through EMQX's REST API (`/api/v5/publish`, `/publish/bulk`) with httpx.

What the broker answers is recorded in the test samples: 200 delivered, 202 nobody
subscribed, 400 this message is refused, 401/403 key, 503 could not dispatch.
"""

from __future__ import annotations

import base64
import urllib.parse
from collections.abc import Sequence
from typing import Any

import httpx
import orjson

from service.domain import Publish
from service.errors import BrokerError
from service.rulesql.reserved import REPLY_TOPIC

NO_SUBSCRIBERS = 16
Delivered = bool | None  # None: unknown, it went through the reply rule
Result = Delivered | BrokerError
_ONE, _BULK = "/publish", "/publish/bulk"
_NO_AUTH = httpx.Auth()  # not None: then a user name in the URL would replace our header
_REFUSED = {144: "topic_name_invalid", 151: "packet_too_large"}


class Emqx:
    """EMQX's REST API for publishing. `timeout` in seconds for each call."""

    def __init__(
        self,
        url: str,
        key: tuple[str, str],
        *,
        admin: tuple[str, str] | None = None,
        connections: int = 4,
        timeout: float = 10.0,
    ) -> None:
        self.url = url
        self._http = httpx.AsyncClient(
            timeout=timeout,
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        )
        self._timeout = {"timeout": httpx.Timeout(timeout).as_dict()}
        # Made once: httpx takes longer to make a request than to send it.
        self._head = self._headers(key)
        self._admin_head = self._headers(admin or key)
        self._urls = {path: httpx.URL(f"{url}/api/v5{path}") for path in (_ONE, _BULK)}

    def _headers(self, key: tuple[str, str]) -> httpx.Headers:
        basic = base64.b64encode(":".join(key).encode()).decode()
        headers = httpx.Headers(self._http.headers)
        headers.update({"authorization": f"Basic {basic}", "content-type": "application/json"})
        return headers

    async def close(self) -> None:
        await self._http.aclose()

    async def publish(self, message: Publish) -> Delivered:
        """Publish one message; False: nobody is subscribed. Raises BrokerError."""
        answer = await self._publish(_ONE, _written(body(message)))
        if answer.status_code in (200, 202):
            return _delivered(message, _json(answer))
        raise _error(answer)

    async def publish_bulk(self, messages: Sequence[Publish]) -> list[Result]:
        """Publish several at once; a result for each, in order.

        Raises BrokerError for the list as a whole; with `poison` one of them is refused
        and nothing was published.
        """
        answer = await self._publish(_BULK, _written([body(message) for message in messages]))
        results = _json(answer)
        if not isinstance(results, list) or len(results) != len(messages):
            raise _error(answer)
        if answer.status_code not in (200, 202, 503):
            raise _error(answer)
        return [_result(message, item) for message, item in zip(messages, results, strict=True)]

    async def retained(self, topic: str) -> bytes | None:
        """The retained message of a topic, None where there is none. Raises BrokerError."""
        url = f"{self.url}/api/v5/mqtt/retainer/message/{urllib.parse.quote(topic, safe='')}"
        answer = await self._send("GET", url, self._admin_head)
        if answer.status_code == 404:
            return None
        if answer.status_code != 200:
            raise _error(answer)
        return base64.b64decode(_json(answer).get("payload", ""))

    async def ping(self) -> None:
        """Raises BrokerError unless the API is up and takes the key."""
        # An empty topic is refused with 400 by a broker that took the key; nothing is published.
        probe = orjson.dumps({"topic": "", "payload": ""})
        answer = await self._publish(_ONE, probe)
        if answer.status_code != 400:
            raise _error(answer)

    async def _publish(self, path: str, content: bytes) -> httpx.Response:
        return await self._send("POST", self._urls[path], self._head, content)

    async def _send(
        self, method: str, url: httpx.URL | str, headers: httpx.Headers, content: bytes = b""
    ) -> httpx.Response:
        try:
            request = httpx.Request(
                method, url, headers=headers, content=content, extensions=self._timeout
            )
            return await self._http.send(request, auth=_NO_AUTH)
        except httpx.TimeoutException:
            raise BrokerError(f"EMQX at {self.url} did not answer", code="broker_timeout") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise BrokerError(
                f"EMQX at {self.url} can't be reached: {type(error).__name__}",
                code="broker_unreachable",
            ) from None


def _written(document: Any) -> bytes:
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:
        raise BrokerError(
            "a message can't be written as JSON", code="publish_refused", poison=True
        ) from None


def body(message: Publish) -> dict[str, Any]:
    """A publish as EMQX's API takes it; binary Correlation-Data goes through the reply rule."""
    if _needs_rule(message):
        return _envelope(message)
    fields: dict[str, Any] = {
        "topic": message.topic,
        "qos": message.qos,
        "retain": message.retain,
        "properties": _properties(message),
    }
    if _is_text(message.payload):
        return {**fields, "payload": message.payload.decode()}
    encoded = base64.b64encode(message.payload).decode()
    return {**fields, "payload": encoded, "payload_encoding": "base64"}


def _envelope(message: Publish) -> dict[str, Any]:
    envelope = {
        "topic": message.topic,
        "payload": message.payload.decode("utf-8", "replace"),
        "qos": message.qos,
        "retain": message.retain,
        "correlation": base64.b64encode(message.correlation or b"").decode(),
        "content_type": message.content_type or "text/plain",
        "user": dict(message.user_properties),
    }
    return {"topic": REPLY_TOPIC, "qos": 1, "payload": orjson.dumps(envelope).decode()}


def _properties(message: Publish) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    if message.content_type:
        properties["content_type"] = message.content_type
    if message.correlation:
        properties["correlation_data"] = message.correlation.decode()
    if message.expiry is not None:
        properties["message_expiry_interval"] = message.expiry
    if message.user_properties:
        properties["user_properties"] = dict(message.user_properties)
    return properties


def _needs_rule(message: Publish) -> bool:
    return message.correlation is not None and not _is_text(message.correlation)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _delivered(message: Publish, item: Any) -> Delivered:
    if _needs_rule(message):
        return None
    return isinstance(item, dict) and "id" in item


def _result(message: Publish, item: Any) -> Result:
    code = item.get("reason_code") if isinstance(item, dict) else None
    if code is None or code == NO_SUBSCRIBERS:
        return _delivered(message, item)
    reason = _REFUSED.get(code, str(item.get("message")))
    return BrokerError(
        f"EMQX did not publish: {reason}", code="publish_refused", poison=code in _REFUSED
    )


def _json(answer: httpx.Response) -> Any:
    try:
        return orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        return None


def _error(answer: httpx.Response) -> BrokerError:
    status = answer.status_code
    fields = _json(answer)
    reason = str(fields.get("message", "")) if isinstance(fields, dict) else ""
    reason = " ".join(reason.split())[:200]
    if status == 400:
        return BrokerError(
            f"EMQX refused a message: {reason}", code="publish_refused", poison=True, status=status
        )
    if status in (401, 403):
        return BrokerError(
            f"EMQX refused the API key ({status}): check EMQX_API_KEY and EMQX_API_SECRET",
            code="broker_unauthorized",
            status=status,
        )
    return BrokerError(
        f"EMQX's API answered {status} {reason}".rstrip(), code="broker_unavailable", status=status
    )
