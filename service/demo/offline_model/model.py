"""An OpenAI-compatible model without network or key, over real HTTP.

`POST /v1/chat/completions` and `/v1/responses` (also streamed), `GET /v1/models` and
`GET /v1/models/{id}`, with OpenAI's answers to what is wrong. Its model is called `offline`; any
other name is taken too, but those that OpenAI has shut down. It can play other servers
(`families`). No randomness: the same request gets the same answer, ids are counted. Usage is
counted too: a token for every four characters begun, 85 for a picture.

Run it by itself: `python -m service.demo.offline_model.model --port 0 --port-file port.txt`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from service.demo.offline_model import chat, responses
from service.demo.offline_model.answer import answer
from service.demo.offline_model.families import FAMILIES, dress, dress_stream, error_body, refuse
from service.demo.offline_model.request import Refused, shut_down

MODEL = "offline"


class _Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def offline_model(
    delay: float = 0.02,
    hurry: asyncio.Event | None = None,
    names: Sequence[str] = (),
    kind: str = MODEL,
    language: str = "en",
) -> Starlette:
    """The application; `delay` is the pause before each word of a stream, in seconds.

    Once `hurry` is set, streams come without pauses. `names`: more models to list. `kind`: the
    family of servers to play; `language`: in which it answers English. Raises KeyError for an
    unknown kind.
    """
    family = FAMILIES[kind]
    numbers = itertools.count(1)
    hurry = hurry or asyncio.Event()

    async def complete(request: Request) -> Response:
        body = await _body(request)
        check_key(request)
        if isinstance(body, dict):
            refuse(family, body)
        asked = chat.parse(body, unknown=family.unknown == "ignored")
        number = next(numbers)
        reply = chat.ChatReply(number, asked, answer(asked, language))
        if not asked.stream:
            return _Json(dress(family, reply.whole(), number))
        events = dress_stream(family, reply.events(), number)
        return StreamingResponse(sent(events), media_type="text/event-stream")

    async def respond(request: Request) -> Response:
        body = await _body(request)
        check_key(request)
        asked = responses.parse(body)
        reply = responses.ResponsesReply(next(numbers), asked, answer(asked, language), body)
        if not asked.stream:
            return _Json(reply.whole())
        return StreamingResponse(sent(reply.events(), typed=True), media_type="text/event-stream")

    async def sent(
        events: Iterator[dict[str, Any] | str] | Iterator[dict[str, Any]], *, typed: bool = False
    ) -> AsyncIterator[bytes]:
        for event in events:
            if delay and not hurry.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await hurry.wait()
            if isinstance(event, str):
                yield event.encode() + b"\n\n"
                continue
            head = f"event: {event['type']}\n".encode() if typed else b""
            yield head + b"data: " + orjson.dumps(event) + b"\n\n"
        if not typed:
            yield b"data: [DONE]\n\n"

    def check_key(request: Request) -> None:
        if family.needs_key:
            _check_key(request)

    async def models(request: Request) -> Response:
        check_key(request)
        listed = dict.fromkeys((MODEL, *names))
        data = [_model(family.prefix + each) for each in listed]
        return _Json({"object": "list", "data": data})

    async def on_refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        content = error_body(family, error.status, error.message, error.code, error.param)
        return _Json(content, status_code=200 if family.error == "in_200" else error.status)

    async def model(request: Request) -> Response:
        check_key(request)
        name = request.path_params["name"]
        if gone := shut_down(name):
            raise gone
        return _Json(_model(name))

    return Starlette(
        routes=[
            Route("/v1/chat/completions", complete, methods=["POST"]),
            Route("/v1/responses", respond, methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
        ],
        exception_handlers={
            Refused: on_refused,
            HTTPException: _on_http_error,
            Exception: _on_error,
        },
    )


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": chat.CREATED, "owned_by": "offline"}


def _check_key(request: Request) -> None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if azure := request.headers.get("api-key"):
        scheme, key = "bearer", azure
    if scheme.lower() != "bearer" or not key.strip():
        said = (
            "You didn't provide an API key. You need to provide your API key in an Authorization "
            "header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
        )
        raise Refused(401, said)
    if key.strip().lower() in ("none", "null", "undefined"):
        raise Refused(401, f"Incorrect API key provided: {key.strip()}.", "invalid_api_key")


async def _body(request: Request) -> Any:
    try:
        return orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        said = f"We could not parse the JSON body of your request. ({error})"
        raise Refused(400, said) from None
    except ClientDisconnect:
        raise Refused(499, "nobody is left to read it") from None


def _error(status: int, message: str, code: str | None) -> Response:
    return _Json(error_body(FAMILIES[MODEL], status, message, code, None), status_code=status)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        message = f"Not allowed to {request.method} on {request.url.path}"
        return _error(405, message, "method_not_supported")
    message = f"Invalid URL ({request.method} {request.url.path})"
    return _error(error.status_code, message, "unknown_url")


async def _on_error(_: Request, error: Exception) -> Response:
    return _error(500, f"The offline model failed: {type(error).__name__}", None)


class _Server(uvicorn.Server):
    """uvicorn inside a program that handles signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class OfflineModel:
    """The offline model on a port of this machine: `async with OfflineModel() as model`."""

    def __init__(
        self,
        port: int = 0,
        delay: float = 0.02,
        names: Sequence[str] = (),
        kind: str = MODEL,
        language: str = "en",
    ) -> None:
        self.port = port
        self._names = names
        self._kind = kind
        self._language = language
        self._delay = delay
        self._hurry = asyncio.Event()
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def base_url(self) -> str:
        """What OPENAI_BASE_URL wants."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self) -> None:
        """Listen; OSError if the port is taken. `port` is then the real one."""
        self._hurry.clear()
        # uvicorn would end the whole program over a taken port, so it gets a bound socket.
        # Only with IPPROTO_TCP named does asyncio switch Nagle's delay (40 ms a call) off.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self.port))
            self.port = listener.getsockname()[1]
            config = uvicorn.Config(
                offline_model(self._delay, self._hurry, self._names, self._kind, self._language),
                log_config=None, access_log=False, lifespan="off", ws="none",
                timeout_graceful_shutdown=1,
            )  # fmt: skip
            self._server = _Server(config)
            self._task = asyncio.create_task(self._server.serve([listener]), name="offline-model")
            while not self._server.started:
                if self._task.done():
                    await self._task
                    raise RuntimeError("the offline model did not start")
                await asyncio.sleep(0.005)
        except BaseException:
            listener.close()
            raise

    async def stop(self) -> None:
        """Stop listening, finish what is being answered at once; harmless when not started."""
        server, task, self._server, self._task = self._server, self._task, None, None
        if server is None or task is None:
            return
        self._hurry.set()
        server.should_exit = True
        await task
        # A client that does not read is cut off; uvicorn does not wait until it is.
        await asyncio.gather(*server.server_state.tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


async def _run(port: int, delay: float, port_file: Path | None, kind: str) -> None:
    async with OfflineModel(port, delay, kind=kind) as model:
        if port_file:
            # Renamed into place: whoever waits for it never reads half of it.
            partial = port_file.with_name(port_file.name + ".part")
            partial.write_text(str(model.port))
            partial.replace(port_file)
        print(f"offline model on {model.base_url}", flush=True)
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        await stopped.wait()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="An OpenAI-compatible model, offline.")
    parser.add_argument("--port", type=int, default=0, help="0 (default): any free one")
    parser.add_argument("--port-file", type=Path, help="where to write the port")
    parser.add_argument("--delay", type=float, default=0.02, help="seconds before each word")
    parser.add_argument("--kind", choices=FAMILIES, default=MODEL, help="the servers to play")
    given = parser.parse_args()
    asyncio.run(_run(given.port, given.delay, given.port_file, given.kind))


if __name__ == "__main__":
    main()
