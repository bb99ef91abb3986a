"""Plays each flow through a real MQTT client, while another shows all that passes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from service.demo.samples import CLIENT, Sample, samples
from service.demo.scenes import SCENES
from service.demo.screen import Screen
from service.flows import Flow
from service.mqtt.topics import matches

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
    ) -> None:
        """With MQTT 5 also where the answer is wanted, and bytes that come back with it."""
        properties = None
        if response_topic is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ResponseTopic = response_topic
            properties.CorrelationData = correlation
        self._paho.publish(topic, payload, qos=1, properties=properties)
        await self._wait("publish")

    async def close(self) -> None:
        self._paho.disconnect()
        await asyncio.to_thread(self._paho.loop_stop)


@contextlib.asynccontextmanager
async def client(
    host: str, port: int, clientid: str = CLIENT, *, v5: bool = False
) -> AsyncIterator[Client]:
    made = Client(host, port, clientid, v5=v5)
    try:
        await made.connect()
        yield made
    finally:
        await made.close()


class Onlooker:
    """A client that sees every message, shows it, and tells who waits for one."""

    def __init__(self, screen: Screen, mqtt: Client) -> None:
        self.screen = screen
        self._seen = mqtt.seen = asyncio.Queue()
        self._waiting: list[tuple[list[str], asyncio.Event]] = []
        self.commands = 0  # messages on tools' topics
        self.failures: list[str] = []  # topic and code of each failure told

    async def watch(self) -> None:
        """Show what passes, until cancelled."""
        while True:
            topic, payload, answer_to, correlation, error = await self._seen.get()
            self.screen.message(topic, payload, _properties(answer_to, correlation), error)
            if error is not None:
                self.failures.append(f"{topic} ({error})")
            self.commands += any(
                tool.topic is not None and matches(tool.topic.topic_filter, topic)
                for flow in self.screen.flows.flows.values()
                for tool in flow.tools
            )
            more = self._more_follows(topic, payload)
            for wanted, done in self._waiting:
                if topic in wanted and not more:
                    wanted.remove(topic)
                    if not wanted:
                        done.set()

    def _more_follows(self, topic: str, payload: bytes) -> bool:
        """Whether this is a numbered piece (`chunk`), and not the last one."""
        chunked = any(
            flow.chunk and reply is not None and matches(reply.topic_filter, topic)
            for flow in self.screen.flows.flows.values()
            for reply in (flow.reply, flow.error)
        )
        if not chunked:
            return False
        if found := re.match(rb"(\d+)/(\d+) ", payload):
            return int(found[1]) < int(found[2])
        with contextlib.suppress(ValueError, TypeError, KeyError):
            piece = json.loads(payload)
            return bool(piece["seq"] < piece["of"])
        return False

    async def expect(self, topics: Iterable[str], patience: float) -> list[str]:
        """Wait until each topic had a message for each time it is named; what did not come."""
        wanted, done = list(topics), asyncio.Event()
        if not wanted:
            return []
        entry = (wanted, done)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(patience):
                await done.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting.remove(entry)
        return wanted


def _properties(response_topic: str | None, correlation: bytes | None) -> str:
    said = []
    if response_topic:
        said.append(f"Response-Topic {response_topic}")
    if correlation:
        said.append(f"Correlation-Data {correlation.hex()}")
    return ", ".join(said)


async def play(
    onlooker: Onlooker, mqtt: Client, flows: Iterable[Flow], *, patience: float
) -> list[str]:
    """Play each flow; returns what did not come. `patience` seconds for each answer."""
    missing: list[str] = []
    for flow in flows:
        scene = SCENES.get(flow.name)
        onlooker.screen.title(flow.name, scene.title if scene else "your flow")
        found = samples(flow)
        if flow.every is not None:
            text = f"It asks by the clock: {flow.every} ({flow.timezone})."
            onlooker.screen.line(text, indent=2)
        elif not found:
            onlooker.screen.line(
                "No message was found that this flow would answer: its where, require or reply "
                "is more than the demo can guess. Publish one of your own below.",
                indent=2,
                style="yellow",
            )
        for sample in found:
            missing += await _played(onlooker, mqtt, flow, sample, patience)
    return missing


async def _played(
    onlooker: Onlooker, mqtt: Client, flow: Flow, sample: Sample, patience: float
) -> list[str]:
    before, failed = onlooker.commands, len(onlooker.failures)
    waiting = asyncio.create_task(onlooker.expect([sample.topic, *sample.replies], patience))
    await asyncio.sleep(0)  # it waits from here on
    await mqtt.publish(sample.topic, sample.payload, sample.response_topic, sample.correlation)
    left = await waiting
    for topic in left:
        onlooker.screen.line(f"{topic} ▶ nothing came in {patience:g} s", indent=2, style="red")
    left += onlooker.failures[failed:]
    idle = any(tool.topic for tool in flow.tools) and onlooker.commands == before
    if idle and sample.replies and not left:
        onlooker.screen.line("(the model called none of its tools)", indent=4, style="yellow")
    return [f"{flow.name}: {topic}" for topic in left]
