"""Publishing through EMQX's REST API (`/api/v5/publish`, `/publish/bulk`) with httpx.

What the broker answers is recorded in the test samples: 200 delivered, 202 nobody
subscribed, 400 this message is refused, 401/403 key, 503 could not dispatch. Whatever else
answers with 200 or 202 has published nothing.
"""

from __future__ import annotations

import base64
import email.utils
import time
import urllib.parse
from collections.abc import Sequence
from typing import Any

import httpx
import orjson

from service.bodies import parsed
from service.domain import Publish
from service.emqx import reply_rule, resource_names
from service.emqx.http_answers import HEADERS, fetch
from service.errors import BrokerError

NO_SUBSCRIBERS = 16
Delivered = bool | None
Result = Delivered | BrokerError
"""True: somebody got it; False: nobody was there; None: not known, it went through the reply rule;
BrokerError: refused."""
_ONE, _BULK = "/publish", "/publish/bulk"
_NO_AUTH = httpx.Auth()  # not None: then a user name in the URL would replace our header
# What a refused message is told with: never in EMQX's words, which repeat what was refused.
_REFUSED = {
    144: "the topic is not one that can be published to",
    151: "the message is larger than EMQX takes (mqtt.max_packet_size)",
}
_KEY = "check EMQX_API_KEY and EMQX_API_SECRET, and that the key is enabled and not expired"


def of_all(results: Sequence[Result]) -> Result:
    """What became of the pieces together: the worst of it; None if there are none."""
    for result in results:
        if isinstance(result, BrokerError):
            return result
    if False in results:
        return False
    return None if None in results or not results else True


