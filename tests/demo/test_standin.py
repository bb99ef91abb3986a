"""The stand-in as a whole: its rules at work, its ports, its end, and as a process."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from pathlib import Path

import httpx
import pytest

from service.demo.standin.broker import StandIn
from tests.demo.mqtt_client import TIMEOUT, MqttClient, client
from tests.demo.webhook import Webhook, config, until

REPLY = '''
rule_engine.rules.reply {
  sql = """SELECT json_decode(payload) as p, base64_decode(p.correlation) as corr
    FROM "internal/reply" WHERE clientid = 'http_api' and is_null(peerhost) """
  actions = [{function = republish, args = {topic = "${p.topic}", payload = "${p.payload}",
    qos = 1, retain = false, mqtt_properties = {"Correlation-Data" = "${corr}"},
    user_properties = "${p.user}"}}]
}
'''


async def test_a_reply_with_binary_correlation_data(
    broker: StandIn, rest: httpx.AsyncClient
) -> None:
    await broker.load(REPLY)
    envelope = '{"topic": "out/u", "payload": "hi", "correlation": "AP8=", "user": {"a": "1"}}'
    async with client(broker.mqtt_port, "dev") as device:
        await device.subscribe("out/#")
        await device.publish("internal/reply", envelope)  # a device may not
        answer = await rest.post("/publish", json={"topic": "internal/reply", "payload": envelope})
        assert answer.status_code == 202  # whatever becomes of the republished message
        message = await device.next()
        assert (message.topic, message.payload, message.qos) == ("out/u", b"hi", 1)
        assert device.messages.empty()
    (republished,) = [m for m in broker.mqtt.published if m.topic == "out/u"]
    assert republished.properties == {
        "Correlation-Data": b"\x00\xff",
        "User-Property": {"a": "1"},
        "User-Property-Pairs": [{"key": "a", "value": "1"}],
    }
    metrics = broker.resources.rule("reply").metrics()
    assert (metrics["matched"], metrics["passed"], metrics["failed.no_result"]) == (2, 1, 1)
    assert metrics["actions.success"] == 1


async def test_a_rule_that_raises_is_counted_and_named(
    broker: StandIn, webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    await broker.load(config(webhook.url))
    await broker.load(
        'rule_engine.rules.lab.sql = """SELECT id FROM "lab/request/+" '
        'WHERE payload.temperature > 40 """'
    )
    async with client(broker.mqtt_port, "dev") as device:
        for payload in ('{"temperature": "hot"}', '{"temperature": 4}', '{"temperature": 41}'):
            await device.publish("lab/request/u", payload)
    await webhook.wait(1)
    metrics = broker.resources.rule("lab").metrics()
    names = ("matched", "failed", "failed.exception", "failed.no_result", "passed")
    assert [metrics[name] for name in names] == [3, 2, 1, 1, 1]
    assert "rule lab raised" in caplog.text
    assert "hot" not in caplog.text


async def test_a_rule_that_republishes_onto_itself_stops(broker: StandIn) -> None:
    await broker.load(
        'rule_engine.rules.loop { sql = """SELECT * FROM "loop" """, actions = '
        '[{function = republish, args = {topic = "loop"}}] }'
    )
    async with client(broker.mqtt_port, "dev") as device:
        await device.publish("loop", "x")
    metrics = broker.resources.rule("loop").metrics()
    assert (metrics["matched"], metrics["actions.failed"]) == (2, 1)


@pytest.mark.parametrize("which", ["mqtt_port", "ws_port", "rest_port"])
async def test_a_taken_port_is_named(which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} is taken"):
            await StandIn(**{which: port}).start()


async def test_nothing_is_left_after_stop(
    webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    before = asyncio.all_tasks()
    broker = StandIn()
    await broker.start()
    await broker.load(config(webhook.url))
    idle = socket.create_connection(("127.0.0.1", broker.mqtt_port))
    device = MqttClient("dev")
    await device.connect(broker.mqtt_port)
    await device.subscribe("#")
    await device.publish("lab/request/u", "x")
    await webhook.wait(1)
    await broker.stop()
    await asyncio.wait_for(device.closed.wait(), TIMEOUT)
    await device.leave()
    idle.close()
    await webhook.stop()
    await until(lambda: asyncio.all_tasks() <= before)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    await webhook.start()
    ports = broker.mqtt_port, broker.ws_port, broker.rest_port
    await broker.start()
    assert (broker.mqtt_port, broker.ws_port, broker.rest_port) == ports
    await broker.stop()


async def process(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service.demo.standin.broker", *arguments),
        *("--mqtt-port", "0", "--ws-port", "0", "--rest-port", "0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_as_a_process_of_its_own(webhook: Webhook, tmp_path: Path) -> None:
    files = tmp_path / "rules.conf", tmp_path / "ports"
    files[0].write_text(config(webhook.url))
    broker = await process(
        *("--config", str(files[0]), "--port-file", str(files[1])),
        *("--api-key", "me", "--api-secret", "mine"),
    )
    assert broker.stdout is not None
    await asyncio.wait_for(broker.stdout.readline(), TIMEOUT)
    _, _, rest = files[1].read_text().split()
    async with httpx.AsyncClient(auth=("me", "mine")) as http:
        body = {"topic": "lab/request/u", "payload": "x"}
        answer = await http.post(f"http://127.0.0.1:{rest}/api/v5/publish", json=body)
        assert answer.status_code == 202
    await webhook.wait(1)
    broker.send_signal(signal.SIGTERM)
    _, said = await asyncio.wait_for(broker.communicate(), TIMEOUT)
    assert (broker.returncode, said) == (0, b"")


async def test_a_process_with_a_bad_file_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.conf").write_text("connectors.http.x { url = ")
    broker = await process("--config", str(tmp_path / "bad.conf"))
    _, said = await asyncio.wait_for(broker.communicate(), TIMEOUT)
    assert broker.returncode == 1
    assert said.count(b"\n") == 1
    assert b"syntax error" in said
