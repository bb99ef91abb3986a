"""Tools of MCP servers, as one request may call them. Calls go through the gate, as those of the
flow's own tools do."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from service.flows import Flow, Tool
from service.flows.check_mcp import BETWEEN
from service.mcp.offer import OfferedTool
from service.mcp.result_text import Result

MOST = 128  # tools that one question may hold, of the flow and of servers; OpenAI takes no more

log = logging.getLogger("emqx-gpt.mcp")


class ToolServers(Protocol):
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

    servers: ToolServers = field(default_factory=NoServers)
    names: Sequence[str] = ()
    tools: Mapping[str, OfferedTool] = field(default_factory=dict)

    def meant(self, name: str) -> bool:
        """Whether a tool of that name is of a server, whether it is there or not."""
        return name.partition(BETWEEN)[0] in self.names and BETWEEN in name


NO_TOOLS = Remote()


def tool_of(remote: OfferedTool, flow: Flow) -> Tool:
    """A server's tool as one of the flow's: with who is asked first, and what must not repeat."""
    return Tool(
        name=remote.name,
        description=remote.description,
        parameters=remote.schema,
        at_most_once=remote.at_most_once,
        confirm=flow.asks.get(remote.server) if remote.confirm else None,
    )


async def remote_of(flow: Flow, servers: ToolServers) -> Remote:
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
