"""An MCP server of a plant, as a process of its own: good tools, bad ones, and a door that wants
a token. What was called is told at /calls, to tests alone.

    python -m tests.mcp.plant PORT '{"token": "…", "many": 200, "bad": true, "old": true}'
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import sys
from typing import Any

import anyio
import uvicorn
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp.types import (
    METHOD_NOT_FOUND,
    CallToolResult,
    ImageContent,
    ListToolsResult,
    TextContent,
    Tool,
    ToolAnnotations,
)
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

READ = ToolAnnotations(read_only_hint=True)
REPEATABLE = ToolAnnotations(destructive_hint=False, idempotent_hint=True)
ONCE = ToolAnnotations(destructive_hint=False, idempotent_hint=False)
NAMED = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
SECONDS = {"type": "object", "properties": {"seconds": {"type": "number"}}}

TOOLS = [
    Tool(name="get_state", description="State of a valve", input_schema=NAMED, annotations=READ),
    Tool(name="get_all.valves", input_schema={"type": "object"}, annotations=READ),
    Tool(name="get_picture", input_schema={"type": "object"}, annotations=READ),
    Tool(
        name="get_log",
        input_schema={"type": "object", "properties": {"size": {"type": "integer"}}},
        annotations=READ,
    ),
    Tool(name="get_late", input_schema=SECONDS, annotations=READ),
    Tool(name="set_valve", input_schema=NAMED, annotations=REPEATABLE),
    Tool(name="dose", input_schema=SECONDS, annotations=ONCE),
    Tool(name="dose_and_die", input_schema={"type": "object"}, annotations=ONCE),
    Tool(name="fail", input_schema={"type": "object"}, annotations=READ),
    Tool(name="purge", description="Empty the tank", input_schema={"type": "object"}),
]
BAD: list[tuple[str, dict[str, Any]]] = [
    ("bad_type", {"type": "object", "properties": {"a": {"type": "strin"}}}),
    ("bad_ref", {"type": "object", "properties": {"a": {"$ref": "https://example.org/a"}}}),
    ("bad_size", {"type": "object", "description": "x" * 20_000}),
    (
        "odd_but_fine",
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "anyOf": [{"required": ["a"]}],
            "properties": {"a": {"type": "string", "pattern": "(?=x)y", "x-order": 1}},
        },
    ),
]


class Plant:
    """Counts, and answers."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.calls: list[str] = []
        self.page = options.get("page", 50)
        self.error = options.get("error")
        self.tools = list(TOOLS)
        if options.get("bad"):
            self.tools += [Tool(name=n, input_schema=s, annotations=READ) for n, s in BAD]
        pattern = options.get("pattern")
        self.tools += [
            Tool(
                name=f"get_{at:03}",
                input_schema=patterned(pattern, at) if pattern else {"type": "object"},
                annotations=READ,
            )
            for at in range(options.get("many", 0))
        ]

    async def list(self, context: Any, params: Any) -> ListToolsResult:
        start = int(params.cursor) if params and params.cursor else 0
        page = self.tools[start : start + self.page]
        more = str(start + self.page) if start + self.page < len(self.tools) else None
        return ListToolsResult(tools=page, next_cursor=more)

    async def call(self, context: Any, params: Any) -> CallToolResult:
        self.calls.append(params.name)
        given = params.arguments or {}
        if params.name == "dose" and self.error is not None:
            raise MCPError(self.error, "the pump did not answer in time")
        match params.name:
            case "get_state":
                return said(json.dumps({"name": given["name"], "open": True}))
            case "get_picture":
                data = base64.b64encode(b"\xff\xd8").decode()
                image = ImageContent(type="image", data=data, mime_type="image/jpeg")
                return CallToolResult(content=[image, TextContent(type="text", text="a tank")])
            case "get_log":
                return said("line é\n" * (given["size"] // 8))
            case "get_late" | "dose":
                await anyio.sleep(given.get("seconds", 0))
                return said("well")
            case "dose_and_die":
                os._exit(1)
            case "fail":
                return CallToolResult(
                    content=[TextContent(type="text", text="valve jammed")], is_error=True
                )
        return said("done")


def patterned(pattern: str, at: int) -> dict[str, Any]:
    found = {"type": "string", "pattern": pattern.replace("AT", str(at % 50 + 1))}
    return {"type": "object", "properties": {"a": found}}


def said(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)])


async def no_discovery(context: Any, params: Any) -> Any:
    raise MCPError(METHOD_NOT_FOUND, "Method not found")


def app(options: dict[str, Any]) -> Any:
    plant = Plant(options)
    server: Server[Any] = Server("plant", on_list_tools=plant.list, on_call_tool=plant.call)
    if options.get("old"):  # of the years in which a connection began with a handshake
        from mcp.types import RequestParams

        server.add_request_handler("server/discover", RequestParams, no_discovery)

    async def calls(request: Request) -> JSONResponse:
        return JSONResponse(plant.calls)

    inner = server.streamable_http_app(custom_starlette_routes=[Route("/calls", calls)])
    wanted = f"Bearer {options['token']}" if "token" in options else None

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and wanted is not None and scope["path"] != "/calls":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, wanted.encode()):
                await PlainTextResponse("no", status_code=401)(scope, receive, send)
                return
        await inner(scope, receive, send)

    return guarded


if __name__ == "__main__":
    made = app(json.loads(sys.argv[2]))
    uvicorn.run(made, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", log_config=None)
