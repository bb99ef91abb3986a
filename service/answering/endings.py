"""From a stored reply to the end of its request: published, noted, counted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from service.answering.patience import patiently
from service.domain import Claimed, Publish, State
from service.emqx.publish_api import Result
from service.errors import BrokerError, StoreError

log = logging.getLogger("emqx-gpt.worker")

OnEnd = Callable[[Claimed, State, str | None], None]


class Inbox(Protocol):
    """The part of the store that ends requests."""

    async def finish(
        self,
        claimed: Claimed,
        *,
        delivered: bool | None,
        outcome: State | None = None,
        error_code: str | None = None,
        error_message: str | None = None,
    ) -> bool: ...


class Outbox(Protocol):
    """Where stored replies go on to the broker."""

    def put(self, claimed: Claimed, outbox: tuple[Publish, ...]) -> None: ...


@dataclass(slots=True)
class _End:
    outcome: State
    code: str | None = None
    refused: BrokerError | None = None


class Endings:
    """Answered requests on their way out. `told` makes the notice of a refused reply,
    `done` hears that a request is out of this process's hands."""

    def __init__(
        self,
        inbox: Inbox,
        outbox: Outbox,
        *,
        told: Callable[[Claimed, BrokerError], tuple[Publish, ...]],
        done: Callable[[Claimed], None],
        on_end: OnEnd,
    ) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._told = told
        self._done = done
        self._on_end = on_end
        self._ends: dict[tuple[int, int], _End] = {}

    def publish(
        self, claimed: Claimed, outbox: tuple[Publish, ...], outcome: State, code: str | None
    ) -> None:
        """Hand a stored outbox to the broker; `published` hears of it."""
        self._ends[claimed.seq, claimed.fence] = _End(outcome, code)
        self._outbox.put(claimed, outbox)

    async def published(self, claimed: Claimed, result: Result) -> None:
        """The publisher is done with a request's outbox."""
        key = (claimed.seq, claimed.fence)
        end = self._ends.setdefault(key, _End(State.DONE))
        stored = False
        try:
            if isinstance(result, BrokerError) and end.outcome is State.DONE:
                # The broker takes no such reply, whenever it is sent: its sender is told why.
                end.outcome, end.code, end.refused = State.FAILED, result.code, result
                if notice := self._told(claimed, result):
                    self._outbox.put(claimed, notice)
                    return
            stored = await patiently(lambda: self._finish(claimed, end, result))
        except StoreError as error:
            # Its lease runs out, and whoever claims it then publishes it once more.
            log.error("request %s: its end could not be stored: %s", claimed.id, error.message)
        except Exception:
            log.exception("request %s: a fault of this program", claimed.id)
        self._ends.pop(key, None)
        self._done(claimed)
        if stored:
            self._on_end(claimed, end.outcome, end.code)

    async def _finish(self, claimed: Claimed, end: _End, result: Result) -> bool:
        if end.refused is None:
            delivered = False if isinstance(result, BrokerError) else result
            return await self._inbox.finish(claimed, delivered=delivered)
        return await self._inbox.finish(
            claimed,
            delivered=False,
            outcome=end.outcome,
            error_code=end.code,
            error_message=end.refused.message,
        )
