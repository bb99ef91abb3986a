"""What answering needs of the rest of the house, as protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from service.domain import Answer, Attempt, Claimed, Publish, Reservation
from service.errors import BrokerError


class Store(Protocol):
    """The part of the inbox that answering writes to. False: the lease is lost."""

    async def reply(self, claimed: Claimed, answer: Answer) -> bool: ...

    async def again(
        self,
        claimed: Claimed,
        *,
        at: int,
        attempts: Sequence[Attempt] = (),
        count: bool = True,
        error_code: str | None = None,
        error_message: str | None = None,
    ) -> bool: ...

    async def step(self, claimed: Claimed, steps: Sequence[Mapping[str, Any]]) -> bool: ...

    async def reserve(self, wanted: Sequence[Reservation]) -> str | None:
        """Take all of them or none; the key that is over its limit, or None."""
        ...

    async def settle(self, key: str, window: int, delta: int) -> None: ...


class Broker(Protocol):
    """Publishing outside the outbox: tool calls, stream deltas, progress."""

    async def send(self, message: Publish, *, once: bool = False) -> bool | BrokerError | None:
        """Publish and wait, over outages of the broker; a BrokerError is a refusal.

        `once`: one try, since after a lost answer another would be a repetition.
        """
        ...

    def post(self, message: Publish, of: str) -> None:
        """Publish soon, or not at all: progress of request `of`, before its outbox."""
        ...

    async def retained(self, topic: str) -> bytes | None: ...
