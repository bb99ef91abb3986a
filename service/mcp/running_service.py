"""The running service, as `emqx-gpt mcp` asks it: its flows, and answers of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import httpx

from service.errors import ApiError
from service.flows.tables import FLOW_NAME

WAIT = 280  # seconds for an answer; the service lets nobody wait longer than 300
CONNECT = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class FlowShown:
    """A flow that can be asked. `acts`: it may do something beside answering."""

    name: str
    description: str | None
    input: str
    memory: bool
    acts: bool
    collects: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, with the conversation in which it stands. `text` is None where the flow says
    nothing: `state` tells why."""

    id: str
    text: str | None
    conversation: str
    state: str


class RunningService:
    """`url` is the service's, `token` its OPERATOR_TOKEN."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url.rstrip("/")
        headers = {"authorization": f"Bearer {token}"} if token else {}
        timeout = httpx.Timeout(WAIT + 30, connect=CONNECT)
        self._http = httpx.AsyncClient(
            base_url=self._url, headers=headers, timeout=timeout, trust_env=False
        )

    async def flows(self) -> list[FlowShown]:
        """Those that can be asked with a text. Raises ApiError."""
        answer = await self._send("GET", "/flows")
        try:
            found = [
                FlowShown(**{name: one[name] for name in FlowShown.__slots__})
                for one in answer.json()["flows"]
            ]
        except (ValueError, KeyError, TypeError):
            raise ApiError(f"what answers at {self._url} is not emqx-gpt") from None
        return [flow for flow in found if flow.input != "image" and not flow.collects]

    async def ask(self, flow: str, text: str, conversation: str | None) -> Answered:
        """Raises ApiError, also if there is no answer yet."""
        if re.fullmatch(FLOW_NAME, flow) is None:  # it would be another path, by our token
            raise ApiError(f"there is no flow {flow!r}")
        body: dict[str, Any] = {"text": text}
        body |= {"conversation": conversation} if conversation else {}
        headers = {"prefer": f"wait={WAIT}"}
        answer = await self._send("POST", f"/ask/{flow}", json=body, headers=headers)
        said = answer.json()
        if answer.status_code == 202:
            raise ApiError(
                f"no answer within {WAIT} s; it is still worked on as request {said['id']}"
            )
        return Answered(said["id"], said["text"], said["conversation"], said["state"])

    async def close(self) -> None:
        await self._http.aclose()

    async def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = await self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            what = f"{self._url} does not answer ({type(error).__name__})"
            raise ApiError(
                f"{what}: start the service (emqx-gpt serve), or name it with --url"
            ) from None
        if answer.status_code in (200, 202):
            return answer
        try:
            said = answer.json()["error"]
            text = f"{said['message']} ({said['code']})"
        except (ValueError, KeyError, TypeError):
            text = f"the service answered {answer.status_code}"
        if answer.status_code == 401:
            text += "; OPERATOR_TOKEN stands in the .env of the service"
        raise ApiError(text)
