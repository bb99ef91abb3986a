"""Watches what the broker gave up, and tells it: in the log, the metrics and /readyz."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

from service.emqx.loss_counters import Counters, Losses
from service.errors import BrokerError

EVERY = 30.0  # seconds

log = logging.getLogger("emqx-gpt.losses")

Read = Callable[[], Awaitable[dict[str, dict[str, Counters]]]]
Fault = Callable[[], Awaitable[str | None]]


async def _no_fault() -> str | None:
    return None


class LossWatch:
    """Looks every 30 s. `read` gives the counters, `refused` how many webhooks we refused,
    `fault` what would keep replies from arriving."""

    def __init__(
        self,
        read: Read,
        refused: Callable[[], float],
        fault: Fault = _no_fault,
        *,
        every: float = EVERY,
    ) -> None:
        self._read = read
        self._refused = refused
        self._read_fault = fault
        self._fault: str | None = None
        self._every = every
        self._losses = Losses()
        self._task: asyncio.Task[None] | None = None
        self._trouble: str | None = None
        self._began = self._since = datetime.now()

    @property
    def lost(self) -> int:
        """Messages that EMQX gave up since this process began to look."""
        return self._losses.total

    @property
    def warning(self) -> str | None:
        """One line for people; None where nothing is known to be lost."""
        return "; ".join(said for said in (self._loss, self._fault) if said) or None

    @property
    def _loss(self) -> str | None:
        if self._losses.total:
            return f"EMQX gave up {_messages(self._losses.total)} since {self._since:%H:%M}"
        if self._losses.before:
            return (
                f"EMQX gave up {_messages(self._losses.before)} before {self._began:%H:%M}, when "
                "this process started, or the webhook refused them"
            )
        return None

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        first = True
        while True:
            try:
                await self.look(first=first)
                first = False
            except BrokerError as error:
                if error.code != self._trouble:  # once for each reason
                    self._trouble = error.code
                    log.info("EMQX's counters can't be read: %s", error.message)
            except Exception:
                log.exception("an internal error while reading EMQX's counters")
            await asyncio.sleep(self._every)

    async def look(self, *, first: bool = False) -> None:
        """One look. Raises BrokerError."""
        nothing_yet = not self._losses.total
        fresh = self._losses.look(await self._read(), self._refused())
        self._trouble = None
        if fresh:
            if nothing_yet:
                self._since = datetime.now()
            log.warning(
                "EMQX gave up %s that no answer will come for; %s (docs/operations.md)",
                _messages(fresh),
                self._loss,
            )
        elif first and self._loss:
            log.warning("%s", self._loss)
        fault = None if first else await self._read_fault()  # `--apply` may be making it
        if fault and fault != self._fault:
            log.warning("%s", fault)
        self._fault = fault


def _messages(count: int) -> str:
    return f"{count} message" + ("" if count == 1 else "s")
