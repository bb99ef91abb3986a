"""What prompts may read of other messages: `${recent}` and `${collected}`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from service.answering import readings_text
from service.answering.job import LostLease, retry_while_busy
from service.answering.recent import Recents
from service.domain import Claimed, Message, Reading
from service.flows import Collect, Flow, Recent
from service.inbox import Inbox
from service.llm.client import OFF_LOOP
from service.mqtt.templates import NamedValues


async def tables_of(
    store: Inbox, recents: Recents, claimed: Claimed, flow: Flow, captured: Mapping[str, str]
) -> dict[str, NamedValues]:
    """All that this flow's prompts may name, its batch taken. Raises LostLease."""
    found: dict[str, NamedValues] = {}
    if flow.recent is not None:
        found["recent"] = await _told(
            flow.recent, await retry_while_busy(recents.read, flow, captured)
        )
    if flow.collect is not None and flow.batch is not None:
        messages = await retry_while_busy(store.gather, claimed, flow.batch)
        if messages is None:
            raise LostLease
        found["collected"] = await _told(flow.collect, _readings(flow, messages))
    return found


async def _told(table: Recent | Collect, readings: Sequence[Reading]) -> NamedValues:
    if sum(len(reading.text) for reading in readings) > OFF_LOOP:
        return await asyncio.to_thread(readings_text.told, table, readings)
    return readings_text.told(table, readings)


def later(flow: Flow, messages: Sequence[Message]) -> Mapping[str, NamedValues]:
    """The same for a request that is asked again long after."""
    found = {} if flow.recent is None else {"recent": readings_text.NOT_KEPT}
    return found if flow.collect is None else found | {"collected": collected(flow, messages)}


def collected(flow: Flow, messages: Sequence[Message]) -> NamedValues:
    """A batch, which has one message at least."""
    assert flow.collect is not None
    return readings_text.told(flow.collect, _readings(flow, messages))


def _readings(flow: Flow, messages: Sequence[Message]) -> list[Reading]:
    """Topics are told where they differ."""
    alike = len({message.topic for message in messages}) == 1
    return [
        Reading(
            message.received_at,
            flow.readable(message).payload.decode("utf-8", "replace"),
            "" if alike else message.topic,
        )
        for message in messages
    ]
