"""One message through the whole loop: published over EMQX, answered, and its times.

The broker's rule and the service treat it like any device's message; it costs one model call.
It has a conversation of its own where the flow's topic lets it, and that is forgotten after.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from service.domain import Publish, State
from service.emqx.findings import Finding, fail, ok, skip
from service.emqx.publish_api import Emqx
from service.errors import EmqxGptError
from service.flows import Flow, Flows

TITLE = "a message through the whole loop"
_TEXT = "This is a test by emqx-gpt doctor. Answer with the one word: ok"


class LoopError(EmqxGptError):
    """The service's own API could not be asked."""

    code = "service_unreachable"


def suitable(flows: Flows, name: str | None = None) -> Flow | None:
    """The flow to try: `name`, or the first that a harmless text message fits."""
    if name is not None:
        return flows.flows.get(name)
    plain = [
        flow
        for flow in flows.flows.values()
        if flow.input == "text"
        and not flow.where
        and not flow.tools
        and not flow.tools_from
        and flow.require is None
        and not flow.retain
        and flow.reply is not None
    ]
    return max(plain, key=lambda flow: bool(flow.request[0].names), default=None)


@dataclass(frozen=True, slots=True)
class Loop:
    """`url` and `token` are the service's own and OPERATOR_TOKEN. Waits in seconds."""

    emqx: Emqx
    flow: Flow | None
    url: str
    token: str
    arrives: float = 10.0
    ends: float = 90.0
    tell: Callable[[str], None] = lambda _: None

    async def run(self) -> Finding:
        """Raises EmqxGptError if broker or service can't be asked."""
        if self.flow is None:
            return skip(TITLE, "no flow takes a plain text message", "name one with --flow")
        if not self.token:
            return skip(TITLE, "OPERATOR_TOKEN is not set here, so its fate can't be looked up")
        topic = self._topic(self.flow)
        headers = {"authorization": f"Bearer {self.token}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=10) as http:
            if not await self._known(http, self.flow.name):
                return fail(
                    TITLE,
                    f"the process at {self.url} does not know flow {self.flow.name}: it was "
                    "started with another flows.toml",
                    "restart the service",
                )
            last = await self._newest(http)
            begun = time.monotonic()
            await self.emqx.publish(Publish(topic=topic, payload=_TEXT.encode()))
            row = await self._until(http, topic, last, begun + self.arrives, ended=False)
            if row is None:
                return fail(
                    TITLE,
                    f"published to {topic}, but it did not reach the service within "
                    f"{self.arrives:g} s",
                    "look at the rule's and the action's counters in EMQX's dashboard",
                )
            arrived = time.monotonic() - begun
            row = await self._until(http, topic, last, begun + self.ends, ended=True) or row
            took = time.monotonic() - begun
            await self._forget(http, row)
        return self._finding(row, arrived, took)

    def _finding(self, row: dict[str, Any], arrived: float, took: float) -> Finding:
        times = (
            f"flow {row['flow']}: stored after {arrived:.2f} s, {row['state']} after {took:.2f} s"
        )
        if row["state"] == State.DONE:
            return ok(TITLE, times)
        error = row.get("error") or {}
        why = f": {error.get('message') or error.get('code')}" if error else ""
        if not State(row["state"]).ended:
            why = ", and not ended yet"
        return fail(TITLE, times + why, f"emqx-gpt requests show {row['id']}")

    def _topic(self, flow: Flow) -> str:
        own = f"doctor-{secrets.token_hex(4)}"
        levels = flow.request[0].filter.split("/")
        return "/".join(own if level in ("+", "#") else level for level in levels)

    async def _known(self, http: httpx.AsyncClient, flow: str) -> bool:
        answer = await self._ask(http, "GET", f"/conversations/{flow}/doctor")
        return answer.status_code != 404

    async def _newest(self, http: httpx.AsyncClient) -> int:
        rows = await self._rows(http, 1)
        return int(rows[0]["seq"]) if rows else 0

    async def _until(
        self, http: httpx.AsyncClient, topic: str, last: int, deadline: float, *, ended: bool
    ) -> dict[str, Any] | None:
        found, told = None, time.monotonic()
        while (now := time.monotonic()) < deadline:
            if now >= told + 5:
                told = now
                self.tell(f"waiting, {deadline - now:.0f} s more at most")
            for row in await self._rows(http, 50):
                if row["topic"] == topic and int(row["seq"]) > last:
                    found = row
            if found and (not ended or State(found["state"]).ended):
                return found
            await asyncio.sleep(0.1)
        return found

    async def _rows(self, http: httpx.AsyncClient, limit: int) -> list[dict[str, Any]]:
        answer = await self._ask(http, "GET", "/requests", {"limit": str(limit)})
        try:
            rows = answer.json()["requests"]
        except (ValueError, KeyError, TypeError):
            raise LoopError(f"{self.url} is not this service: check --webhook-url") from None
        return list(rows)

    async def _forget(self, http: httpx.AsyncClient, row: dict[str, Any]) -> None:
        conversation = str(row.get("conversation") or "")
        if "doctor-" in conversation:
            path = f"/conversations/{row['flow']}/{urllib.parse.quote(conversation, safe='')}"
            await self._ask(http, "DELETE", path)

    async def _ask(
        self, http: httpx.AsyncClient, method: str, path: str, query: dict[str, str] | None = None
    ) -> httpx.Response:
        try:
            answer = await http.request(method, path, params=query)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = str(error) or type(error).__name__
            raise LoopError(f"the service at {self.url} can't be reached: {why}") from None
        if answer.status_code in (401, 403):
            raise LoopError(f"the service at {self.url} refuses our OPERATOR_TOKEN")
        if answer.is_error and answer.status_code != 404:
            raise LoopError(f"the service at {self.url} answers {answer.status_code}")
        return answer
