"""`emqx-gpt mcp`: the flows of the running service as tools for MCP clients."""

from __future__ import annotations

import asyncio
import logging

import uvicorn

from service import settings
from service.cli.asking import service_url
from service.errors import ConfigError, Fault
from service.flows.check_mcp import EXTRA, installed
from service.mcp.running_service import RunningService
from service.operations import logs
from service.server import bind
from service.settings import HOW_TO_SET, Settings

log = logging.getLogger("emqx-gpt.mcp")


async def serve(*, url: str | None, port: int | None, host: str) -> None:
    """Over HTTP on `port`, or on standard input and output. Raises ConfigError."""
    if not installed():
        raise ConfigError(f"emqx-gpt mcp needs the package mcp, from version 2 on: {EXTRA}")
    loaded = settings.load()
    logs.configure(loaded.log_level, loaded.log_format)  # to standard error
    tokens = loaded.operator_tokens
    running = RunningService(url or service_url(loaded), tokens[0] if tokens else None)
    try:
        if port is None:
            from service.mcp.offered_flows import over_stdio

            await over_stdio(running)
        else:
            await _http(running, loaded, host, port)
    finally:
        await running.close()


async def _http(running: RunningService, loaded: Settings, host: str, port: int) -> None:
    from service.mcp.offered_flows import PATH, over_http

    tokens = loaded.mcp_tokens or loaded.operator_tokens
    if not tokens:
        why = "is not set, nor is OPERATOR_TOKEN: whoever reaches the port could ask"
        raise ConfigError("settings can't be used", (Fault("MCP_TOKEN", why, hint=HOW_TO_SET),))
    sock = bind(host, port)
    config = uvicorn.Config(
        over_http(running, tokens, host),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    log.info("listening on http://%s:%d%s", *sock.getsockname()[:2], PATH)
    try:
        await uvicorn.Server(config).serve(sockets=[sock])
    except asyncio.CancelledError:  # by Ctrl-C
        log.debug("cancelled")
