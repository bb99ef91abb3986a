"""The MCP servers of the flows in force: those that flows use, connected when they are needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from service.flows import Catalogue, McpServer
from service.mcp.offer import OfferedTool
from service.mcp.result_text import Result

if TYPE_CHECKING:
    from service.mcp.servers import ServerPool

Key = tuple[McpServer, str]


class McpServers:
    """Each is one connection, for as long as it stands in the file as it is; calls of requests
    that began by an earlier file go to where that one says. `on_call` hears of each call: server,
    and ok, failed or unknown."""

    def __init__(
        self,
        catalogue: Catalogue,
        on_call: Callable[[str, str], None] = lambda server, result: None,
    ) -> None:
        self._catalogue = catalogue
        self._on_call = on_call
        self._made: dict[Key, ServerPool] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def offered(self, names: Sequence[str]) -> list[OfferedTool]:
        """The tools of these servers that can be called now, in the order of their servers."""
        wanted = [
            self._server(found).offered([name])
            for name in names
            if (found := self._catalogue.edition.mcp_server(name)) is not None
        ]
        return [tool for tools in await asyncio.gather(*wanted) for tool in tools]

    async def call(self, tool: OfferedTool, arguments: Mapping[str, Any], timeout: float) -> Result:
        """Call a tool that was offered. `timeout` in seconds; its own may be shorter."""
        found = self._catalogue.edition.mcp_server(tool.server)
        if found is None:
            return Result(f"error: there is no MCP server {tool.server}", failed=True)
        return await self._server(found).call(tool, arguments, timeout)

    def troubles(self) -> dict[str, str | None]:
        """Each server that flows use by its name, with what is wrong with it now."""
        found: dict[str, str | None] = {}
        for name, key in self._catalogue.latest.mcp_servers().items():
            made = self._made.get(key)
            found[name] = made.troubles[name] if made is not None else None
        return found

    def follow(self) -> None:
        """The flows are others now: say good-bye to servers that are in none of them."""
        wanted = set(self._catalogue.latest.mcp_servers().values())
        for key in [key for key in self._made if key not in wanted]:
            task = asyncio.create_task(self._made.pop(key).close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Say good-bye to all."""
        made, self._made = list(self._made.values()), {}
        await asyncio.gather(*self._closing, *(one.close() for one in made))

    def _server(self, key: Key) -> ServerPool:
        made = self._made.get(key)
        if made is None:
            # Only here: nobody loads the package who has no server.
            from service.mcp.servers import ServerPool

            server, token = key
            tokens = {server.name: token} if token else {}
            made = self._made[key] = ServerPool([server], tokens, on_call=self._on_call)
        return made
