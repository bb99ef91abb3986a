"""The connection to one MCP server: made when it is needed, kept by a task of its own, made
again when it broke."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from itertools import islice
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.types import (
    CONNECTION_CLOSED,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    REQUEST_TIMEOUT,
    CallToolResult,
    Implementation,
    Tool,
)
from pydantic import ValidationError

from service import __version__
from service.flows import McpServer
from service.mcp.offer import LOOKED_AT, Listed, allowed
from service.mcp.result_text import text_of
from service.mcp.server_http import AWAY, CONNECT, FORGOTTEN, LOST, REFUSED, Transport
from service.mcp.trouble import Trouble

LISTING = 5.0  # seconds, for all pages
PAGES = 50
CLOSING = 1.0  # seconds

# What it logs above debug holds what servers and models said.
logging.getLogger("mcp").setLevel(logging.CRITICAL)
log = logging.getLogger("emqx-gpt.mcp")

# A call that ended so was surely not begun. -32600 and -32700 would say so too, but the SDK also
# gives them for answers that it can't read; and nobody sends what is no request.
_NOT_BEGUN = (AWAY, REFUSED, FORGOTTEN, METHOD_NOT_FOUND, INVALID_PARAMS)
_OVER = (FORGOTTEN, CONNECTION_CLOSED)  # the next call goes over a new connection
_WORDS = {
    REQUEST_TIMEOUT: "did not answer in time",
    CONNECTION_CLOSED: "closed the connection",
    PARSE_ERROR: "gave no answer that can be read, or too large a one",
}


class _Line:
    """An open connection. Once `dropped` it ends with the last call that uses it."""

    def __init__(self, client: Client, stop: asyncio.Event) -> None:
        self.client = client
        self._stop = stop
        self._users = 0
        self.dropped = False

    @contextlib.contextmanager
    def used(self) -> Iterator[Client]:
        self._users += 1
        try:
            yield self.client
        finally:
            self._users -= 1
            self._end()

    def drop(self) -> None:
        self.dropped = True
        self._end()

    def _end(self) -> None:
        if self.dropped and not self._users:
            self._stop.set()


class McpConnection:
    """`token` is the server's bearer token. All methods may be used side by side."""

    def __init__(self, server: McpServer, token: str | None) -> None:
        self._server = server
        self._token = token
        self._opened: asyncio.Future[_Line] | None = None
        self._keepers: dict[asyncio.Task[None], asyncio.Event] = {}
        self.stale = False
        """The server says that its tools are others now."""

    async def tools(self) -> list[Listed]:
        """Those of the server's tools that `allow` names, but not many more than are looked at.
        Raises Trouble."""
        line = await self._line()
        found: list[Listed] = []
        cursor: str | None = None
        with line.used() as client:
            try:
                async with asyncio.timeout(LISTING):
                    self.stale = False
                    for _ in range(PAGES):
                        page = await client.list_tools(cursor=cursor)
                        named = (one for one in page.tools if allowed(self._server, one.name))
                        found += map(_listed, islice(named, LOOKED_AT))
                        cursor = page.next_cursor
                        if not cursor or len(found) >= LOOKED_AT:
                            break
            except Exception as error:
                line.drop()
                raise self._trouble(error) from None
        return found

    async def call(self, name: str, arguments: dict[str, Any], timeout: float) -> tuple[str, bool]:
        """What the tool said, and whether it says itself that it failed. `timeout` in seconds.
        Raises Trouble."""
        line = await self._line()
        with line.used() as client:
            try:
                # The SDK's timeout tells the server to stop; the other is for who never reads.
                async with asyncio.timeout(timeout + 1):
                    result = await client.call_tool(name, arguments, read_timeout_seconds=timeout)
            except Exception as error:
                if isinstance(error, MCPError) and error.code in _OVER:
                    line.drop()
                raise self._trouble(error, sent=True) from None
        return _said(result), result.is_error

    async def close(self) -> None:
        """Say good-bye, but not for long."""
        self._opened = None
        keepers = set(self._keepers)
        for stop in self._keepers.values():
            stop.set()
        if keepers:
            await asyncio.wait(keepers, timeout=CLOSING)
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)

    async def _line(self) -> _Line:
        """Raises Trouble."""
        opened = self._opened
        if opened is not None and opened.done():
            broken = opened.exception() is not None or opened.result().dropped
            opened = None if broken else opened
        if opened is None:
            opened = self._opened = asyncio.get_running_loop().create_future()
            stop = asyncio.Event()
            keeper = asyncio.create_task(self._keep(opened, stop))
            self._keepers[keeper] = stop
            keeper.add_done_callback(lambda done: self._keepers.pop(done, None))
        return await asyncio.shield(opened)

    async def _keep(self, opened: asyncio.Future[_Line], stop: asyncio.Event) -> None:
        """The SDK wants a connection to be opened and closed by one and the same task."""
        line: _Line | None = None
        why = Trouble("was not reached: the service shuts down")
        try:
            async with contextlib.AsyncExitStack() as stack:
                async with asyncio.timeout(CONNECT):
                    client = await self._connect(stack)
                line = _Line(client, stop)
                opened.set_result(line)
                await stop.wait()
        except (Exception, BaseExceptionGroup) as error:
            why = self._trouble(error)
        finally:
            if line is not None:
                line.dropped = True
            elif not opened.done():
                opened.set_exception(why)
                opened.exception()  # who waited for it may be gone

    async def _connect(self, stack: contextlib.AsyncExitStack) -> Client:
        http = httpx2.AsyncClient(
            transport=Transport(self._token),
            timeout=httpx2.Timeout(CONNECT, read=None),
            trust_env=False,
        )
        await stack.enter_async_context(http)
        client = Client(
            streamable_http_client(self._server.url, http_client=http),
            cache=None,
            client_info=Implementation(name="emqx-gpt", version=__version__),
            message_handler=self._heard,
        )
        await stack.enter_async_context(client)
        # An answer is data, whether it fits the server's schema or not; and the SDK would look
        # for that schema's patterns in a time that they choose.
        session: Any = client.session
        session.validate_tool_result = _unchecked
        return client

    async def _heard(self, message: Any) -> None:
        if getattr(message, "method", "") == "notifications/tools/list_changed":
            self.stale = True

    def _trouble(self, error: BaseException, *, sent: bool = False) -> Trouble:
        """What went wrong; `sent`: it was a call, which may have been carried out all the same."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, MCPError):
            code = error.code
            ours = code in (AWAY, LOST, REFUSED, FORGOTTEN)
            text = error.message if ours else _WORDS.get(code, f"answered: {error.message}")
            again = code in (FORGOTTEN, CONNECTION_CLOSED, LOST)
            return Trouble(text, maybe=sent and code not in _NOT_BEGUN, again=again)
        if isinstance(error, TimeoutError):
            return Trouble("did not answer in time", maybe=sent)
        log.debug("MCP server %s: %r", self._server.name, error)
        return Trouble(f"gave no answer that can be read ({_kind(error)})", maybe=sent)


def _kind(error: BaseException) -> str:
    """What is wrong with it, without its words: they may be anything."""
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['type']}"
    return type(error).__name__


async def _unchecked(name: str, result: CallToolResult) -> None:
    """Takes any result."""


def _listed(tool: Tool) -> Listed:
    hints = tool.annotations
    return Listed(
        name=tool.name,
        description=tool.description or tool.title or "",
        schema=tool.input_schema,
        read_only=hints.read_only_hint if hints else None,
        destructive=hints.destructive_hint if hints else None,
        idempotent=hints.idempotent_hint if hints else None,
    )


def _said(result: CallToolResult) -> str:
    return text_of(result.content, result.structured_content, failed=result.is_error)
