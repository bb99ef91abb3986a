"""A model that tests script: an OpenAI-compatible server over real HTTP.

    async with FakeModel() as fake:
        fake.script(status(429, retry_after=0), delay(0.1, ok("hello")))
        ...ask fake.base_url...
        assert [call.outcome for call in fake.calls] == ["429 rate_limit_exceeded", "ok"]

Each call takes the next scripted step; when none is left, `behave`'s callable or the default
(echo) answers. Also a process of its own: see `main`.
"""

import argparse
import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import orjson
import uvicorn

from tests.fakes.model_chaos import Chaos
from tests.fakes.model_faults import (
    cut,
    garbage,
    no_http,
    page,
    reset,
    status,
    stream_then_cut,
    stream_then_error,
    wrong_shape,
)
from tests.fakes.model_server import Server, bound, config
from tests.fakes.model_steps import (
    Completion,
    Gate,
    delay,
    echo,
    empty,
    filtered,
    gate,
    hang,
    length,
    ok,
    refusal,
    tool_calls,
)
from tests.fakes.model_wire import Call, Exchange, Gone, Step, last_user_text

__all__ = [
    "Call", "Completion", "FakeModel", "Gate", "Step", "cut", "delay", "echo", "empty",
    "filtered", "garbage", "gate", "hang", "last_user_text", "length", "no_http", "ok", "page",
    "refusal", "reset", "status", "stream_then_cut", "stream_then_error", "tool_calls",
    "wrong_shape",
]  # fmt: skip

MODELS = ("gpt-5.4-mini", "gpt-5.4")
_ASKED = ("/v1/chat/completions", "/v1/responses")


