"""Flows as tools for MCP clients: what `emqx-gpt mcp` serves, on standard input and output or
over HTTP. A call takes the way of POST /ask: stored first, answered with the flow's retries,
limits and budgets."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterable
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INTERNAL_ERROR,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    TextContent,
    Tool,
    ToolAnnotations,
)
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service import __version__
from service.errors import ApiError
from service.mcp.running_service import FlowShown, RunningService

PATH = "/mcp"
MAX_BODY = 1 << 20  # bytes of a call
LOOPBACK = ("127.0.0.1", "localhost", "::1")

logging.getLogger("mcp").setLevel(logging.CRITICAL)


class FlowTools:
    """The handlers."""

    def __init__(self, running: RunningService) -> None:
        self._running = running

    async def list(self, context: Any, params: Any) -> ListToolsResult:
        try:
            flows = await self._running.flows()
        except ApiError as error:
            raise MCPError(INTERNAL_ERROR, error.message) from None
        return ListToolsResult(tools=[_tool(flow) for flow in flows])

    async def call(self, context: Any, params: CallToolRequestParams) -> CallToolResult:
        given = params.arguments or {}
        text, conversation = given.get("text"), given.get("conversation")
        if not isinstance(text, str) or not text:
            return _failed('"text" is missing: the question, as a string')
        if conversation is not None and not isinstance(conversation, str):
            return _failed('"conversation" is a string')
        try:
            answer = await self._running.ask(params.name, text, conversation)
        except ApiError as error:
            return _failed(error.message)
        said = (
            answer.text if answer.text is not None else f"({answer.state}: the flow says nothing)"
        )
        about = {"id": answer.id, "conversation": answer.conversation, "state": answer.state}
        return CallToolResult(
            content=[TextContent(type="text", text=said)],
            structured_content={"text": answer.text, **about},
        )


def _failed(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def _tool(flow: FlowShown) -> Tool:
    text = "What is asked, as a person would say it."
    if flow.input == "json":
        text = "A JSON document, as a device would publish it."
    properties: dict[str, Any] = {"text": {"type": "string", "minLength": 1, "description": text}}
    if flow.memory:
        properties["conversation"] = {
            "type": "string",
            "maxLength": 200,
            "description": "Goes on with a conversation: what an earlier answer gave as this.",
        }
    maybe = {"type": ["string", "null"]}
    return Tool(
        name=flow.name,
        description=flow.description or f"Ask the flow {flow.name} of emqx-gpt.",
        input_schema={
            "type": "object",
            "required": ["text"],
            "properties": properties,
            "additionalProperties": False,
        },
        output_schema={
            "type": "object",
            "required": ["text", "id", "conversation", "state"],
            "properties": {
                "text": maybe,
                **{name: {"type": "string"} for name in ("id", "conversation", "state")},
            },
        },
        annotations=ToolAnnotations(
            read_only_hint=not flow.acts, destructive_hint=flow.acts, idempotent_hint=False
        ),
    )


def server_of(running: RunningService) -> Server[Any]:
    """The MCP server."""
    tools = FlowTools(running)
    return Server(
        "emqx-gpt",
        version=__version__,
        instructions="Each tool is a flow of emqx-gpt: a model with its prompt, memory and tools.",
        on_list_tools=tools.list,
        on_call_tool=tools.call,
    )


async def over_stdio(running: RunningService) -> None:
    """Serve one client on standard input and output, until it goes."""
    server = server_of(running)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def over_http(running: RunningService, tokens: Iterable[str], host: str) -> ASGIApp:
    """The application, at /mcp, for who has one of `tokens`."""
    security = None  # on loopback: only by the names of this machine, so that no page gets in
    if host not in LOOPBACK:
        security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    inner = server_of(running).streamable_http_app(
        streamable_http_path=PATH,
        stateless_http=True,
        json_response=True,
        max_request_body_size=MAX_BODY,
        transport_security=security,
        host=host,
    )
    return _Guarded(inner, tokens)


class _Guarded:
    """Nothing for who has no token."""

    def __init__(self, app: ASGIApp, tokens: Iterable[str]) -> None:
        self._app = app
        self._wanted = [f"Bearer {token}".encode() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"")
            # All are compared, so that the time taken tells nothing.
            matches = [hmac.compare_digest(given, one) for one in self._wanted]
            if not any(matches):
                text = "the bearer token is missing or wrong; it is MCP_TOKEN, or OPERATOR_TOKEN"
                app = JSONResponse(
                    {"error": {"code": "unauthorized", "message": text}},
                    status_code=401,
                    headers={"www-authenticate": "Bearer"},
                )
        await app(scope, receive, send)
