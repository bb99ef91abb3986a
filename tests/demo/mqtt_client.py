"""A real MQTT client (paho) for asyncio tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

TIMEOUT = 45


class MqttClient:
    """`messages` gets every message; `closed` is set when the connection ends."""

    def __init__(self, name: str, **options: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self.messages: asyncio.Queue[paho.MQTTMessage] = asyncio.Queue()
        self.closed = asyncio.Event()
        self._connected: asyncio.Future[str] = self._loop.create_future()
        self._done: dict[int | None, asyncio.Event] = {}
        self.paho = paho.Client(
            CallbackAPIVersion.VERSION2, name, reconnect_on_failure=False, **options
        )
        self.paho.on_connect = lambda *args: self._tell(self._was_connected, str(args[3]))
        self.paho.on_message = lambda *args: self._tell(self.messages.put_nowait, args[2])
        self.paho.on_disconnect = lambda *_: self._tell(self.closed.set)
        self.paho.on_publish = lambda *args: self._tell(self._finished, args[2])
        self.paho.on_subscribe = lambda *args: self._tell(self._finished, args[2])

    def _tell(self, what: Any, *args: Any) -> None:
        self._loop.call_soon_threadsafe(what, *args)

    def _was_connected(self, reason: str) -> None:
        if not self._connected.done():
            self._connected.set_result(reason)

    def _finished(self, mid: int) -> None:
        self._done.setdefault(mid, asyncio.Event()).set()

    async def connect(self, port: int) -> str:
        """The broker's answer: `Success`, or why not."""
        await asyncio.to_thread(self.paho.connect, "127.0.0.1", port)
        self.paho.loop_start()
        return await asyncio.wait_for(self._connected, TIMEOUT)

    async def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        _, mid = self.paho.subscribe(topic_filter, qos)
        await self._wait(mid)

    async def publish(
        self, topic: str, payload: bytes | str, qos: int = 1, retain: bool = False
    ) -> None:
        """Returns when the broker has acknowledged it (or, QoS 0, when it is sent)."""
        await self._wait(self.paho.publish(topic, payload, qos, retain).mid)

    async def _wait(self, mid: int | None) -> None:
        event = self._done.setdefault(mid, asyncio.Event())
        await asyncio.wait_for(event.wait(), TIMEOUT)

    async def next(self) -> paho.MQTTMessage:
        return await asyncio.wait_for(self.messages.get(), TIMEOUT)

    async def leave(self) -> None:
        self.paho.disconnect()
        await asyncio.to_thread(self.paho.loop_stop)


@asynccontextmanager
async def client(port: int, name: str, **options: Any) -> AsyncIterator[MqttClient]:
    """A connected client; `username` and `will` (topic, payload) are set before connecting."""
    username, will = options.pop("username", None), options.pop("will", None)
    found = MqttClient(name, **options)
    if username:
        found.paho.username_pw_set(username)
    if will:
        topic, payload = will
        found.paho.will_set(topic, payload, qos=1)
    try:
        assert await found.connect(port) == "Success"
        yield found
    finally:
        await found.leave()
