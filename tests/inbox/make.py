"""Entries, answers and a clock for the tests of the store."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from service.domain import Claimed, Ending, Entry, Message, Publish, State, Turn
from service.inbox import Inbox

_numbers = itertools.count(1)
DAY = 24 * 3600 * 1000
LEASE = 30_000
FLOWS = ("chat", "alarm")


class Clock:
    """Milliseconds, moved by hand."""

    def __init__(self, now: int = 1_790_000_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def pass_(self, ms: int) -> int:
        self.now += ms
        return self.now


def entry(conversation: str = "u1", **fields: Any) -> Entry:
    """A new question in `chat` (ordered), with an id and a time after all before it."""
    number = next(_numbers)
    message = {
        "id": f"{number:032X}",
        "topic": "chatgpt/request/u1",
        "payload": b"hello",
        "received_at": 1_790_000_000_000 + number,
    } | fields.pop("message", {})
    values: dict[str, Any] = {
        "id": f"r{number}",
        "flow": "chat",
        "dedupe": message["id"],
        "conversation": conversation,
        "ordered": True,
        "accepted_at": 1_790_000_000_000,
        "deadline": 1_790_000_000_000 + DAY,
    } | fields
    return Entry(message=Message(**message), **values)


def loose(conversation: str = "u1", **fields: Any) -> Entry:
    """A new request in `alarm`, which has no order to keep."""
    return entry(conversation, **{"flow": "alarm", "ordered": False} | fields)


def answer(text: str = "hi", **fields: Any) -> Ending:
    values: dict[str, Any] = {
        "outcome": State.DONE,
        "outbox": (Publish("chatgpt/response/u1", text.encode("utf-8", "surrogatepass")),),
        "text": text,
    } | fields
    return Ending(**values)


def ended(outcome: State = State.IGNORED, **fields: Any) -> Ending:
    """An answer with nothing to publish."""
    return Ending(**{"outcome": outcome} | fields)


def turn(user: str = "hello", assistant: str = "hi", at: int = 1_790_000_000_000) -> Turn:
    return Turn(user, assistant, at)


async def claim(
    store: Inbox, limit: int = 100, flows: Sequence[str] = FLOWS, lease: int = LEASE
) -> list[Claimed]:
    return (await store.claim(flows, limit, "worker", lease)).requests


async def claim_one(store: Inbox, flows: Sequence[str] = FLOWS) -> Claimed:
    [claimed] = await claim(store, 1, flows)
    return claimed


async def play(store: Inbox, claimed: Claimed, **fields: Any) -> None:
    """Answer and publish it."""
    assert await store.save_ending(claimed, answer(**fields))
    assert await store.finish(claimed, delivered=True)


def ids(rows: Sequence[Any]) -> list[str]:
    return [row.id for row in rows]
