"""The simulated devices of the play: they take tools' commands, and answer as devices would.

A tool whose commands bring a Response-Topic is answered over MQTT 5, with its Correlation-Data;
all others over 3.1.1, with the `call_id` of the command in the answer. Where a device of somebody
else answers, theirs is silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from service.demo.levels import levels_of
from service.demo.mqtt_client import Client, Seen, client
from service.demo.offline_model import vocabulary
from service.domain import Message
from service.errors import MessageError
from service.flows import Flows, Tool
from service.mqtt.comparisons import CALL, Comparison
from service.mqtt.templates import Scope, Template, decode_json
from service.mqtt.topics import matches

LATENCY = 0.6  # seconds that a device takes; another one may be faster
AS_BEFORE = 17  # what a device that does not follow still says
_STATES = {"unlock": "unlocked", "lock": "locked", "open": "open", "close": "closed",
           "start": "running", "stop": "stopped"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Said:
    """What a device publishes."""

    topic: str
    payload: bytes
    correlation: bytes | None = None
    retain: bool = False


class Household:
    """`stubborn`: flow and tool of the devices that do not follow."""

    def __init__(
        self, old: Client, new: Client, stubborn: Collection[tuple[str, str]] = ()
    ) -> None:
        self._stubborn = frozenset(stubborn)
        self._clients = {False: old, True: new}
        self._heard = {mqtt: asyncio.Queue[Seen]() for mqtt in (old, new)}
        self._topics: dict[Client, set[str]] = {old: set(), new: set()}
        self._tools: list[tuple[str, Tool]] = []
        self._others: deque[tuple[float, str, str | None]] = deque(maxlen=200)
        self._mine: deque[tuple[str, bytes]] = deque(maxlen=200)
        self._locks = {mqtt: asyncio.Lock() for mqtt in (old, new)}
        for mqtt, heard in self._heard.items():
            mqtt.seen = heard

    async def follow(self, flows: Flows) -> None:
        """Play the devices of these flows from now on."""
        self._tools = [
            (flow.name, tool)
            for flow in flows.flows.values()
            for tool in flow.tools
            if tool.topic is not None and (tool.answer is not None or tool.verify is not None)
        ]
        for v5, mqtt in self._clients.items():
            mine = [tool for _, tool in self._tools if tool.response_topic == v5]
            wanted = {one.topic_filter for tool in mine for one in _topics(tool)}
            if gone := self._topics[mqtt] - wanted:
                await mqtt.unsubscribe(gone)
            if more := wanted - self._topics[mqtt]:
                await mqtt.subscribe(sorted(more))
            self._topics[mqtt] = wanted

    async def live(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for v5, mqtt in self._clients.items():
                tasks.create_task(self._listen(v5, mqtt, tasks))

    async def _listen(self, v5: bool, mqtt: Client, tasks: asyncio.TaskGroup) -> None:
        while True:
            seen = await self._heard[mqtt].get()
            for flow, tool in self._tools:
                if tool.response_topic == v5 and _is_command(tool, seen.topic):
                    since = time.monotonic()
                    tasks.create_task(self._answer(mqtt, flow, tool, seen, since))
                    break
            else:
                if (seen.topic, seen.payload) not in self._mine:
                    self._others.append((time.monotonic(), seen.topic, _call_id(seen)))

    async def _answer(self, mqtt: Client, flow: str, tool: Tool, seen: Seen, since: float) -> None:
        call_id = _call_id(seen)
        await asyncio.sleep(LATENCY)
        for said in answers(tool, seen, stubborn=(flow, tool.name) in self._stubborn):
            if any(
                at >= since and topic == said.topic and id in (None, call_id)
                for at, topic, id in self._others
            ):
                continue
            self._mine.append((said.topic, said.payload))
            async with self._locks[mqtt]:
                await mqtt.publish(
                    said.topic, said.payload, correlation=said.correlation, retain=said.retain
                )


@contextlib.asynccontextmanager
async def household(
    host: str, port: int, flows: Flows, stubborn: Collection[tuple[str, str]] = ()
) -> AsyncIterator[Household]:
    """The devices of these flows, at home and awake."""
    async with (
        client(host, port, "emqx-gpt-household") as old,
        client(host, port, "emqx-gpt-household-5", v5=True) as new,
    ):
        made = Household(old, new, stubborn)
        await made.follow(flows)
        living = asyncio.create_task(made.live())
        try:
            yield made
        finally:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)


def answers(tool: Tool, seen: Seen, *, stubborn: bool = False) -> Iterator[Said]:
    """What a device says to a command: that it took it, and then how it is. Pure."""
    if tool.topic is None:
        return
    given = decode_json(seen.payload)
    arguments = {key: each for key, each in given.items() if key != CALL} \
        if isinstance(given, Mapping) else {}  # fmt: skip
    levels = levels_of(tool.topic, seen.topic) or {}
    call_id = _call_id(seen)
    scope = Scope(Message("", "", b"", 0), levels, {**arguments, CALL: call_id})
    named = {CALL: call_id} if call_id is not None and seen.correlation is None else {}
    body: dict[str, Any] = {**named, **arguments}
    if state := _STATES.get(vocabulary.split(tool.name)[0]):
        body["state"] = state
    with contextlib.suppress(MessageError):
        if tool.answer is not None:
            topic = seen.response_topic or tool.answer.render_topic(scope)
            matched = _equal(tool.match, body, scope) if tool.match is not None else body
            yield Said(topic, _payload(matched), seen.correlation)
    where = (tool.verify.read or tool.verify.answer) if tool.verify is not None else None
    if tool.verify is not None and where is not None:
        with contextlib.suppress(MessageError):
            # One that does not follow has its own idea of everything but the call.
            now = _equal(tool.verify.expect, named if stubborn else body, scope, wrong=stubborn)
            topic = where.render_topic(scope)
            retain = tool.verify.read is not None
            yield Said(topic, _payload(now), seen.correlation, retain)


def _equal(expect: Comparison, body: Mapping[str, Any], scope: Scope, wrong: bool = False) -> Any:
    """The body, so that the comparison holds for it; or, `wrong`, does not. Raises
    MessageError where it needs what nobody said."""
    ours, theirs = expect.left, expect.right
    if not any(name.partition(".")[0] == "payload" for name in ours.names):
        ours, theirs = theirs, ours
    text = theirs.render_strict(scope)
    value: Any = text
    with contextlib.suppress(ValueError):
        value = json.loads(text)
    if wrong:
        value = AS_BEFORE if isinstance(value, int | float) else "as before"
    name = next(one for one in ours.names if one.partition(".")[0] == "payload")
    return _put(body, name.split(".")[1:], value)


def _put(body: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    inner = body if isinstance(body, Mapping) else {}
    return {**inner, path[0]: _put(inner.get(path[0]), path[1:], value)}


def _payload(body: Any) -> bytes:
    return (body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)).encode()


def _topics(tool: Tool) -> Iterator[Template]:
    """Where it is told what to do, and where it answers."""
    verify = tool.verify
    told = (verify.answer, verify.read) if verify is not None else ()
    yield from (one for one in (tool.topic, tool.answer, *told) if one is not None)


def _is_command(tool: Tool, topic: str) -> bool:
    return tool.topic is not None and matches(tool.topic.topic_filter, topic)


def _call_id(seen: Seen) -> str | None:
    if seen.correlation is not None:
        return seen.correlation.decode(errors="replace")
    given = decode_json(seen.payload)
    found = given.get(CALL) if isinstance(given, Mapping) else None
    return found if isinstance(found, str) else None
