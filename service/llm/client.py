"""Asks models over the openai SDK's HTTP client: messages in, text, deltas and tokens out.

The SDK's own `create` and `post` make each request anew, which costs more than all the rest
that is done for it (docs/adr/0006); its transport, headers and stream decoder are used.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import httpx2
import openai
import orjson

from service.bodies import ENCODINGS, BodyTooLarge, parsed
from service.errors import ErrorKind, ModelError
from service.flows import ModelRef, Provider
from service.llm import (
    addresses,
    chat_completions,
    failures,
    learning,
    model_lists,
    providers,
    responses,
)
from service.llm.answers import MAX_ANSWER, Completion, too_large
from service.llm.chat_completions import ChatAnswer, Question
from service.llm.providers import Api, Dialect
from service.llm.rate_limits import Granted
from service.llm.responses import ResponsesAnswer
from service.llm.transport import (
    BROKEN,
    FAILURES,
    MAX_ERROR,
    STREAM,
    WHOLE,
    Body,
    RefusedAnswer,
    beginning,
)

__all__ = ["Gpt", "OnDelta", "Question"]

_V1 = "is /v1 missing in its address?"
OFF_LOOP = 64 * 1024
"""Characters; what a model wrote at a greater length is looked at in a thread."""
KEEP_ALIVE = 60.0  # seconds; at the SDK's 5 most lone questions would wait for a handshake

KEPT = 500  # servers, those that are no provider any more among them

OnDelta = Callable[[str], Awaitable[None]]
log = logging.getLogger("emqx-gpt.model")


@dataclass(slots=True)
class _Server:
    """A provider's server: where it is asked, and how its models want it, as far as learned."""

    sdk: openai.AsyncOpenAI
    base_url: str
    headers: httpx2.Headers
    row: providers.ServerKind
    dialect: Dialect
    learned: dict[str, Dialect] = field(default_factory=dict)
    urls: dict[str, httpx2.URL] = field(default_factory=dict)

    def url(self, endpoint: str) -> httpx2.URL:
        if endpoint not in self.urls:
            self.urls[endpoint] = httpx2.URL(addresses.join(self.base_url, endpoint))
        return self.urls[endpoint]


class Providers(Protocol):
    """Who knows the providers."""

    def server(self, name: str) -> tuple[Provider, str]:
        """One and its key; an empty one: it needs none."""


