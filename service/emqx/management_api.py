"""EMQX's management API with httpx: connectors, actions, rules, their tests and counters.

For EMQX 5.4 and later; 6.x answers the same calls. Every call raises BrokerError, its `code`
one of: broker_unreachable, broker_timeout, broker_unauthorized, broker_forbidden,
broker_refused (400), broker_not_found, broker_unavailable (5xx), broker_strange.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from service.bodies import parsed
from service.emqx.http_answers import HEADERS, fetch
from service.emqx.reasons import reason
from service.emqx.resources import Kind
from service.errors import BrokerError

Json = dict[str, Any]
_PAGE = 500
SCOPES = "data_integration and cluster_operations"
_COLLECTION = {"connector": "/connectors", "action": "/actions", "rule": "/rules"}


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A broker's version; `text` as EMQX writes it, such as 5.8.9."""

    major: int
    minor: int
    text: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str) -> Version:
        """Raises BrokerError for what is no version."""
        found = re.match(r"[ve]?(\d+)\.(\d+)", text)
        if not found:
            raise BrokerError(f"EMQX calls its version {text!r}", code="broker_strange")
        return cls(int(found[1]), int(found[2]), text)


class EmqxAdmin:
    """One broker's management API. `timeout` in seconds for each call.

    What is in `hide` is struck out of every error message: EMQX quotes configuration.
    """

    def __init__(
        self,
        url: str,
        key: tuple[str, str],
        *,
        hide: tuple[str, ...] = (),
        timeout: float = 20.0,
    ) -> None:
        self.url = url
        self._hide = tuple(secret for secret in (*hide, key[1]) if secret)
        try:
            self._http = httpx.AsyncClient(
                base_url=f"{url}/api/v5",
                auth=httpx.BasicAuth(*key),
                timeout=timeout,
                headers=HEADERS,
                limits=httpx.Limits(max_connections=2, max_keepalive_connections=2),
            )
        except httpx.InvalidURL:
            raise BrokerError(f"EMQX_URL {url!r} is no URL", code="broker_unreachable") from None

    async def __aenter__(self) -> EmqxAdmin:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def running(self) -> None:
        """Raises BrokerError unless the broker is up; needs no key."""
        answer = await self._send("GET", "/status", auth=None)
        if answer.status_code != 200:
            raise self._error(answer, "status")

    async def version(self) -> Version:
        """The oldest version among the nodes that run."""
        nodes = await self._get("/nodes")
        versions = [
            Version.parse(str(node["version"]))
            for node in (nodes if isinstance(nodes, list) else [])
            if isinstance(node, dict) and node.get("version")
        ]
        if not versions:
            raise BrokerError("EMQX names no running node", code="broker_strange")
        return min(versions)

    async def get(self, kind: Kind, ident: str) -> Json | None:
        """One resource as EMQX reads it back, secrets masked; None where there is none."""
        answer = await self._send("GET", _path(kind, ident))
        if answer.status_code == 404:
            return None
        return _object(self._checked(answer, ident))

    async def rules(self) -> list[Json]:
        """All rules, everybody's, but not those of a namespace (EMQX 6.1 and later)."""
        found: list[Json] = []
        for page in range(1, 1000):
            answer = await self._get(
                "/rules", {"limit": _PAGE, "page": page, "only_global": "true"}
            )
            data = answer.get("data") if isinstance(answer, dict) else answer
            rows = [row for row in (data if isinstance(data, list) else []) if "id" in row]
            found += rows
            if len(rows) < _PAGE:
                break
        return found

    async def try_connector(self, ident: str, body: Mapping[str, Any]) -> str | None:
        """Let EMQX connect once, without making anything; why it can't, or None."""
        resource_type, _, name = ident.partition(":")
        named = {"type": resource_type, "name": name}
        answer = await self._send("POST", "/connectors_probe", {**named, **body})
        fields = _json(answer)
        if isinstance(fields, dict) and fields.get("code") == "TEST_FAILED":
            return self._said(fields) or "no reason given"
        self._checked(answer, f"connector {ident}")
        return None

    async def create(self, kind: Kind, ident: str, body: Mapping[str, Any]) -> None:
        """Make a resource; broker_refused also where there is one of that name."""
        resource_type, _, name = ident.partition(":")
        named = {"id": ident} if kind == "rule" else {"type": resource_type, "name": name}
        self._checked(await self._send("POST", _COLLECTION[kind], {**named, **body}), ident)

    async def replace(self, kind: Kind, ident: str, body: Mapping[str, Any]) -> None:
        """Put `body` in the place of a resource's whole configuration."""
        self._checked(await self._send("PUT", _path(kind, ident), dict(body)), ident)

    async def delete(self, kind: Kind, ident: str) -> bool:
        """False where there was none."""
        answer = await self._send("DELETE", _path(kind, ident))
        if answer.status_code == 404:
            return False
        self._checked(answer, ident)
        return True

    async def test_sql(self, sql: str, context: Mapping[str, Any]) -> Json | None:
        """What a rule's SQL makes of a message; None where it does not match.

        Raises broker_refused, with EMQX's reason, for SQL that it can't run.
        """
        answer = await self._send("POST", "/rule_test", {"sql": sql, "context": dict(context)})
        if answer.status_code == 412:
            return None
        return _object(self._checked(answer, "rule SQL"))

    async def metrics(self, kind: Kind, ident: str) -> dict[str, float]:
        """The counters of an action or a rule, summed over the cluster."""
        answer = _object(await self._get(f"{_path(kind, ident)}/metrics"))
        return _numbers(answer.get("metrics"))

    async def node_metrics(self, kind: Kind, ident: str) -> dict[str, dict[str, float]]:
        """The same by node; nothing where there is no such resource."""
        answer = await self._send("GET", f"{_path(kind, ident)}/metrics")
        if answer.status_code == 404:
            return {}
        nodes = _object(self._checked(answer, ident)).get("node_metrics")
        return {
            str(node.get("node")): _numbers(node.get("metrics"))
            for node in (nodes if isinstance(nodes, list) else [])
            if isinstance(node, dict)
        }

    async def _get(self, path: str, query: Mapping[str, int | str] | None = None) -> Any:
        return self._checked(await self._send("GET", path, query=query), path)

    async def _send(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        query: Mapping[str, int | str] | None = None,
        auth: Any = httpx.USE_CLIENT_DEFAULT,
    ) -> httpx.Response:
        try:
            request = self._http.build_request(
                method,
                path,
                params=query,
                content=None if body is None else orjson.dumps(body),
                headers=None if body is None else {"content-type": "application/json"},
            )
            return await fetch(self._http, request, auth)
        except httpx.TimeoutException:
            raise BrokerError(f"EMQX at {self.url} did not answer", code="broker_timeout") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = str(error) or type(error).__name__
            raise BrokerError(
                f"EMQX at {self.url} can't be reached: {why}", code="broker_unreachable"
            ) from None

    def _checked(self, answer: httpx.Response, what: str) -> Any:
        if answer.is_success:
            return _json(answer)
        raise self._error(answer, what)

    def _said(self, fields: Any) -> str:
        said = reason(fields)
        for secret in self._hide:
            said = said.replace(secret, "******")
        return said

    def _error(self, answer: httpx.Response, what: str) -> BrokerError:
        status = answer.status_code
        fields = _json(answer)
        said = self._said(fields)
        forbidden = isinstance(fields, dict) and fields.get("code") == "API_KEY_NOT_ALLOW"
        if status == 401 and not forbidden:
            message = "EMQX does not know the API key, its secret is wrong, or it is disabled"
            return BrokerError(message, code="broker_unauthorized", status=status)
        if status in (401, 403):
            message = (
                "the API key may not do this: it needs the role administrator and, where keys have "
                f"scopes (EMQX 6.2.1 and later), {SCOPES}"
            )
            return BrokerError(message, code="broker_forbidden", status=status)
        if status == 404:
            code, message = "broker_not_found", f"EMQX has no {what}: {said}"
        elif 400 <= status < 500:
            code, message = "broker_refused", f"EMQX refused {what}: {said}"
        else:
            code, message = "broker_unavailable", f"EMQX answered {status} for {what}: {said}"
        return BrokerError(message.rstrip(": "), code=code, status=status)


def _path(kind: Kind, ident: str) -> str:
    return f"{_COLLECTION[kind]}/{urllib.parse.quote(ident, safe=':')}"


def _json(answer: httpx.Response) -> Any:
    try:
        return parsed(answer.content)
    except ValueError:
        return answer.text


def _numbers(counters: Any) -> dict[str, float]:
    found = counters if isinstance(counters, dict) else {}
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _object(answer: Any) -> Json:
    return answer if isinstance(answer, dict) else {}
