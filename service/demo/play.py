"""Plays each flow through a real MQTT client, while another shows all that passes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Iterable

from service.demo.mqtt_client import Client
from service.demo.person import consenting
from service.demo.samples import Sample, samples, ticked
from service.demo.screen import Screen
from service.flows import Flow
from service.mqtt.topics import matches


class Onlooker:
    """A client that sees every message, shows it, and tells who waits for one."""

    def __init__(self, screen: Screen, mqtt: Client) -> None:
        self.screen = screen
        self._seen = mqtt.seen = asyncio.Queue()
        self._waiting: list[tuple[list[str], asyncio.Event]] = []
        self.commands = 0  # messages on tools' topics
        self.failures: list[tuple[str, str]] = []  # topic and code of each failure told

    async def watch(self) -> None:
        """Show what passes, until cancelled."""
        while True:
            topic, payload, answer_to, correlation, error = await self._seen.get()
            self.screen.message(topic, payload, _properties(answer_to, correlation), error)
            if error is not None:
                self.failures.append((topic, error))
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
        text = correlation.decode(errors="replace")
        plain = text.isascii() and text.isprintable()
        said.append(f"Correlation-Data {text if plain else correlation.hex()}")
    return ", ".join(said)


async def play(
    onlooker: Onlooker,
    mqtt: Client,
    old: Client,
    flows: Iterable[Flow],
    hurry: Callable[[str], Awaitable[bool]],
    *,
    patience: float,
) -> list[str]:
    """Play each flow; returns what did not come. `patience` seconds for each answer.

    `mqtt` speaks MQTT 5, `old` 3.1.1. `hurry` moves the clock of a flow with `every` on.
    """
    missing: list[str] = []
    for flow in flows:
        say = onlooker.screen.say
        scene = say.scenes.get(flow.name)
        onlooker.screen.title(flow.name, say(scene.title if scene else "your flow"))
        found = samples(flow, say)
        if flow.every is not None:
            text = say(
                "It asks by the clock ({every}, {zone}), which is moved on:",
                every=flow.every,
                zone=flow.timezone,
            )
            onlooker.screen.line(text, indent=2, style="dim")
            missing += await _ticked(onlooker, flow, hurry, patience)
        elif not found:
            onlooker.screen.line(
                say(
                    "No message was found that this flow would answer: its where, require or reply "
                    "is more than the demo can guess. Publish one of your own below."
                ),
                indent=2,
                style="yellow",
            )
        for sample in found:
            if sample.line.note:
                onlooker.screen.line(say(sample.line.note), indent=2, style="dim")
            speaking = old if sample.line.old else mqtt
            async with consenting(speaking, flow):
                missing += await _played(onlooker, speaking, flow, sample, patience)
    return missing


async def _ticked(
    onlooker: Onlooker, flow: Flow, hurry: Callable[[str], Awaitable[bool]], patience: float
) -> list[str]:
    waiting = asyncio.create_task(onlooker.expect(ticked(flow), patience))
    await asyncio.sleep(0)  # it waits from here on
    await hurry(flow.name)
    left = await waiting
    for topic in left:
        _nothing(onlooker, topic, patience)
    return [f"{flow.name}: {topic}" for topic in left]


async def _played(
    onlooker: Onlooker, mqtt: Client, flow: Flow, sample: Sample, patience: float
) -> list[str]:
    before, failed = onlooker.commands, len(onlooker.failures)
    waiting = asyncio.create_task(onlooker.expect([sample.topic, *sample.replies], patience))
    await asyncio.sleep(0)  # it waits from here on
    await mqtt.publish(sample.topic, sample.payload, sample.response_topic, sample.correlation)
    left = await waiting
    for topic in left:
        _nothing(onlooker, topic, patience)
    expected = sample.line.code
    told = onlooker.failures[failed:]
    left += [f"{topic} ({code})" for topic, code in told if code != expected]
    idle = any(tool.topic for tool in flow.tools) and onlooker.commands == before
    if idle and sample.replies and not left:
        text = onlooker.screen.say("(the model called none of its tools)")
        onlooker.screen.line(text, indent=4, style="yellow")
    return [f"{flow.name}: {topic}" for topic in left]


def _nothing(onlooker: Onlooker, topic: str, patience: float) -> None:
    said = "{topic} ▶ nothing came in {seconds} s"
    text = onlooker.screen.say(said, topic=topic, seconds=f"{patience:g}")
    onlooker.screen.line(text, indent=2, style="red")