class Gpt:
    """All providers behind one door. `servers` knows them by name; pools fit `concurrency`.

    `max_answer`: bytes of one answer, its reasoning and its tool calls together. `granted` hears
    what a model's server says of its limits.
    """

    def __init__(
        self,
        servers: Providers,
        *,
        concurrency: int,
        max_answer: int = MAX_ANSWER,
        granted: Callable[[ModelRef, Granted], None] | None = None,
    ) -> None:
        limits = httpx2.Limits(
            max_connections=concurrency,
            max_keepalive_connections=concurrency,
            keepalive_expiry=KEEP_ALIVE,
        )
        self._http = openai.DefaultAioHttpClient(limits=limits, timeout=None)
        self._granted = granted
        self._max_answer = max_answer
        self._servers = servers
        self._made: dict[tuple[Provider, str], _Server] = {}

    def _server(self, name: str) -> _Server:
        """The provider of this name as it is now; what was learned of it stays while it is the
        same, and calls to what it was before go on."""
        found = self._servers.server(name)
        made = self._made.get(found)
        if made is None:
            while len(self._made) >= KEPT:
                del self._made[next(iter(self._made))]
            made = self._made[found] = self._make(*found)
        return made

    def _make(self, provider: Provider, key: str) -> _Server:
        base_url = provider.base_url or providers.KINDS["openai"].address
        sdk = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=addresses.base_of(base_url),
            max_retries=0,
            timeout=None,
            http_client=self._http,
        )
        row = providers.find(provider.kind, base_url)
        if provider.api is not None:
            row = replace(row, responses_for="")
        found = {**sdk.default_headers, **sdk.auth_headers}
        headers = {name.lower(): value for name, value in found.items() if isinstance(value, str)}
        headers["accept-encoding"] = ENCODINGS
        del headers["authorization"]  # without a key none goes out: a wrong one may be refused
        if key:
            headers["authorization"] = f"Bearer {key}"
        if key and row.key_header != "authorization":
            headers[row.key_header] = key
        dialect = providers.dialect_of(row, provider)
        return _Server(sdk, base_url, httpx2.Headers(headers), row, dialect)

    async def close(self) -> None:
        await self._http.aclose()

    async def ask(
        self,
        question: Question,
        on_delta: OnDelta | None = None,
        on_restart: Callable[[], None] | None = None,
    ) -> Completion:
        """One answer; with `on_delta` each piece of text is handed over as it comes, and
        `on_restart` says that what came so far does not count.

        A server that refuses how it is asked is asked again as it wants it. Raises ModelError.
        """
        server = self._server(question.model.provider)
        name = question.model.model
        for _ in range(learning.MOST):
            dialect = self._dialect(server, question)
            stream = on_delta is not None or dialect.stream_only
            make = chat_completions.body if dialect.api is Api.CHAT else responses.body
            body = make(question, dialect, stream=stream)
            try:
                async with asyncio.timeout(question.timeout):
                    return await self._asked(server, question, dialect, body, on_delta, on_restart)
            except FAILURES as error:
                learned = None
                if isinstance(error, RefusedAnswer):
                    learned = _lesson(dialect, body, error, question)
                if learned is None:
                    raise _in_our_words(error, server, question) from None
            log.warning("model %s is asked in another way: %s", question.model, _said(learned))
            server.learned[name] = learned
        raise ModelError(
            f"model {question.model} refused each way to ask it",
            code="model_refused",
            kind=ErrorKind.MODEL,
        )

    def _dialect(self, server: _Server, question: Question) -> Dialect:
        dialect = server.learned.get(question.model.model, server.dialect)
        if dialect.api is Api.CHAT and providers.needs_responses(
            server.row, question.model.model, question.options
        ):
            return replace(dialect, api=Api.RESPONSES)
        return dialect

    async def _asked(
        self,
        server: _Server,
        question: Question,
        dialect: Dialect,
        body: Mapping[str, Any],
        on_delta: OnDelta | None,
        on_restart: Callable[[], None] | None,
    ) -> Completion:
        chatting = dialect.api is Api.CHAT
        make = ChatAnswer if chatting else ResponsesAnswer
        answer = make(question, self._max_answer)
        endpoint = chat_completions.PATH if chatting else responses.PATH
        response = await self._send(server, "POST", endpoint, _json(body))
        async with contextlib.aclosing(response):
            if self._granted and (said := Granted.read(response.headers)):
                self._granted(question.model, said)
            large = False
            async for event in _events(server, response):
                await asyncio.sleep(0)  # hundreds may have come at once: others get their turn
                if _large(event):
                    large = True
                    text = await asyncio.to_thread(answer.add, event)
                else:
                    text = answer.add(event)
                await _hand_over(answer, text, on_delta, on_restart)
            await _hand_over(answer, answer.rest(), on_delta, on_restart)
        return await asyncio.to_thread(answer.completion) if large else answer.completion()

    async def _send(
        self, server: _Server, method: str, endpoint: str, content: bytes | None = None
    ) -> httpx2.Response:
        """The response, its body not read yet. Raises what is in FAILURES."""
        request = httpx2.Request(
            method, server.url(endpoint), headers=server.headers, content=content
        )
        response = await self._http.send(request, stream=True, follow_redirects=False)
        if response.is_success:
            streams = "event-stream" in response.headers.get("content-type", "")
            line = WHOLE * self._max_answer + MAX_ERROR
            most = STREAM * self._max_answer + MAX_ERROR if streams else line
            response.stream = Body(response, most, line)
            return response
        response.stream = Body(response, MAX_ERROR)
        async with contextlib.aclosing(response):
            raise RefusedAnswer(response, await beginning(response))

    async def models(self, provider: str) -> list[str]:
        """The provider's model names (GET /models). Raises ModelError."""
        server = self._server(provider)
        question = Question(ModelRef(provider, "-"), (), timeout=10.0)
        try:
            async with asyncio.timeout(question.timeout):
                response = await self._send(server, "GET", "models")
                async with contextlib.aclosing(response):
                    found = model_lists.names(await response.aread(), server.row.model_prefix)
        except FAILURES as error:
            raise _in_our_words(error, server, question, "models") from None
        if found is None:
            raise ModelError(
                _with_doubt(f"its GET /models is no list of models: {_V1}", server),
                code="model_garbage",
                kind=ErrorKind.PASSING,
            )
        return found


async def _events(server: _Server, response: httpx2.Response) -> AsyncIterator[Any]:
    """What came: one document, or a stream's events, whatever was asked for."""
    kind = response.headers.get("content-type", "")
    if "event-stream" not in kind:
        content = await response.aread()
        if not content.lstrip().startswith((b"data:", b"event:")):
            yield parsed(content)
            return
    async for event in openai.AsyncStream(cast_to=object, response=response, client=server.sdk):
        yield event


