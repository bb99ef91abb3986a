"""Asks models over the openai SDK's HTTP client: messages in, text, deltas and tokens out.

The SDK's own `create` and `post` make each request anew, which costs more than all the rest
that is done for it (docs/adr/0006); its transport, headers and stream decoder are used.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx2
import openai
import orjson

from service.errors import ErrorKind, ModelError
from service.flows import ModelRef, Provider
from service.llm.answers import Completion, Pieces, read
from service.llm.refusals import broken, refused, status_error

KEEP_ALIVE = 60.0  # seconds; at the SDK's 5 most lone questions would wait for a handshake

OnDelta = Callable[[str], Awaitable[None]]
_BROKEN = (
    TimeoutError,
    openai.APIConnectionError,
    httpx2.TransportError,
    aiohttp.ClientError,  # the SDK's transport lets some through, on what is no HTTP
)


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask. `options` go into the body as they are; `timeout` in seconds, in total."""

    model: ModelRef
    messages: tuple[Mapping[str, Any], ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    timeout: float = 60.0


@dataclass(slots=True)
class _Server:
    """A provider's server: where it is asked, and what was learned of it."""

    provider: Provider
    sdk: openai.AsyncOpenAI
    url: httpx2.URL
    headers: httpx2.Headers
    counts_streams: bool = True  # it knows stream_options


class Gpt:
    """All providers behind one door. `keys` by provider name; pools fit `concurrency`."""

    def __init__(
        self, providers: Mapping[str, Provider], keys: Mapping[str, str], *, concurrency: int
    ) -> None:
        limits = httpx2.Limits(
            max_connections=concurrency,
            max_keepalive_connections=concurrency,
            keepalive_expiry=KEEP_ALIVE,
        )
        self._http = openai.DefaultAioHttpClient(limits=limits, timeout=None)
        self._servers = {
            name: self._server(provider, keys.get(name) or "none")
            for name, provider in providers.items()
        }

    def _server(self, provider: Provider, key: str) -> _Server:
        sdk = openai.AsyncOpenAI(
            api_key=key,
            base_url=provider.base_url,
            max_retries=0,
            timeout=None,
            http_client=self._http,
        )
        found = {**sdk.default_headers, **sdk.auth_headers}
        headers = {name: value for name, value in found.items() if isinstance(value, str)}
        url = sdk.base_url.join("chat/completions")
        return _Server(provider, sdk, url, httpx2.Headers(headers))

    async def close(self) -> None:
        await self._http.aclose()

    async def ask(self, question: Question, on_delta: OnDelta | None = None) -> Completion:
        """One call; with `on_delta` each piece of text is handed over as it comes.

        Raises ModelError.
        """
        server = self._servers[question.model.provider]
        with _errors(server, question):
            async with asyncio.timeout(question.timeout):
                async with self._answer(server, question, on_delta is not None) as response:
                    if on_delta is None:
                        return read(await response.aread(), question.model)
                    pieces = Pieces(str(question.model))
                    events = openai.AsyncStream(
                        cast_to=object, response=response, client=server.sdk
                    )
                    async for event in events:
                        if text := pieces.add(event):
                            await on_delta(text)
        return pieces.completion()

    @contextlib.asynccontextmanager
    async def _answer(
        self, server: _Server, question: Question, stream: bool
    ) -> AsyncIterator[httpx2.Response]:
        """The response to a question, its body not read yet. Raises what `_errors` takes."""
        body = _body(server, question, stream)
        response = await self._send(server, body)
        if "stream_options" in body and await _unknown(response, "stream_options"):
            server.counts_streams = False  # its tokens are not counted, but it answers
            del body["stream_options"]
            response = await self._send(server, body)
        try:
            if not response.is_success:
                await response.aread()
                raise refused(response)
            yield response
        finally:
            await response.aclose()

    async def _send(self, server: _Server, body: Mapping[str, Any]) -> httpx2.Response:
        request = httpx2.Request("POST", server.url, headers=server.headers, content=_json(body))
        return await self._http.send(request, stream=True)

    async def models(self, provider: str) -> list[str]:
        """The provider's model names (GET /models). Raises ModelError."""
        server = self._servers[provider]
        question = Question(ModelRef(provider, "-"), (), timeout=10.0)
        with _errors(server, question):
            async with asyncio.timeout(question.timeout):
                page = await server.sdk.models.list()
                return [model.id for model in page.data]


@contextlib.contextmanager
def _errors(server: _Server, question: Question) -> Iterator[None]:
    """The SDK's errors in our words."""
    try:
        yield
    except openai.APIStatusError as error:
        raise status_error(error, question.model) from None
    except _BROKEN as error:
        reason = broken(error)
        if reason is None:
            raise ModelError(
                f"the model did not answer within {question.timeout:.3g} s",
                code="model_timeout",
                kind=ErrorKind.PASSING,
            ) from None
        raise ModelError(
            f"the model's server at {server.url.host} can't be reached: {reason}",
            code="model_connection",
            kind=ErrorKind.PASSING,
        ) from None
    except (httpx2.HTTPError, openai.OpenAIError, ValueError) as error:
        raise ModelError(
            f"the model's answer could not be read: {type(error).__name__}",
            code="model_garbage",
            kind=ErrorKind.PASSING,
        ) from None


def _body(server: _Server, question: Question, stream: bool) -> dict[str, Any]:
    """Without usage in a stream no limit of tokens would hold; where a server can, that is."""
    body = {
        "model": question.model.model,
        "messages": question.messages,
        **question.options,
    }
    if question.max_tokens is not None:
        body[server.provider.max_tokens_name] = question.max_tokens
    if stream:
        body["stream"] = True
        if server.counts_streams:
            body["stream_options"] = {"include_usage": True}
    return body


async def _unknown(response: httpx2.Response, name: str) -> bool:
    """Whether the server refused the request for an option that it does not know."""
    if response.status_code not in (400, 422):
        return False
    return name.encode() in await response.aread()


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # lone surrogates, which some devices send
        return json.dumps(body).encode()