class Emqx:
    """EMQX's REST API for publishing. `timeout` in seconds for each call.

    `prefix` and `tokens` (WEBHOOK_TOKEN) say which reply rule is ours, and what it obeys.
    """

    def __init__(
        self,
        url: str,
        key: tuple[str, str],
        *,
        admin: tuple[str, str] | None = None,
        prefix: str = resource_names.PREFIX,
        tokens: Sequence[str] = (),
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
        self._reply_topic = reply_rule.topic(resource_names.check_prefix(prefix))
        self._reply_keys = [reply_rule.key(token, prefix) for token in tokens]
        self._clock: float | None = None  # EMQX's minus time.monotonic(), in seconds
        self._urls = {path: httpx.URL(f"{url}/api/v5{path}") for path in (_ONE, _BULK)}

    def _headers(self, key: tuple[str, str]) -> httpx.Headers:
        basic = base64.b64encode(":".join(key).encode()).decode()
        headers = httpx.Headers(self._http.headers)
        headers.update(HEADERS)
        headers.update({"authorization": f"Basic {basic}", "content-type": "application/json"})
        return headers

    async def close(self) -> None:
        await self._http.aclose()

    async def publish(self, message: Publish) -> Delivered:
        """Publish one message; False: nobody is subscribed. Raises BrokerError."""
        await self._know_clock((message,))
        answer = await self._publish(_ONE, _written(self.body(message)))
        if answer.status_code in (200, 202):
            result = _result(message, _json(answer))
            if not isinstance(result, BrokerError):
                return result
        raise _error(answer)

    async def publish_bulk(self, messages: Sequence[Publish]) -> list[Result]:
        """Publish several at once; a result for each, in order.

        Raises BrokerError for the list as a whole; with `refused` one of them is refused
        and nothing was published.
        """
        await self._know_clock(messages)
        answer = await self._publish(_BULK, _written([self.body(message) for message in messages]))
        results = _json(answer)
        if answer.status_code not in (200, 202, 503) or not isinstance(results, list):
            raise _error(answer)
        if len(results) != len(messages):
            raise _error(answer)
        return [_result(message, item) for message, item in zip(messages, results, strict=True)]

    async def retained(self, topic: str) -> bytes | None:
        """The retained message of a topic, None where there is none. Raises BrokerError."""
        url = f"{self.url}/api/v5/mqtt/retainer/message/{urllib.parse.quote(topic, safe='')}"
        answer = await self._send("GET", url, self._admin_head)
        fields = _json(answer)
        if answer.status_code == 404 and isinstance(fields, dict):
            return None
        if answer.status_code == 403:
            raise BrokerError(
                "the API key may not read retained messages: set EMQX_ADMIN_KEY to one with the "
                "role administrator and, where keys have scopes, the scope connections",
                code="broker_forbidden",
                status=403,
            )
        if answer.status_code != 200 or not isinstance(fields, dict):
            raise _error(answer)
        return base64.b64decode(fields.get("payload", ""))

    async def ping(self) -> None:
        """Raises BrokerError unless the API is up and takes the key."""
        # An empty topic is refused with 400 by a broker that took the key; nothing is published.
        probe = orjson.dumps({"topic": "", "payload": ""})
        answer = await self._publish(_ONE, probe)
        if answer.status_code != 400 or not isinstance(_json(answer), dict):
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
            answer = await fetch(self._http, request, _NO_AUTH)
        except httpx.TimeoutException:
            raise BrokerError(f"EMQX at {self.url} did not answer", code="broker_timeout") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise BrokerError(
                f"EMQX at {self.url} can't be reached: {type(error).__name__}",
                code="broker_unreachable",
            ) from None
        if (date := email.utils.parsedate_tz(answer.headers.get("date"))) is not None:
            self._clock = email.utils.mktime_tz(date) - time.monotonic()
        return answer

    async def _know_clock(self, messages: Sequence[Publish]) -> None:
        """An envelope's time limit is by EMQX's clock, which each of its answers tells."""
        if self._clock is None and any(reply_rule.needed(message) for message in messages):
            await self.ping()

    def body(self, message: Publish) -> dict[str, Any]:
        """A publish as the API takes it. Payloads go as base64: text must be printable."""
        if reply_rule.needed(message):
            return self._envelope(message)
        return {
            "topic": message.topic,
            "qos": message.qos,
            "retain": message.retain,
            "payload": base64.b64encode(message.payload).decode(),
            "payload_encoding": "base64",
            "properties": _properties(message),
        }

    def _envelope(self, message: Publish) -> dict[str, Any]:
        if not self._reply_keys:
            raise BrokerError(
                "the Correlation-Data or the topic is binary, and WEBHOOK_TOKEN is not set: only "
                "the reply rule can give it back, and it obeys only what is signed with the token",
                code="publish_refused",
                refused=True,
            )
        now = time.time() if self._clock is None else time.monotonic() + self._clock
        envelope = reply_rule.envelope(message, self._reply_keys, now).decode()
        return {"topic": self._reply_topic, "qos": 1, "payload": envelope}


def _written(document: Any) -> bytes:
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:
        raise BrokerError(
            "a message can't be written as JSON", code="publish_refused", refused=True
        ) from None


def _properties(message: Publish) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    if message.content_type:
        properties["content_type"] = message.content_type
    if message.correlation:
        properties["correlation_data"] = message.correlation.decode()
    if message.response_topic is not None:
        properties["response_topic"] = message.response_topic
    if message.expiry is not None:
        properties["message_expiry_interval"] = message.expiry
    if message.user_properties:
        properties["user_properties"] = dict(message.user_properties)
    return properties


def _result(message: Publish, item: Any) -> Result:
    code = item.get("reason_code") if isinstance(item, dict) else None
    published = code == NO_SUBSCRIBERS or (isinstance(item, dict) and "id" in item)
    if published:
        return None if reply_rule.needed(message) else code is None
    if code in _REFUSED:
        return BrokerError(_REFUSED[code], code="publish_refused", refused=True)
    return BrokerError("EMQX did not publish a message", code="publish_failed")


def _json(answer: httpx.Response) -> Any:
    try:
        return parsed(answer.content)
    except ValueError:
        return None


def _error(answer: httpx.Response) -> BrokerError:
    status = answer.status_code
    fields = _json(answer)
    if status == 413:  # a proxy's
        return BrokerError(_REFUSED[151], code="publish_refused", refused=True, status=status)
    if status == 400 and isinstance(fields, dict):
        said = _REFUSED.get(fields.get("reason_code", 0), "EMQX does not take this message")
        return BrokerError(said, code="publish_refused", refused=True, status=status)
    if status in (401, 403):
        return BrokerError(
            f"EMQX refused the API key ({status}): {_KEY}",
            code="broker_unauthorized",
            status=status,
        )
    if status >= 500:
        said = f"EMQX's API answered {status}"
        return BrokerError(said, code="broker_unavailable", status=status)
    return BrokerError(
        f"what answers at EMQX_URL ({status}) is not EMQX's API: is it the address of the REST "
        "API (port 18083), without /api/v5?",
        code="broker_unavailable",
        status=status,
    )
