"""One call to an OpenAI-compatible model, its answer or its error in our words.

Speaks Chat Completions through the openai SDK with the SDK's own retries off. Responses are
read raw: compatible servers vary, and building the SDK's models costs more than the parsing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx2
import openai
import orjson

from service.errors import ErrorKind, ModelError
from service.flows import ModelRef, Provider
from service.llm.answers import Completion, Pieces, garbage, read
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
        self._providers = providers
        self._uncounted: set[str] = set()
        self._clients = {
            name: openai.AsyncOpenAI(
                api_key=keys.get(name) or "none",
                base_url=provider.base_url,
                max_retries=0,
                timeout=None,
                http_client=self._http,
            )
            for name, provider in providers.items()
        }
        self._heads = {name: _head(client) for name, client in self._clients.items()}

    async def close(self) -> None:
        await self._http.aclose()

    async def complete(self, question: Question) -> Completion:
        """Ask and wait for the whole answer. Raises ModelError."""
        # The SDK's client and its transport, but not its `create`: that walks all messages by their
        # types and builds the same request anew each time (docs/performance.md).
        url, headers = self._heads[question.model.provider]
        with self._errors(question):
            content = _json(self._body(question))
            request = httpx2.Request("POST", url, headers=headers, content=content)
            async with asyncio.timeout(question.timeout):
                response = await self._http.send(request)
            if not response.is_success:
                raise refused(response)
        return read(response.content, question.model)

    async def stream(self, question: Question, on_delta: OnDelta) -> Completion:
        """Ask and hand over each piece of text as it comes. Raises ModelError."""
        pieces = Pieces(str(question.model))
        with self._errors(question):
            async with asyncio.timeout(question.timeout):
                stream = await self._begin(question)
                async with stream:
                    async for chunk in stream:
                        try:
                            text = pieces.add(chunk)
                        except (AttributeError, TypeError, IndexError):
                            raise garbage() from None
                        if text:
                            await on_delta(text)
        return pieces.completion()

    async def _begin(self, question: Question) -> Any:
        """A stream that counts its tokens, or no limit would hold; where a server can, that is."""
        provider = question.model.provider
        create = self._clients[provider].chat.completions.create
        # extra_body: a compatible server may know options that the SDK does not.
        fields = self._body(question)
        body = {
            "model": fields.pop("model"),
            "messages": fields.pop("messages"),
            "extra_body": fields,
            "stream": True,
        }
        if provider not in self._uncounted:
            try:
                return await create(**body, stream_options={"include_usage": True})
            except openai.APIStatusError as error:
                if error.status_code not in (400, 422) or "stream_options" not in str(error.body):
                    raise
                self._uncounted.add(provider)
        return await create(**body)

    async def models(self, provider: str) -> list[str]:
        """The provider's model names (GET /models). Raises ModelError."""
        question = Question(ModelRef(provider, "-"), (), timeout=10.0)
        with self._errors(question):
            async with asyncio.timeout(question.timeout):
                page = await self._clients[provider].models.list()
                return [model.id for model in page.data]

    @contextlib.contextmanager
    def _errors(self, question: Question) -> Iterator[None]:
        """The SDK's errors in our words."""
        try:
            yield
        except openai.APIStatusError as error:
            raise status_error(error, question.model) from None
        except _BROKEN as error:
            reason = broken(error)
            if reason is None:
                raise ModelError(
                    f"the model did not answer within {question.timeout:g} s",
                    code="model_timeout",
                    kind=ErrorKind.PASSING,
                ) from None
            url = self._clients[question.model.provider].base_url
            raise ModelError(
                f"the model's server at {url.host} can't be reached: {reason}",
                code="model_connection",
                kind=ErrorKind.PASSING,
            ) from None
        except (httpx2.HTTPError, openai.OpenAIError, ValueError) as error:
            raise ModelError(
                f"the model's answer could not be read: {type(error).__name__}",
                code="model_garbage",
                kind=ErrorKind.PASSING,
            ) from None

    def _body(self, question: Question) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": question.model.model,
            "messages": question.messages,
            **question.options,
        }
        if question.max_tokens is not None:
            name = self._providers[question.model.provider].max_tokens_name
            body[name] = question.max_tokens
        return body


def _head(client: openai.AsyncOpenAI) -> tuple[httpx2.URL, httpx2.Headers]:
    """Where this client asks, and with which headers."""
    found = {**client.default_headers, **client.auth_headers}
    headers = {name: value for name, value in found.items() if isinstance(value, str)}
    return client.base_url.join("chat/completions"), httpx2.Headers(headers)


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # lone surrogates, which some devices send
        return json.dumps(body).encode()
