"""A webhook of raw sockets: it shows when a request arrives, over which connection, and answers
what and when a test wants."""

from __future__ import annotations

import asyncio
import ctypes
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

TIMEOUT = 45


@dataclass(eq=False)
class Received:
    """One request. `connection` counts from 1."""

    connection: int
    line: str
    headers: dict[str, str]
    body: bytes
    writer: asyncio.StreamWriter = field(repr=False)

    @property
    def json(self) -> dict[str, object]:
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found

    def reset(self) -> None:
        """Breaks the connection without an answer."""
        self.writer.transport.abort()

    def break_off(self) -> None:
        """A reset at once, before the event loop's next turn: connect(AF_UNSPEC) makes one."""
        raw = self.writer.get_extra_info("socket")
        unspecified = ctypes.create_string_buffer(16)
        assert ctypes.CDLL(None).connect(raw.fileno(), unspecified, 16) == 0
        self.writer.transport.abort()


Answer = Callable[[Received], Awaitable[int]]


async def accept(_: Received) -> int:
    return 202


class Webhook:
    """`answer` decides each status; connections are answered in turn, as uvicorn does."""

    def __init__(self, answer: Answer = accept) -> None:
        self.answer = answer
        self.received: list[Received] = []
        self.port = 0
        self._arrived = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """The second time on the same port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuses from now on; open connections are reset."""
        assert self._server is not None
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Webhook:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def wait(self, count: int) -> list[Received]:
        """All requests, as soon as there are `count`."""
        async with asyncio.timeout(TIMEOUT), self._arrived:
            await self._arrived.wait_for(lambda: len(self.received) >= count)
        return self.received

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._connections += 1
        number = self._connections
        answers: asyncio.Queue[Received] = asyncio.Queue()
        answering = asyncio.create_task(self._answer(answers))
        try:
            while True:
                request = await _read(reader, writer, number)
                async with self._arrived:
                    self.received.append(request)
                    self._arrived.notify_all()
                answers.put_nowait(request)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            answering.cancel()
            writer.transport.abort()
            self._tasks.discard(task)

    async def _answer(self, requests: asyncio.Queue[Received]) -> None:
        while True:
            request = await requests.get()
            if request.writer.transport.is_closing():  # reset: the rest was never seen
                return
            status = await self.answer(request)
            request.writer.write(
                f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
                "content-length: 2\r\n\r\n{}".encode()
            )


async def _read(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(number, head[0], headers, body, writer)


def config(
    url: str,
    *,
    ttl: str = "10m",
    check: str = "50ms",
    window: int = 1,
    topic: str = "lab/request/+",
    connector: str = "",
) -> str:
    """Connector, action and rule `lab`, as the project's own files have them."""
    return f'''
connectors.http.lab {{
  url = "{url}"
  headers {{ authorization = "Bearer ""s3cret-token", content-type = "application/json" }}
  pool_size = 8
  resource_opts {{ health_check_interval = "{check}" }}
  {connector}
}}
actions.http.lab {{
  connector = lab
  parameters {{ method = post, path = "/webhook" }}
  resource_opts {{
    request_ttl = "{ttl}", health_check_interval = "{check}", inflight_window = {window}
  }}
}}
rule_engine.rules.lab {{
  sql = """SELECT 'chat' AS flow, id, clientid, topic, payload FROM "{topic}" """
  actions = ["http:lab"]
}}
'''


async def until(condition: Callable[[], object]) -> None:
    """Waits for something that only shows in a counter."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)
