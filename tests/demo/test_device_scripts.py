"""The lamp on MicroPython: run by CPython, with a `umqtt` and a `machine` that do the same."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from service.demo.mqtt_client import Client
from service.demo.standin.broker import StandIn
from tests.rig import ROOT, message

SCRIPT = ROOT / "examples" / "device_micropython.py"
# What the script uses of umqtt.simple, over paho; a message comes out of wait_msg.
UMQTT = """
import queue, threading
import paho.mqtt.client as paho

class MQTTClient:
    def __init__(self, client_id, server, port=0, keepalive=0):
        self.came, self.subscribed = queue.Queue(), threading.Event()
        self.paho = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id)
        self.paho.on_message = lambda *args: self.came.put(args[2])
        self.paho.on_subscribe = lambda *args: self.subscribed.set()
        self.where = server, port, keepalive

    def set_callback(self, callback):
        self.callback = callback

    def connect(self):
        self.paho.connect(*self.where)
        self.paho.loop_start()

    def subscribe(self, topic, qos=0):
        self.paho.subscribe(topic.decode(), qos)
        assert self.subscribed.wait(30)

    def publish(self, topic, payload, retain=False, qos=0):
        self.paho.publish(topic.decode(), payload, qos, retain)

    def wait_msg(self):
        message = self.came.get()
        self.callback(message.topic.encode(), message.payload)
"""
MACHINE = """
class Pin:
    OUT = 1

    def __init__(self, number, mode):
        self.now = 0

    def value(self, wanted=None):
        if wanted is None:
            return self.now
        self.now = wanted
"""


async def test_the_lamp_on_micropython_answers(tmp_path: Path) -> None:
    (tmp_path / "umqtt").mkdir()
    (tmp_path / "umqtt" / "simple.py").write_text(UMQTT)
    (tmp_path / "machine.py").write_text(MACHINE)
    text = SCRIPT.read_text()
    async with StandIn() as broker:
        here = text.replace('"192.168.1.10", 1883', f'"127.0.0.1", {broker.mqtt_port}')
        assert here != text
        (tmp_path / "lamp.py").write_text(here)
        script = await asyncio.create_subprocess_exec(
            sys.executable, "-u", str(tmp_path / "lamp.py"), stdout=asyncio.subprocess.PIPE
        )
        client = Client("127.0.0.1", broker.mqtt_port, "tester")
        try:
            assert script.stdout is not None
            async with asyncio.timeout(60):
                assert b"at home" in await script.stdout.readline()
            await client.connect()
            await client.subscribe(["house/lamps/kitchen/state"])
            for said in (b"no JSON", b'{"on": true, "call_id": "c1"}', b'{"on": false}'):
                await client.publish("house/lamps/kitchen/set", said)
            told = [json.loads((await message(client))[1]) for _ in range(2)]
            assert told == [{"on": True, "call_id": "c1"}, {"on": False, "call_id": None}]
        finally:
            script.kill()
            await script.wait()
            await client.close()
