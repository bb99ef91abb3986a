"""Real clients of all kinds join with their defaults, over TCP and WebSocket."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from service.demo.standin.broker import StandIn
from tests.demo.mqtt_client import client

CLIENTS = Path(__file__).parent / "clients"
CACHE = Path(__file__).parents[2] / ".cache" / "clients"
TIMEOUT = 60


def tool(name: str) -> str:
    """Where a program is. Without it the test fails: .ci/run installs all of them."""
    found = shutil.which(name)
    assert found, f"this test needs {name}; .ci/run installs it"
    return found


async def run(*command: str, cwd: Path | None = None) -> str:
    """What a program printed; it has to end well."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), TIMEOUT)
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode == 0, said.decode()
    return said.decode()


@pytest.fixture(scope="session")
def cache() -> Path:
    """Clients in C and JavaScript, installed and compiled once for all test processes."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = CACHE / "made-of"
        parts = "\n".join(path.read_text() for path in sorted(CLIENTS.iterdir()))
        if not stamp.exists() or stamp.read_text() != parts:
            for path in CLIENTS.iterdir():
                shutil.copy(path, CACHE)
            npm = [tool("npm"), "install", "--no-package-lock", "--no-audit", "--no-fund"]
            asyncio.run(run(*npm, cwd=CACHE))
            gcc = [tool("gcc"), "-o", "pahoc", "pahoc.c", "-lpaho-mqtt3c"]
            asyncio.run(run(*gcc, cwd=CACHE))
            stamp.write_text(parts)
    return CACHE


def published(broker: StandIn, topic: str) -> list[bytes]:
    return [message.payload for message in broker.mqtt.published if message.topic == topic]


@pytest.mark.parametrize("version", [None, "4", "5"])
@pytest.mark.parametrize("scheme", ["mqtt", "ws"])
async def test_mqtt_js(broker: StandIn, cache: Path, scheme: str, version: str | None) -> None:
    """On which MQTTX is built."""
    port = broker.ws_port if scheme == "ws" else broker.mqtt_port
    for path in ("", "/mqtt") if scheme == "ws" else ("",):
        url = f"{scheme}://127.0.0.1:{port}{path}"
        more = [] if version is None else [version]
        said = await run(tool("node"), str(cache / "mqttjs.js"), url, *more)
        assert said == "from mqtt.js\n"
    assert published(broker, "hello/empty")[0] == b""
    assert published(broker, "hello/mqttjs")[0] == b"from mqtt.js"


async def test_paho_javascript(broker: StandIn, cache: Path) -> None:
    script = str(cache / "pahojs.js")
    said = await run(tool("node"), script, "127.0.0.1", str(broker.ws_port))
    assert said == "from paho JavaScript\n"
    assert published(broker, "hello/pahojs") == [b"from paho JavaScript"]


@pytest.mark.parametrize("version", ["0", "5"])
@pytest.mark.parametrize("scheme", ["tcp", "ws"])
async def test_paho_c(broker: StandIn, cache: Path, scheme: str, version: str) -> None:
    port = broker.ws_port if scheme == "ws" else broker.mqtt_port
    said = await run(str(cache / "pahoc"), f"{scheme}://127.0.0.1:{port}", version)
    assert said == "from paho C\n"
    assert published(broker, "hello/pahoc") == [b"from paho C"]


@pytest.mark.parametrize("protocol", [paho.MQTTv31, paho.MQTTv311, paho.MQTTv5])
@pytest.mark.parametrize("transport", ["tcp", "websockets"])
async def test_paho_python(broker: StandIn, transport: Any, protocol: Any) -> None:
    port = broker.mqtt_port if transport == "tcp" else broker.ws_port
    async with client(port, "paho", transport=transport, protocol=protocol) as device:
        await device.subscribe("hello/#", qos=2)
        await device.publish("hello/paho", "from paho Python", 2)
        assert (await device.next()).payload == b"from paho Python"


@pytest.mark.parametrize("transport", ["tcp", "websockets"])
async def test_aiomqtt(broker: StandIn, transport: Any) -> None:
    port = broker.mqtt_port if transport == "tcp" else broker.ws_port
    async with aiomqtt.Client("127.0.0.1", port, transport=transport) as device:
        await device.subscribe("hello/#", qos=1)
        await device.publish("hello/aiomqtt", "from aiomqtt", qos=1)
        async with asyncio.timeout(TIMEOUT):
            message = await anext(device.messages)
        assert message.payload == b"from aiomqtt"


@pytest.mark.parametrize("version", [None, "mqttv31", "mqttv311", "mqttv5"])
async def test_mosquitto_pub_and_sub(broker: StandIn, version: str | None) -> None:
    at = ["-h", "127.0.0.1", "-p", str(broker.mqtt_port), *(["-V", version] if version else [])]
    retained = ["-t", "hello/m", "-m", "from mosquitto_pub", "-q", "2", "-r"]
    await run(tool("mosquitto_pub"), *at, *retained)
    said = await run(tool("mosquitto_sub"), *at, "-t", "hello/#", "-q", "2", "-C", "1", "-v")
    assert said == "hello/m from mosquitto_pub\n"


@asynccontextmanager
async def responder(port: int) -> AsyncIterator[None]:
    """Answers on the Response-Topic with the request's Correlation-Data."""
    async with client(port, "responder", protocol=paho.MQTTv5) as device:

        def answer(found: paho.Client, _: object, message: paho.MQTTMessage) -> None:
            properties = Properties(PacketTypes.PUBLISH)
            assert message.properties is not None
            if hasattr(message.properties, "CorrelationData"):
                properties.CorrelationData = message.properties.CorrelationData
            topic = message.properties.ResponseTopic
            found.publish(topic, b"you said " + message.payload, 1, properties=properties)

        device.paho.on_message = answer
        await device.subscribe("ask/#")
        yield


async def test_mosquitto_rr(broker: StandIn) -> None:
    """Its default is MQTT 5, as Response-Topic wants it."""
    async with responder(broker.mqtt_port):
        said = await run(
            *(tool("mosquitto_rr"), "-h", "127.0.0.1", "-p", str(broker.mqtt_port)),
            *("-t", "ask/x", "-e", "answer/x", "-m", "hello"),
        )
    assert said == "you said hello\n"


async def test_what_is_not_done_is_refused_with_a_word(broker: StandIn) -> None:
    """Enhanced authentication: a reason that the client shows."""
    command = [tool("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(broker.mqtt_port)]
    command += ["-V", "mqttv5", "-t", "a", "-m", "x"]
    command += ["-D", "connect", "authentication-method", "SCRAM-SHA-1"]
    process = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.PIPE, env={**os.environ, "LC_ALL": "C"}
    )
    _, said = await asyncio.wait_for(process.communicate(), TIMEOUT)
    assert process.returncode != 0
    assert b"authentication" in said.lower()
