"""The MCP servers of flows.toml: what they offer now, and calls to their tools.

A server that is away takes its tools with it, and nothing else: a flow answers without them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from service import safe_text
from service.flows import McpServer
from service.mcp.connection import McpConnection
from service.mcp.offer import Kept, OfferedTool, offer
from service.mcp.result_text import Result
from service.mcp.trouble import Trouble

FRESH = 60.0  # seconds in which a list of tools is not asked for again
RESTED = 10.0  # the same if the server says that the tools are others now
STALE = 300.0  # seconds in which an old one serves while it is
PAUSES = (5.0, 10.0, 30.0, 60.0)  # seconds until a server that was away is asked again
NAMED = 10  # tools that one line of the log names

UNKNOWN = "unknown: no answer came; it may or may not have been done, and is not repeated"

log = logging.getLogger("emqx-gpt.mcp")


def _nothing(server: str, result: str) -> None:
    """Nobody counts."""


class ServerPool:
    """All of them. `tokens` by the server's name; `on_call` hears of each call: server, and ok,
    failed or unknown. `clock` gives seconds."""

    def __init__(
        self,
        servers: Iterable[McpServer],
        tokens: Mapping[str, str],
        *,
        on_call: Callable[[str, str], None] = _nothing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._servers = {
            server.name: _Connected(server, McpConnection(server, tokens.get(server.name)), clock)
            for server in servers
        }
        self._on_call = on_call

    async def offered(self, names: Sequence[str]) -> list[OfferedTool]:
        """The tools of these servers that can be called now, in the order of their servers."""
        servers = [self._servers[name] for name in names if name in self._servers]
        lists = await asyncio.gather(*(server.tools() for server in servers))
        return [tool for tools in lists for tool in tools]

    async def call(self, tool: OfferedTool, arguments: Mapping[str, Any], timeout: float) -> Result:
        """Call a tool that was offered. `timeout` in seconds; its own may be shorter."""
        server = self._servers[tool.server]
        result = await server.call(tool, dict(arguments), min(timeout, tool.timeout))
        counted = "unknown" if result.unknown else "failed" if result.failed else "ok"
        self._on_call(tool.server, counted)
        return result

    @property
    def troubles(self) -> dict[str, str | None]:
        """Each server by its name, with what is wrong with it now."""
        return {name: server.trouble for name, server in self._servers.items()}

    async def close(self) -> None:
        await asyncio.gather(*(server.close() for server in self._servers.values()))


class _Connected:
    """One server, with its list of tools."""

    def __init__(
        self, server: McpServer, connection: McpConnection, clock: Callable[[], float]
    ) -> None:
        self._server = server
        self._connection = connection
        self._clock = clock
        self._tools: tuple[OfferedTool, ...] | None = None
        self._kept: Kept = {}
        self._listed_at = 0.0
        self._look: asyncio.Task[None] | None = None
        self._again_at = 0.0
        self._failures = 0
        self._told: tuple[bool, dict[str, str]] = (False, {})
        self.trouble: str | None = None

    async def tools(self) -> tuple[OfferedTool, ...]:
        """Its tools; none while it is away."""
        age = self._clock() - self._listed_at
        known = self._tools is not None and age < STALE
        if known and age < (RESTED if self._connection.stale else FRESH):
            return self._tools or ()
        if self._look is None and self._clock() >= self._again_at:
            self._look = asyncio.create_task(self._list())
        if self._look is not None and not known:
            await asyncio.shield(self._look)
        return self._tools or ()

    async def call(self, tool: OfferedTool, arguments: dict[str, Any], timeout: float) -> Result:
        for last in (False, True):
            try:
                text, failed = await self._connection.call(tool.own_name, arguments, timeout)
            except Trouble as trouble:
                if trouble.maybe and tool.at_most_once:
                    return Result(UNKNOWN, failed=True, unknown=True)
                if trouble.again and not last:
                    continue
                self._suspect()
                said = f"error: the MCP server {self._server.name} {trouble.text}"
                return Result(said, failed=True, refused=not trouble.maybe)
            return Result(text, failed=failed)
        raise AssertionError("the second time is the last")

    async def close(self) -> None:
        if self._look is not None:
            self._look.cancel()
            await asyncio.gather(self._look, return_exceptions=True)
        await self._connection.close()

    def _suspect(self) -> None:
        """Whoever comes next looks whether it is still there."""
        self._listed_at = min(self._listed_at, self._clock() - FRESH)

    async def _list(self) -> None:
        name = self._server.name
        try:
            listed = await self._connection.tools()
            # A stranger's schemas, which are compiled to see whether they can be used.
            tools, left = await asyncio.to_thread(offer, self._server, listed, self._kept)
        except Trouble as trouble:
            self._failed(trouble.text)
        except Exception as fault:
            log.exception("MCP server %s: an internal error", name)
            self._failed(f"could not be asked ({type(fault).__name__})")
        else:
            if self.trouble is not None:
                log.info("MCP server %s is back", name)
            self._tools, self._listed_at = tools, self._clock()
            self.trouble, self._failures, self._again_at = None, 0, 0.0
            self._tell(len(tools), left)
        finally:
            self._look = None

    def _failed(self, why: str) -> None:
        if self.trouble is None:
            log.warning("MCP server %s %s; its tools are left out", self._server.name, why)
        self._tools, self.trouble = None, why
        pause = PAUSES[min(self._failures, len(PAUSES) - 1)]
        self._failures += 1
        self._again_at = self._clock() + pause

    def _tell(self, count: int, left: dict[str, str]) -> None:
        """Which tools are left out, once."""
        if (count == 0, left) == self._told:
            return
        self._told = count == 0, left
        for tool, why in list(left.items())[:NAMED]:
            log.warning(
                "MCP server %s: tool %s is not offered: %s",
                self._server.name,
                safe_text.line(tool, 100),
                why,
            )
        if len(left) > NAMED:
            log.warning("MCP server %s: nor are %d more", self._server.name, len(left) - NAMED)
        if not count:
            log.warning(
                "MCP server %s offers no tool that allow names and that can be used",
                self._server.name,
            )
