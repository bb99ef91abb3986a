"""A real Prometheus on loopback that scrapes one service, for as long as a test needs it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.process import free_port
from tests.rig import ROOT, eventually

PROGRAM = shutil.which("prometheus")
EVERY = "1s"


class Prometheus:
    """Its HTTP API."""

    def __init__(self, port: int) -> None:
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30)

    async def get(self, path: str, **query: Any) -> Any:
        """The answer's data. Fails with what Prometheus says of a bad query."""
        answer = await self._http.get(f"/api/v1/{path}", params=query)
        found = answer.json()
        assert found["status"] == "success", (query, found)
        return found["data"]

    async def query(self, expr: str) -> list[Any]:
        return list((await self.get("query", query=expr))["result"])

    async def ready(self) -> bool:
        try:
            return (await self._http.get("/-/ready")).status_code == 200
        except httpx.TransportError:
            return False

    async def close(self) -> None:
        await self._http.aclose()


@contextlib.asynccontextmanager
async def prometheus(folder: Path, target: int) -> AsyncIterator[Prometheus]:
    """With our example configuration, but that it looks each second, and at this port."""
    config = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": EVERY, "evaluation_interval": EVERY}
    config["rule_files"] = [str(ROOT / "prometheus" / name) for name in config["rule_files"]]
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{target}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        str(PROGRAM),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=1h",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "GOMAXPROCS": "1"}
        )
    found = Prometheus(port)
    try:

        async def up() -> bool:
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            return await found.ready()

        await eventually(up)
        yield found
    finally:
        await found.close()
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, 20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
