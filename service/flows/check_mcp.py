"""What joins [mcp.NAME] and `tools_from`; and, of the machine, what a server needs there."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Collection, Mapping

from service.errors import Fault
from service.flows.flow import Flow, Flows
from service.flows.lines import Path
from service.flows.report import Report, suggest
from service.flows.tables import LONGEST_MCP_NAME, MCP_NAME

BETWEEN = "__"
"""Stands between a server's name and its tool's, in what the model is offered."""
EXTRA = "pip install 'emqx-gpt[mcp]'"


def check_name(name: str, report: Report) -> bool:
    """Report a name of which no tools' names can be made; whether it is fine."""
    if re.fullmatch(MCP_NAME, name) and len(name) <= LONGEST_MCP_NAME:
        return True
    hint = f"a letter, then letters, digits, - and single _, at most {LONGEST_MCP_NAME} characters"
    report.add(("mcp", name), "can't be an MCP server's name", hint)
    return False


def check_mcp(flows: Flows, written: Collection[str], report: Report) -> None:
    """Report servers that are unknown, and tools that would share a name. `written` are the names
    in the file: a server with a fault is not unknown."""
    for flow in flows.flows.values():
        base: Path = ("flows", flow.name)
        for index, name in enumerate(flow.tools_from):
            if name not in written:
                hint = suggest(name, written) or f"add [mcp.{name}] with its url"
                report.add((*base, "tools_from", index), f'no MCP server "{name}"', hint)
            elif name in flow.tools_from[:index]:
                said = f'"{name}" stands there twice'
                report.warn((*base, "tools_from", index), said, "leave one of them out")
        _check_tools(flow, base, report)
    taken = {name for flow in flows.flows.values() for name in flow.tools_from}
    for name, server in flows.mcp.items():
        if name not in taken:
            hint = f'a flow with tools_from = ["{name}"] would'
            report.warn(("mcp", name), "is not used: no flow takes its tools", hint)
        if server.confirm:
            report.add(
                ("mcp", name, "confirm"),
                "nobody can be asked before a call of an MCP tool yet",
                "leave it out: what may destroy something is then not offered; false offers it",
            )


def _check_tools(flow: Flow, base: Path, report: Report) -> None:
    for index, tool in enumerate(flow.tools):
        server = tool.name.partition(BETWEEN)[0]
        if BETWEEN in tool.name and server in flow.tools_from:
            said = f'"{tool.name}" is what a tool of the MCP server {server} is called'
            report.add((*base, "tools", index, "name"), said, "give it another name")


def unready(flows: Flows, environ: Mapping[str, str]) -> list[Fault]:
    """What the servers that flows use need, and this machine lacks: the package, tokens."""
    used = {name for flow in flows.flows.values() for name in flow.tools_from}
    servers = [server for name, server in flows.mcp.items() if name in used]
    faults = []
    if servers and not installed():
        where = f"mcp.{servers[0].name}"
        text = f"{where}: needs the package mcp, from version 2 on"
        faults.append(Fault(flows.source, text, servers[0].line, EXTRA))
    for server in servers:
        variable = server.token_env
        if variable is None:
            continue
        token, text = environ.get(variable, ""), f"mcp.{server.name}.token_env: {variable}"
        if not token:
            hint = "set it to the token that the MCP server wants, or leave token_env out"
            faults.append(Fault(flows.source, f"{text} is not set", server.line, hint))
        elif not (token.isascii() and token.isprintable()) or token != token.strip():
            said = f"{text} has a character that no token has, as a blank or a line break"
            faults.append(Fault(flows.source, said, server.line, "copy the token once more"))
    return faults


def installed() -> bool:
    """Whether the package is there, and not its version 1."""
    return all(importlib.util.find_spec(name) is not None for name in ("mcp", "mcp_types"))
