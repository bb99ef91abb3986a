"""The flow for Node-RED, imported and run in a real one."""

from __future__ import annotations

import asyncio
import fcntl
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.demo.running import Running
from tests.demo.test_clients import tool
from tests.examples.program import Program, program
from tests.process import free_port
from tests.rig import ROOT, eventually

FLOW = ROOT / "examples" / "node-red" / "flow.json"
MADE_OF = Path(__file__).parent / "node_red" / "package.json"
CACHE = ROOT / ".cache" / "node-red"
SETTINGS = """module.exports = {
  uiHost: "127.0.0.1", uiPort: PORT, userDir: __dirname, flowFile: "flows.json",
  credentialSecret: false, telemetry: { enabled: false, updateNotification: false },
  logging: { console: { level: "info" } },
}
"""


@pytest.fixture(scope="session")
def node_red() -> Path:
    """Its program, installed once for all test processes."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        here = CACHE / "package.json"
        program = CACHE / "node_modules" / "node-red" / "red.js"
        if not program.exists() or here.read_text() != MADE_OF.read_text():
            shutil.copy(MADE_OF, here)
            npm = (tool("npm"), "install", "--no-package-lock", "--no-audit", "--no-fund")
            asyncio.run(_installed(*npm))
    return program


async def _installed(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=CACHE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


@pytest.fixture
async def red(node_red: Path, tmp_path: Path) -> AsyncIterator[tuple[Program, httpx.AsyncClient]]:
    """A Node-RED with nothing in it."""
    port = free_port()
    (tmp_path / "settings.js").write_text(SETTINGS.replace("PORT", str(port)))
    command = (tool("node"), node_red, "--settings", tmp_path / "settings.js")
    async with (
        program(*command) as running,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
    ):
        await running.says("Started flows")
        yield running, http


def imported(demo: Running) -> list[dict[str, Any]]:
    """The file, with the demo's port for the broker's."""
    nodes = json.loads(FLOW.read_text("utf-8"))
    (broker,) = [node for node in nodes if node["type"] == "mqtt-broker"]
    assert (broker["broker"], broker["port"]) == ("127.0.0.1", "1883")
    broker["port"] = str(demo.broker.mqtt_port)
    return list(nodes)


@pytest.mark.timeout(300)  # the first time it is installed
async def test_the_flow_asks_hears_and_obeys(
    demo: Running, red: tuple[Program, httpx.AsyncClient]
) -> None:
    running, http = red
    answer = await http.post("/flows", json=imported(demo))
    assert answer.status_code == 204, answer.text
    await running.says("Connected to broker")
    topics = {"home/node-red/say", "alerts/+", "home/devices/+/light/set"}
    sessions = demo.broker.mqtt.sessions
    await eventually(lambda: any(topics <= {*one.subscriptions} for one in sessions.values()))
    for button in ("eg.ask", "eg.reading"):
        assert (await http.post(f"/inject/{button}", json={})).status_code == 200
    await running.says(r"Done: kitchen light on\.")
    await running.says("Attention please: sensor oven")
    await running.says(r"your lamp")
    assert "no answer" not in running.said
    assert "unknown" not in running.said.lower()  # a node of no known type


def test_each_wire_leads_to_a_node() -> None:
    nodes = {node["id"]: node for node in json.loads(FLOW.read_text("utf-8"))}
    leads = {end for node in nodes.values() for out in node.get("wires", ()) for end in out}
    assert leads <= nodes.keys()
    assert len(leads) == 7