class FakeModel:
    """The server. After `stop()`, `start()` listens on the same port again."""

    def __init__(
        self,
        port: int = 0,
        *,
        default: Step | None = None,
        models: Sequence[str] = MODELS,
        keys: set[str] | None = None,
        record: bool = True,
    ) -> None:
        self.port = port
        self.default = default or echo()
        self.models = models
        self.keys = keys  # the API keys it takes, for chat and models; None: any
        self.record = record
        self.calls: list[Call] = []
        self.listing: tuple[bytes, str] | None = None  # what /v1/models answers instead
        self.lookups = 0  # of GET /v1/models and GET /v1/models/{id}
        self.in_flight = 0
        self.peak = 0
        self._steps: list[Step] = []
        self._behaviour: Callable[[dict[str, Any]], Step | str] | None = None
        self._released = asyncio.Event()
        self._moved = asyncio.Event()  # a call came in or ended
        self._numbers = itertools.count(1)
        self._playing: set[asyncio.Task[Any]] = set()
        self._server: Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def texts(self) -> list[str]:
        """The last user text of each call."""
        return [call.text for call in self.calls]

    def script(self, *steps: Step | str) -> None:
        """Queue steps, one for each call; a string is `ok` of it."""
        self._steps += [ok(step) if isinstance(step, str) else step for step in steps]

    def behave(self, behaviour: Callable[[dict[str, Any]], Step | str] | None) -> None:
        """Let a function of the request's body decide, when no scripted step is left."""
        self._behaviour = behaviour

    def release(self) -> None:
        """Let all that hang go on, and stop hanging from now on."""
        self._released.set()

    async def wait_for_calls(self, count: int, timeout: float = 45) -> list[Call]:
        """The calls, once there are so many."""
        async with asyncio.timeout(timeout):
            while len(self.calls) < count:
                await self._next_move()
        return self.calls

    async def wait_idle(self, timeout: float = 45) -> None:
        """Return when no call is being answered."""
        async with asyncio.timeout(timeout):
            while self.in_flight:
                await self._next_move()

    async def _next_move(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    async def start(self) -> None:
        listener = bound(self.port)
        self.port = listener.getsockname()[1]
        self._server = Server(config(self))
        self._task = asyncio.create_task(self._server.serve([listener]), name="fake-model")
        await self._server.up.wait()

    async def stop(self) -> None:
        """Close the port; calls that are being answered get a reset."""
        server, task, self._server, self._task = self._server, self._task, None, None
        if server is None or task is None:
            return
        server.leaving.set()
        for playing in list(self._playing):
            playing.cancel()
        await task

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI application: bare, because the process mode is to be quick."""
        raw = bytearray()
        while (message := await receive())["type"] == "http.request":
            raw += message["body"]
            if not message["more_body"]:
                break
        else:
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        call = Call({}, headers, time.monotonic(), query=scope["query_string"].decode())
        exchange = Exchange(call, receive, send, self._released, next(self._numbers))
        known = self.keys is None or call.key in self.keys
        if scope["path"] not in _ASKED or scope["method"] != "POST":
            await self._look_up(exchange, scope["path"], known)
            return
        try:
            call.body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            await status(400, message="We could not parse the JSON body of your request.")(exchange)
            return
        if self.record:
            self.calls.append(call)
        await self._play(exchange, known)

    async def _look_up(self, exchange: Exchange, path: str, known: bool) -> None:
        self.lookups += path.startswith("/v1/models")
        offered = [
            {"id": each, "object": "model", "created": 0, "owned_by": "fake"}
            for each in self.models
        ]
        one = next((each for each in offered if path == f"/v1/models/{each['id']}"), None)
        if not known:
            await status(401)(exchange)
        elif path == "/v1/models" and self.listing:
            content, kind = self.listing
            await exchange.answer(200, content, [(b"content-type", kind.encode())])
        elif path == "/v1/models":
            await exchange.answer(200, orjson.dumps({"object": "list", "data": offered}))
        elif one:
            await exchange.answer(200, orjson.dumps(one))
        else:
            missing = "model_not_found" if path.startswith("/v1/models/") else "unknown_url"
            await status(404, missing)(exchange)

    async def _play(self, exchange: Exchange, known: bool) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._playing.add(task)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        self._moved.set()
        try:
            step = self._next(exchange.call.body) if known else status(401)
            await step(exchange)
        except Gone:
            pass
        except asyncio.CancelledError:
            # Only stop() cancels, and a cancelled ASGI call would get a 500 from uvicorn.
            with contextlib.suppress(asyncio.CancelledError):
                await exchange.close(reset=True)
        finally:
            exchange.call.ended = time.monotonic()
            self.in_flight -= 1
            self._playing.discard(task)
            self._moved.set()

    def _next(self, body: dict[str, Any]) -> Step:
        if self._steps:
            return self._steps.pop(0)
        if self._behaviour is None:
            return self.default
        step = self._behaviour(body)
        return ok(step) if isinstance(step, str) else step


def main() -> None:
    """`python -m tests.fakes.model --port P --mode chaos --seed N --log FILE`."""
    parser = argparse.ArgumentParser(description="A model that answers with echoes and faults.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", type=Path, help="where to write the port")
    parser.add_argument("--mode", choices=("echo", "chaos"), default="echo")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--fault-rate", type=float, default=0.2, help="of the calls, in chaos")
    parser.add_argument("--delay", type=float, default=0, help="seconds before each answer")
    parser.add_argument("--slow", type=float, default=0.5, help="seconds of a slow answer")
    parser.add_argument("--log", type=Path, help="one JSON line for each call")
    given = parser.parse_args()
    rate = given.fault_rate if given.mode == "chaos" else 0
    with Chaos(given.seed, rate, given.delay, given.slow, given.log) as chaos:
        fake = FakeModel(given.port, record=False)
        fake.behave(chaos.step)
        listener = bound(given.port)
        fake.port = listener.getsockname()[1]
        if given.port_file:
            # Renamed into place: whoever waits for it never reads half of it.
            partial = given.port_file.with_name(given.port_file.name + ".part")
            partial.write_text(str(fake.port))
            partial.replace(given.port_file)
        print(f"fake model on {fake.base_url}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config(fake)).run([listener])


if __name__ == "__main__":
    main()
