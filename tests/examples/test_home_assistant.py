"""The packages for Home Assistant: by its own check_config, and in one that runs.

Its pins clash with ours, so it has an environment of its own: `make home`. Without it these tests
are skipped, and say so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.demo.play import Client
from service.demo.running import Running
from tests.examples.program import Program, program
from tests.process import free_port
from tests.rig import ROOT, eventually, message

PYTHON = ROOT / ".venv-home" / "bin" / "python"
PACKAGES = ROOT / "examples" / "home-assistant"
HERE = Path(__file__).parent / "home"
pytestmark = [
    pytest.mark.skipif(
        not (PYTHON.parents[1] / ".made").exists(), reason="no Home Assistant here: make home"
    ),
    pytest.mark.timeout(300),  # it takes a while to start on a busy machine
]
CONFIGURATION = """
homeassistant:
  name: Home
  latitude: 52
  longitude: 13
  time_zone: UTC
  unit_system: metric
  packages: !include_dir_named packages
http: {server_host: 127.0.0.1, server_port: PORT}
logger: {default: info}
"""
ENTRY = {
    "entry_id": "1" * 32, "version": 1, "minor_version": 1, "domain": "mqtt", "title": "EMQX",
    "options": {}, "pref_disable_new_entities": False, "pref_disable_polling": False,
    "source": "user", "unique_id": None, "disabled_by": None,
}  # fmt: skip
FAULT = re.compile(r"ERROR|Failed config|Invalid config|could not be validated|Error loading")


def configured(folder: Path, port: int = 1883) -> Path:
    """A configuration with both packages, and MQTT as its page would set it up."""
    (folder / "configuration.yaml").write_text(CONFIGURATION.replace("PORT", str(free_port())))
    packages = folder / "packages"
    packages.mkdir()
    for path in PACKAGES.glob("*.yaml"):
        shutil.copy(path, packages)
    (folder / ".storage").mkdir()
    entry = ENTRY | {"data": {"broker": "127.0.0.1", "port": port, "discovery": False}}
    entries = {"version": 1, "minor_version": 1, "key": "core.config_entries",
               "data": {"entries": [entry]}}  # fmt: skip
    (folder / ".storage" / "core.config_entries").write_text(json.dumps(entries))
    return folder


def checked(folder: Path) -> str:
    command = [PYTHON, "-m", "homeassistant", "--script", "check_config", "-c", folder]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    return done.stdout + done.stderr


def test_check_config_finds_no_fault(tmp_path: Path) -> None:
    said = checked(configured(tmp_path))
    assert "Testing configuration" in said
    assert not FAULT.search(said), said


@pytest.mark.parametrize(
    ("good", "bad"),
    [("{{ question }}", "{{ question "), ("service: light.turn_off", "servic: light.turn_off")],
)
def test_check_config_would_find_one(good: str, bad: str, tmp_path: Path) -> None:
    file = configured(tmp_path) / "packages" / "emqx_gpt.yaml"
    text = file.read_text("utf-8")
    assert good in text
    file.write_text(text.replace(good, bad))
    assert FAULT.search(checked(tmp_path))


@asynccontextmanager
async def home(folder: Path, port: int) -> AsyncIterator[Program]:
    shutil.copy(HERE / "house.yaml", configured(folder, port) / "packages")
    command = (PYTHON, "-m", "homeassistant", "--skip-pip", "--config", folder)
    async with program(*command, env={"PYTHONPATH": str(HERE)}) as running:
        await running.says("Starting Home Assistant", 150)
        yield running


async def heard(client: Client, topic: str) -> str:
    """The next message on a topic; others are passed by."""
    while True:
        found, payload = await message(client)
        if found == topic:
            return payload.decode()


async def test_a_home_asks_obeys_warns_and_speaks(
    demo: Running, visitor: Client, tmp_path: Path
) -> None:
    await visitor.subscribe(["house/#", "home/#"])
    async with home(tmp_path, demo.broker.mqtt_port):
        topics = {"alerts/+", "home/devices/+/light/set", "home/ha/say", "/xiaomi/reply"}
        topics |= {"house/ask", "house/heard", "house/bedroom"}
        sessions = demo.broker.mqtt.sessions
        await eventually(lambda: any(topics <= {*one.subscriptions} for one in sessions.values()))

        await visitor.publish("house/ask", b"Light up the kitchen.")
        assert await heard(visitor, "house/lamp") == "on"
        assert "kitchen light on" in await heard(visitor, "house/card")

        await visitor.publish("sensors/oven/telemetry", b'{"temperature": 250}')
        assert (await heard(visitor, "house/notified")).startswith("oven: (offline model) Att")

        await visitor.publish("house/bedroom", b"19.5")
        read = "home/devices/bedroom/climate/state"
        while await heard(visitor, read) != '{"temperature": 19.5}':
            pass  # what it told at its start
        await visitor.publish("house/ask", b"How warm is it in the bedroom?")
        assert "19.5" in await heard(visitor, "house/card")

        await visitor.publish("house/heard", "小爱机器人今天适合出门吗".encode())
        assert "今天适合出门吗" in await heard(visitor, "house/played")
