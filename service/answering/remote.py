"""Tools of MCP servers, as one request may call them: a call becomes a sentence for the model,
as with the flow's own tools."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from service.bodies import parsed
from service.flows import Flow
from service.flows.check_mcp import BETWEEN
from service.flows.schemas import fault_in
from service.mcp.offer import OfferedTool
from service.mcp.results import Result

MOST = 128  # tools that one question may hold, of the flow and of servers; OpenAI takes no more
INTERRUPTED = "unknown: interrupted; it may or may not have been done and is not repeated"

log = logging.getLogger("emqx-gpt.mcp")


class Servers(Protocol):
    """The MCP servers of flows.toml, or what stands in for them in a replay."""

    async def offered(self, names: Sequence[str]) -> list[OfferedTool]:
        """The tools of these servers that can be called now."""

    async def call(self, tool: OfferedTool, arguments: Mapping[str, Any], timeout: float) -> Result:
        """Call one of them. `timeout` in seconds."""


class NoServers:
    """There are none."""

    async def offered(self, names: Sequence[str]) -> list[OfferedTool]:
        return []

    async def call(self, tool: OfferedTool, arguments: Mapping[str, Any], timeout: float) -> Result:
        return Result("error: there is no such tool", failed=True)


@dataclass(frozen=True, slots=True)
class Remote:
    """What one request was offered of the servers that its flow names."""

    servers: Servers = field(default_factory=NoServers)
    names: Sequence[str] = ()
    tools: Mapping[str, OfferedTool] = field(default_factory=dict)

    def meant(self, name: str) -> bool:
        """Whether a tool of that name is of a server, whether it is there or not."""
        return name.partition(BETWEEN)[0] in self.names and BETWEEN in name

    async def call(self, call: Mapping[str, Any], left: float, *, resumed: bool) -> str:
        """What the model is told. `left`: seconds until the request's deadline; `resumed`: an
        earlier process may have made the call."""
        tool = self.tools.get(call["name"])
        if resumed and (tool is None or tool.at_most_once):
            return INTERRUPTED
        if tool is None:
            return f"error: there is no tool {call['name']!r} now"
        try:
            arguments = parsed(call["arguments"] or "{}")
        except ValueError:
            return "error: the arguments are not JSON"
        if found := fault_in(arguments, tool.schema):
            return f"error: {found}"[:500]
        return (await self.servers.call(tool, arguments, max(1.0, left))).text


NO_TOOLS = Remote()


async def remote_of(flow: Flow, servers: Servers) -> Remote:
    """What `flow` may call now."""
    if not flow.tools_from:
        return NO_TOOLS
    offered = await servers.offered(flow.tools_from)
    room = MOST - len(flow.tools)
    if len(offered) > room:
        log.warning(
            "flow %s: %d of %d MCP tools are left out, since a model takes %d; narrow allow",
            flow.name,
            len(offered) - room,
            len(offered),
            MOST,
        )
    return Remote(servers, flow.tools_from, {tool.name: tool for tool in offered[: max(0, room)]})
