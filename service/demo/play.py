"""Plays the scenes through a real MQTT client and prints them for people."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from rich.console import Console
from rich.markup import escape

from service.demo.scenes import SCENES, Line, Scene

CONNECT = 10.0  # seconds
SHOWN = 240  # characters of a message


class Client:
    """An MQTT 3.1.1 client in a thread of its own; messages arrive in the event loop."""

    def __init__(self, host: str, port: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._done: dict[str, asyncio.Event] = {
            name: asyncio.Event() for name in ("connect", "subscribe", "publish")
        }
        self.messages: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self._paho = paho.Client(CallbackAPIVersion.VERSION2, client_id="emqx-gpt-demo")
        self._paho.on_connect = lambda *_: self._signal("connect")
        self._paho.on_subscribe = lambda *_: self._signal("subscribe")
        self._paho.on_publish = lambda *_: self._signal("publish")
        self._paho.on_message = self._message
        self._host, self._port = host, port

    def _signal(self, name: str) -> None:
        self._loop.call_soon_threadsafe(self._done[name].set)

    def _message(self, client: paho.Client, data: object, message: paho.MQTTMessage) -> None:
        item = (message.topic, bytes(message.payload))
        self._loop.call_soon_threadsafe(self.messages.put_nowait, item)

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

    async def publish(self, topic: str, payload: bytes) -> None:
        self._paho.publish(topic, payload, qos=1)
        await self._wait("publish")

    async def close(self) -> None:
        self._paho.disconnect()
        await asyncio.to_thread(self._paho.loop_stop)


@contextlib.asynccontextmanager
async def client(host: str, port: int) -> AsyncIterator[Client]:
    made = Client(host, port)
    try:
        await made.connect()
        yield made
    finally:
        await made.close()


async def play(
    console: Console, host: str, port: int, flows: Iterable[str], *, patience: float
) -> list[str]:
    """Play each flow's scene; returns what did not come. `patience` seconds for each answer."""
    missing: list[str] = []
    names = list(flows)
    scenes = [scene for scene in SCENES if scene.flow in names]
    async with client(host, port) as mqtt:
        for scene in scenes:
            missing += await _scene(console, mqtt, scene, patience)
    unplayed = sorted(set(names) - {scene.flow for scene in scenes})
    if unplayed:
        console.print(f"[dim]No scene for your flows: {', '.join(unplayed)}[/]")
    return missing


async def _scene(console: Console, mqtt: Client, scene: Scene, patience: float) -> list[str]:
    console.print(f"\n[bold]{escape(scene.flow)}[/]  [dim]{escape(scene.title)}[/]", soft_wrap=True)
    await mqtt.subscribe(scene.listen)
    missing: list[str] = []
    for line in scene.lines:
        note = f"  [dim]({escape(line.note)}: no answer, as it should be)[/]" if line.note else ""
        console.print(
            f"  [cyan]{escape(line.topic)}[/] ◀ {_shown(line.payload)}{note}", soft_wrap=True
        )
        await mqtt.publish(line.topic, line.payload)
        left = await _answers(console, mqtt, line, patience)
        for topic in left:
            console.print(f"  [red]{escape(topic)} ▶ nothing came in {patience:g} s[/]")
            missing.append(f"{scene.flow}: {topic}")
    await mqtt.unsubscribe(scene.listen)
    return missing


async def _answers(console: Console, mqtt: Client, line: Line, patience: float) -> list[str]:
    """Print what comes until each expected topic, the reply's last, has had its message."""
    wanted = list(line.replies)
    if not wanted:
        return []
    try:
        while True:
            async with asyncio.timeout(patience):
                topic, payload = await mqtt.messages.get()
            console.print(f"  [green]{escape(topic)}[/] ▶ {_shown(payload)}", soft_wrap=True)
            if topic in wanted:
                wanted.remove(topic)
            if not wanted:
                return []
    except TimeoutError:
        return wanted


def _shown(payload: bytes) -> str:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return f"[dim]({len(payload)} bytes)[/]"
    text = " ".join(text.split())
    return escape(text if len(text) <= SHOWN else text[: SHOWN - 1] + "…")
