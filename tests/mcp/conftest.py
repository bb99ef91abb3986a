"""A database and a plant's MCP server for each test."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.process import free_port
from tests.rig import ROOT, environment, eventually


@pytest.fixture
def database(tmp_path: Any) -> str:
    return f"sqlite:///{tmp_path / 'test.db'}"


class PlantProcess:
    """The server; `start` again after `kill` listens on the same port."""

    def __init__(self, **options: Any) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        options = json.dumps(self._options)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mcp.plant", str(self.port), options],
            cwd=ROOT,
            env=environment(),
        )
        await eventually(self._up)

    async def _up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None
        with contextlib.suppress(httpx.HTTPError):
            await self.calls()
            return True
        return False

    async def calls(self) -> list[str]:
        """The names of the tools that were called."""
        async with httpx.AsyncClient() as http:
            return list((await http.get(f"http://127.0.0.1:{self.port}/calls")).json())

    def stop(self) -> None:
        """It takes connections and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextlib.asynccontextmanager
async def plant(**options: Any) -> AsyncIterator[PlantProcess]:
    made = PlantProcess(**options)
    try:
        await made.start()
        yield made
    finally:
        made.kill()
