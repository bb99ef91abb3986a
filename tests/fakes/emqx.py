"""EMQX's REST API with faults: passes calls on to the stand-in, unless it is told otherwise.

    async with FaultyRest() as rest, rig(database, rest=rest) as house:
        rest.script(answer(503), passed())

Each call to /publish or /publish/bulk takes the next scripted step; when none is left,
`behave`'s callable decides, or the call is passed on. Other calls always are, pings too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

import httpx
import orjson

from tests.fakes.model_server import Server, bound, config
from tests.fakes.payload import payload_of

Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass
class Call:
    """One call to publish: its messages, and the status of its answer (None: there was none)."""

    messages: list[dict[str, Any]]
    bulk: bool
    status: int | None = None

    @property
    def payloads(self) -> list[str]:
        return [payload_of(message) for message in self.messages]


@dataclass
class Exchange:
    """One call for a step to play on."""

    call: Call
    pass_on: Callable[[], Awaitable[httpx.Response]]
    receive: Callable[[], Awaitable[dict[str, Any]]]
    send: Send

    async def answer(self, status: int, body: bytes) -> None:
        self.call.status = status
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def close(self) -> None:
        """End the connection without an answer."""
        # ASGI has no word for it, so this reaches through uvicorn's bound method.
        getattr(self.send, "__self__").transport.abort()  # noqa: B009
        while (await self.receive())["type"] != "http.disconnect":
            pass


Step = Callable[[Exchange], Awaitable[None]]


def passed() -> Step:
    """As the broker answers."""

    async def play(exchange: Exchange) -> None:
        answer = await exchange.pass_on()
        await exchange.answer(answer.status_code, answer.content)

    return play


def answer(status: int, body: Any = None) -> Step:
    """This answer; the broker hears nothing."""

    async def play(exchange: Exchange) -> None:
        await exchange.answer(status, orjson.dumps({} if body is None else body))

    return play


def each(*results: int) -> Step:
    """A bulk with a reason code for each message; 0 ones are published, the others are not."""

    async def play(exchange: Exchange) -> None:
        made = [
            {"id": "0001"} if code == 0 else {"message": "no", "reason_code": code}
            for code in results
        ]
        await exchange.answer(503, orjson.dumps(made))

    return play


def unheard() -> Step:
    """Published, but the answer is lost."""

    async def play(exchange: Exchange) -> None:
        await exchange.pass_on()
        await exchange.close()

    return play


class Hold:
    """A step that holds calls until the test lets them go, and then passes them on.

    With `after` they are passed on at once, and it is the answer that is held.
    """

    def __init__(self, after: bool = False) -> None:
        self.after = after
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        if not self.after:
            self.reached.set()
            await self.opened.wait()
        answer = await exchange.pass_on()
        if self.after:
            self.reached.set()
            await self.opened.wait()
        await exchange.answer(answer.status_code, answer.content)


class FaultyRest:
    """The server in front of the stand-in. `calls` are those to publish, in order."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.looks: Step | None = None  # what pings and look-ups get; None: they are passed on
        self.target = ""
        self.port = 0
        self._steps: list[Step] = []
        self._behaviour: Callable[[Call], Step | None] | None = None
        self._server: Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def script(self, *steps: Step) -> None:
        """Queue steps, one for each call to publish."""
        self._steps += steps

    def behave(self, behaviour: Callable[[Call], Step | None] | None) -> None:
        """What calls get when no scripted step is left; None: they are passed on."""
        self._behaviour = behaviour

    async def start(self) -> None:
        """Listen; after `stop` on the same port again."""
        listener = bound(self.port)
        self.port = listener.getsockname()[1]
        self._http = httpx.AsyncClient(timeout=20)
        self._server = Server(config(self))
        self._task = asyncio.create_task(self._server.serve([listener]))
        await self._server.up.wait()

    async def stop(self) -> None:
        """Close the port: connections are refused."""
        server, task, self._server, self._task = self._server, self._task, None, None
        if server is None or task is None:
            return
        server.leaving.set()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        await task
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        raw = bytearray()
        while (event := await receive())["type"] == "http.request":
            raw += event["body"]
            if not event.get("more_body"):
                break
        else:
            return
        path = (scope.get("raw_path") or scope["path"].encode()).decode()
        headers = {name: value for name, value in scope["headers"] if name != b"host"}

        async def pass_on() -> httpx.Response:
            return await self._http.request(
                scope["method"], self.target + path, content=bytes(raw), headers=headers
            )

        document = orjson.loads(raw) if raw else {}
        messages = document if isinstance(document, list) else [document]
        call = Call(messages, isinstance(document, list))
        step = passed()
        if "/publish" in path and messages[0].get("topic"):  # without one it is a ping
            self.calls.append(call)
            step = self._next(call)
        elif self.looks is not None:
            step = self.looks
        await step(Exchange(call, pass_on, receive, send))

    def _next(self, call: Call) -> Step:
        if self._steps:
            return self._steps.pop(0)
        return (self._behaviour(call) if self._behaviour else None) or passed()
