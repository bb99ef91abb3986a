"""Behind a real LiteLLM proxy and before llmock, which anyone can install.

Their pins clash with ours, so they have an environment of their own: `make gateways`. Without
it these tests are skipped, and say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import orjson
import pytest

from tests.fakes.model import FakeModel, ok, tool_calls
from tests.rig import ROOT, Rig, eventually, rig

BIN = ROOT / ".venv-gateways" / "bin"
KEY = "sk-3f9c2e7b81d54a6fa0c4"
STARTS = 150  # seconds that LiteLLM may take to start on a busy machine
pytestmark = pytest.mark.skipif(
    not (BIN / "litellm").exists(), reason="no LiteLLM and llmock here: make gateways"
)
CONFIG = """
model_list:
  - model_name: m
    litellm_params: {model: openai/m, api_base: "URL", api_key: x}
  - model_name: long
    litellm_params:
      {model: openai/m, api_key: x, mock_response: "litellm.ContextWindowExceededError"}
  - model_name: busy
    litellm_params: {model: openai/m, api_key: x, mock_response: "litellm.RateLimitError"}
router_settings: {num_retries: 0}
litellm_settings: {num_retries: 0, telemetry: false}
general_settings: {master_key: MASTER}
"""
FLOWS = """
[flows.chat]
request = "chat/${user}"
reply = "chat/${user}/reply"
model = "m"

[flows.tools]
request = "tools/${user}"
reply = "tools/${user}/reply"
model = "m"
[[flows.tools.tools]]
name = "set_light"
description = "Switch a lamp"
topic = "devices/light/set"
payload = "${on}"
parameters = { properties = { on = { type = "boolean" } } }

[flows.stream]
request = "stream/${user}"
reply = "stream/${user}/reply"
stream = "stream/${user}/deltas"
model = "m"

[flows.missing]
request = "missing/${user}"
reply = "missing/${user}/reply"
model = "nosuch"
fallback = "m"

[flows.long]
request = "long/${user}"
reply = "long/${user}/reply"
model = "long"
fallback = "m"
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.asynccontextmanager
async def running(*args: str, url: str, seconds: float) -> AsyncIterator[None]:
    """A program, once it answers at `url`."""
    names = ("PATH", "HOME", "LANG")
    environ = {name: os.environ[name] for name in names if name in os.environ}
    environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    process = await asyncio.create_subprocess_exec(
        *args,
        env=environ,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(timeout=5) as http:

            async def up() -> bool:
                with contextlib.suppress(httpx.HTTPError):
                    return (await http.get(url)).status_code == 200
                return False

            await eventually(up, seconds)
        yield
    finally:
        process.terminate()
        await process.wait()


async def answered(house: Rig, flow: str) -> str:
    """The reply of a flow to "hi"."""
    body = {"id": f"{flow}-{time.monotonic_ns()}", "topic": f"{flow}/ann", "payload": "hi"}
    assert (await house.webhook(body)).status_code == 202
    (newest, *_) = await house.ended(1, seconds=30, flow=flow)
    request = await house.request(newest["id"])
    assert request["state"] == "done", request
    return str(request["reply"])


async def test_behind_litellm(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    database = f"sqlite:///{tmp_path / 'test.db'}"
    config = tmp_path / "config.yaml"
    async with FakeModel() as model:
        config.write_text(CONFIG.replace("URL", model.base_url).replace("MASTER", KEY))
        command = (str(BIN / "litellm"), "--config", str(config), "--port", str(port))
        ready = f"{url}/health/liveliness"
        async with running(*command, "--host", "127.0.0.1", url=ready, seconds=STARTS):
            settings = {"openai_base_url": f"{url}/v1", "openai_api_key": KEY}
            async with rig(database, flows=FLOWS, **settings) as house:
                assert await answered(house, "chat") == "echo: hi"
                assert await answered(house, "stream") == "echo: hi"
                model.script(tool_calls([("set_light", {"on": True})]), ok("It is on."))
                assert await answered(house, "tools") == "It is on."
                published = [one.payload for one in house.broker.mqtt.published]
                assert b"true" in published
                assert await answered(house, "missing") == "echo: hi"
                assert await answered(house, "long") == "echo: hi"
            settings["openai_api_key"] = "sk-wrong"
            async with rig(f"{database}2", flows=FLOWS, **settings) as house:
                await house.webhook({"id": "x", "topic": "chat/ann", "payload": "hi"})

                async def red() -> bool:
                    return not (await house.http.get("/readyz")).json()["model"]["ok"]

                await eventually(red)


async def test_at_the_rate_that_llmock_grants(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = (str(BIN / "llmock"), "serve", "--port", str(port), "--rpm", "600")
    async with running(*command, url=f"{url}/health", seconds=30):
        database = f"sqlite:///{tmp_path / 'test.db'}"
        async with rig(database, flows=FLOWS, openai_base_url=f"{url}/v1") as house:
            for number in range(700):
                body = {"id": f"q{number}", "topic": f"chat/u{number}", "payload": "hi"}
                assert (await house.webhook(body)).status_code == 202
            await eventually(lambda: ended(house, 700), 60)
            async with httpx.AsyncClient() as http:
                listed = orjson.loads((await http.get(f"{url}/_llmock/requests")).content)
            statuses = [one.get("status") for one in listed.get("requests", listed)]
            assert statuses.count(429) < 0.05 * len(statuses)


async def ended(house: Rig, count: int) -> bool:
    text = (await house.http.get("/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("emqx_gpt_ended_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines) >= count