def _lesson(
    dialect: Dialect, body: Mapping[str, Any], refused: RefusedAnswer, question: Question
) -> Dialect | None:
    if refused.response.status_code not in learning.STATUSES:
        return None
    said = refused.content[:8000].decode("utf-8", "replace")[:4000]
    capped = question.max_tokens is None and chat_completions.longest(question, dialect) is not None
    return learning.lesson(dialect, body, said, capped=capped)


def _said(dialect: Dialect) -> str:
    """A dialect for the log: what differs from the usual."""
    usual = Dialect()
    names = (
        "max_tokens",
        "most",
        "system",
        "schemas",
        "tool_id",
        "stream_only",
        "stream_usage",
        "api",
    )
    found = [
        f"{name} = {getattr(dialect, name)}"
        for name in names
        if getattr(dialect, name) != getattr(usual, name)
    ]
    if dialect.api is not usual.api:
        found.append(f"api = {dialect.api}")
    if dialect.without:
        found.append(f"without {', '.join(sorted(dialect.without))}")
    return ", ".join(found) or "as usual"


def _in_our_words(
    error: Exception, server: _Server, question: Question, endpoint: str = chat_completions.PATH
) -> ModelError:
    """What one of FAILURES means."""
    url = addresses.shown(str(server.url(endpoint)))
    if isinstance(error, RefusedAnswer):
        answer = error.response
        if answer.has_redirect_location or 300 <= answer.status_code < 400:
            return _redirected(answer, url)
        refusal = failures.failure(
            answer.status_code, error.content, answer.headers, question.model, url
        )
        return _doubted(refusal, server) if answer.status_code in (404, 405) else refusal
    if isinstance(error, BROKEN):
        return _unreachable(error, server, question)
    if isinstance(error, BodyTooLarge):
        return too_large()
    if isinstance(error, openai.APIError):  # an error event in a stream
        return failures.failure(200, {"error": error.body}, {}, question.model, url)
    what = "what it sent is no JSON" if isinstance(error, ValueError) else type(error).__name__
    text = f"the model's answer could not be read: {what}, from {url}"
    return ModelError(_with_doubt(text, server), code="model_garbage", kind=ErrorKind.PASSING)


def _redirected(answer: httpx2.Response, url: str) -> ModelError:
    """Nobody follows: the question and the key would go to who knows where."""
    try:
        to = addresses.shown(answer.headers.get("location", ""))[:200]
    except ValueError:
        to = ""
    return ModelError(
        f"{url} points to {failures.clean(to) or 'nowhere'} ({answer.status_code}), and is not "
        "followed: if that address is right, set it as the provider's base_url",
        code="model_redirected",
        kind=ErrorKind.ACCOUNT,
        status=answer.status_code,
    )


def _doubted(error: ModelError, server: _Server) -> ModelError:
    return ModelError(
        _with_doubt(error.message, server),
        code=error.code,
        kind=error.kind,
        retry_after=error.retry_after,
        status=error.status,
    )


def _with_doubt(text: str, server: _Server) -> str:
    doubt = addresses.doubt(server.base_url)
    return f"{text}; {doubt}" if doubt else text


def _unreachable(error: BaseException, server: _Server, question: Question) -> ModelError:
    reason = failures.broken(error)
    if reason is None:
        text = f"the model did not answer within {question.timeout:.3g} s"
        made = ModelError(text, code="model_timeout", kind=ErrorKind.PASSING)
    else:
        host = httpx2.URL(server.base_url).host
        text = f"the model's server at {host} can't be reached: {reason}"
        made = ModelError(text, code="model_connection", kind=ErrorKind.PASSING)
    made.unasked = failures.unasked(error)
    return made


def _large(event: Any) -> bool:
    try:
        return len(orjson.dumps(event)) > OFF_LOOP
    except TypeError:
        return False  # nested past reason: it is refused


async def _hand_over(
    answer: ChatAnswer | ResponsesAnswer,
    text: str,
    on_delta: OnDelta | None,
    on_restart: Callable[[], None] | None,
) -> None:
    """A piece of an answer, to who listens."""
    if on_delta is None:
        return
    if answer.restarted and on_restart is not None:
        on_restart()
    if text:
        await on_delta(text)


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # lone surrogates, which some devices send and strict servers refuse
        text = json.dumps(body, ensure_ascii=False)
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
