"""The person of the play: asked whether a tool may do something, and answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from service.demo.levels import levels_of
from service.demo.mqtt_client import Client, Seen
from service.domain import Message
from service.errors import MessageError
from service.flows import Flow
from service.mqtt.templates import Scope

YES, NO = b"yes", b"no"


@contextlib.asynccontextmanager
async def consenting(mqtt: Client, flow: Flow) -> AsyncIterator[None]:
    """Answers what the flow's tools ask meanwhile: yes; no where a PIN is wanted."""
    asked = sorted({tool.confirm.ask.topic_filter for tool in flow.tools if tool.confirm})
    if not asked:
        yield
        return
    heard = mqtt.seen = asyncio.Queue()
    await mqtt.subscribe(asked)
    answering = asyncio.create_task(_answer(mqtt, flow, heard))
    try:
        yield
    finally:
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        await mqtt.unsubscribe(asked)
        mqtt.seen = None


async def _answer(mqtt: Client, flow: Flow, heard: asyncio.Queue[Seen]) -> None:
    while True:
        seen = await heard.get()
        if (found := answer_to(flow, seen, v5=mqtt.v5)) is not None:
            topic, said = found
            await mqtt.publish(topic, said, correlation=seen.correlation)


def answer_to(flow: Flow, seen: Seen, *, v5: bool) -> tuple[str, bytes] | None:
    """Where and what to answer. MQTT 5 says where; who speaks 3.1.1 knows it from the flow."""
    for tool in flow.tools:
        confirm = tool.confirm
        levels = levels_of(confirm.ask, seen.topic) if confirm is not None else None
        if confirm is None or levels is None:
            continue
        said = YES if confirm.pin_env is None else NO
        if v5 and seen.response_topic is not None:
            return seen.response_topic, said
        with contextlib.suppress(MessageError):
            scope = Scope(Message("", seen.topic, seen.payload, 0), levels)
            return confirm.answer.render_topic(scope), said
    return None
