"""An MQTT client for asyncio, over paho: 3.1.1 or 5."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from service.demo.samples import CLIENT

CONNECT = 10.0  # seconds


class Seen(NamedTuple):
    """A message, with what MQTT 5 says of questions and answers."""

    topic: str
    payload: bytes
    response_topic: str | None
    correlation: bytes | None
    error: str | None  # a failure is told with its code as a user property


class Client:
    """An MQTT client in a thread of its own; messages arrive in the event loop."""

    def __init__(self, host: str, port: int, clientid: str = CLIENT, *, v5: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._done: dict[str, asyncio.Event] = {
            name: asyncio.Event() for name in ("connect", "subscribe", "publish")
        }
        self.messages: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.seen: asyncio.Queue[Seen] | None = None  # in place of `messages`
        self.v5 = v5
        self._paho = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=clientid,
            protocol=paho.MQTTv5 if v5 else paho.MQTTv311,
        )
        self._paho.on_connect = lambda *_: self._signal("connect")
        self._paho.on_subscribe = lambda *_: self._signal("subscribe")
        self._paho.on_publish = lambda *_: self._signal("publish")
        self._paho.on_message = self._message
        self._host, self._port = host, port

    def _signal(self, name: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended before the thread
            self._loop.call_soon_threadsafe(self._done[name].set)

    def _message(self, client: paho.Client, data: object, message: paho.MQTTMessage) -> None:
        topic, payload = message.topic, bytes(message.payload)
        with contextlib.suppress(RuntimeError):
            if self.seen is None:
                self._loop.call_soon_threadsafe(self.messages.put_nowait, (topic, payload))
                return
            if message.retain:
                return  # it was there before anybody looked
            found = message.properties
            correlation = getattr(found, "CorrelationData", None) if found else None
            answer_to = getattr(found, "ResponseTopic", None) if found else None
            pairs = getattr(found, "UserProperty", None) if found else None
            error = dict(pairs or ()).get("error")
            item = Seen(topic, payload, answer_to, correlation, error)
            self._loop.call_soon_threadsafe(self.seen.put_nowait, item)

    async def _wait(self, name: str) -> None:
        async with asyncio.timeout(CONNECT):
            await self._done[name].wait()
        self._done[name].clear()

    async def connect(self) -> None:
        self._paho.connect_async(self._host, self._port)
        self._paho.loop_start()
        await self._wait("connect")

    async def subscribe(self, topics: Iterable[str]) -> None:
        self._paho.subscribe([(topic, 1) for topic in topics])
        await self._wait("subscribe")

    async def unsubscribe(self, topics: Iterable[str]) -> None:
        self._paho.unsubscribe(list(topics))

    async def publish(
        self,
        topic: str,
        payload: bytes,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        *,
        retain: bool = False,
    ) -> None:
        """With MQTT 5 also where the answer is wanted, and bytes that come back with it."""
        properties = None
        if response_topic is not None or correlation is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            if response_topic is not None:
                properties.ResponseTopic = response_topic
            if correlation is not None:
                properties.CorrelationData = correlation
        self._paho.publish(topic, payload, qos=1, retain=retain, properties=properties)
        await self._wait("publish")

    async def close(self) -> None:
        self._paho.disconnect()
        await asyncio.to_thread(self._paho.loop_stop)


@contextlib.asynccontextmanager
async def client(
    host: str, port: int, clientid: str = CLIENT, *, v5: bool = False
) -> AsyncIterator[Client]:
    """A connected client."""
    made = Client(host, port, clientid, v5=v5)
    try:
        await made.connect()
        yield made
    finally:
        await made.close()
