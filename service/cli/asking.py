"""`emqx-gpt ask`: a question to the running service, its reply as it comes."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson

from service import safe_text, settings
from service.cli.common import say, say_json
from service.errors import ApiError
from service.settings import Settings

PATIENCE = 310.0  # seconds without a word


def service_url(loaded: Settings) -> str:
    """Where the service of these settings is reached from this machine."""
    host = loaded.host if loaded.host not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{loaded.port}"


async def ask(
    flow: str,
    text: str,
    *,
    topic: str | None,
    conversation: str | None,
    publish: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Print the reply. Raises ApiError: nobody answers, or what the service said."""
    loaded = settings.load()
    base = (url or service_url(loaded)).rstrip("/")
    body: dict[str, Any] = {"text": text, "publish": publish}
    body |= {"topic": topic} if topic else {}
    body |= {"conversation": conversation} if conversation else {}
    headers = {"accept": "text/event-stream"}
    if loaded.operator_tokens:
        headers["authorization"] = f"Bearer {loaded.operator_tokens[0]}"
    timeout = httpx.Timeout(PATIENCE, connect=5)
    try:
        async with (
            httpx.AsyncClient(timeout=timeout, trust_env=False) as http,
            http.stream("POST", f"{base}/ask/{flow}", json=body, headers=headers) as answer,
        ):
            if answer.status_code != 200:
                await answer.aread()
                raise _refused(answer)
            await _show(_events(answer), as_json=as_json)
    except httpx.HTTPError as error:
        what = f"{base} does not answer ({type(error).__name__})"
        raise ApiError(
            f"{what}: start the service (emqx-gpt serve), or name it with --url; for a running"
            " demo: emqx-gpt --env demo.env ask …"
        ) from None


def _refused(answer: httpx.Response) -> ApiError:
    try:
        said = answer.json()["error"]
        text = f"{said['message']} ({said['code']})"
    except (ValueError, KeyError, TypeError):
        text = f"the service answered {answer.status_code}"
    if answer.status_code == 401:
        text += "; OPERATOR_TOKEN stands in the .env of the service"
    return ApiError(text)


async def _events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.aiter_lines():
        data = line.removeprefix("data:").strip()
        if line.startswith("data:") and data != "[DONE]":
            yield orjson.loads(data)


async def _show(events: AsyncIterator[dict[str, Any]], *, as_json: bool) -> None:
    written = ""
    async for event in events:
        if "error" in event:
            if written:
                print()
            raise ApiError(f"{event['error']['message']} ({event['error']['code']})")
        if "reply" in event:
            reply = event["reply"]
            if as_json:
                say_json(reply)
            elif not written:
                say(reply["text"] if reply["text"] is not None else f"({reply['state']})")
            elif not written.endswith("\n"):
                print()
        elif as_json:
            continue
        elif "restart" in event and written:
            print("\n…", file=sys.stderr)
            written = ""
        elif "delta" in event:
            written += event["delta"]
            print(safe_text.shown(event["delta"]), end="", flush=True)
