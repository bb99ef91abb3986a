"""Follows flows.toml: what is saved there is in force a moment later, if nothing is wrong with it.

It is looked at once a second, by its content: editors put a new file in the place of the old
one, Kubernetes turns a symbolic link to another folder, and a network's clock may say anything. A
text counts once it was the same in two looks, since some editors write bit by bit; who sends
SIGHUP says that it is finished.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from service import flows
from service.errors import ConfigError, Fault
from service.operations.health import Health
from service.operations.metrics import Metrics

EVERY = 1.0  # seconds between looks
SETTLED = 0.3  # seconds after which a new text is looked at once more
TOLD = 20  # faults that the log tells

T = TypeVar("T")

log = logging.getLogger("emqx-gpt.flows")


class FlowsFile(Generic[T]):
    """One process's look at it. `text` is what was read at the start.

    `make` turns a text into what can be taken, or raises ConfigError with what is wrong; it runs
    in a thread. `take` has it in force and says what is different, "" for nothing. Where several
    processes look at one file, all but one are `quiet`: the log need not say everything twice.
    """

    def __init__(
        self,
        path: Path,
        text: str,
        *,
        make: Callable[[str], T],
        take: Callable[[T], str],
        metrics: Metrics,
        health: Health,
        quiet: bool = False,
        every: float = EVERY,
    ) -> None:
        self._path = path
        self._seen: str | Fault = text  # what was taken or refused last
        self._new: str | Fault | None = None  # seen once
        self._make = make
        self._take = take
        self._metrics = metrics
        self._health = health
        self._level = logging.DEBUG if quiet else logging.INFO
        self._faults_level = logging.DEBUG if quiet else logging.ERROR
        self._every = every
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Somebody says that it is to be read again now (SIGHUP)."""
        self._asked.set()

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            settling = self._new is not None
            try:
                async with asyncio.timeout(SETTLED if settling else self._every):
                    await self._asked.wait()
            except TimeoutError:
                pass
            asked = self._asked.is_set()
            self._asked.clear()
            try:
                await self.look(asked=asked)
            except Exception:
                log.exception("an internal error while reading %s again", self._path)

    async def look(self, *, asked: bool = False) -> None:
        """One look; `asked`: whatever is there counts, as it is."""
        found = await asyncio.to_thread(self._read)
        if not asked:
            if found == self._seen:
                self._new = None
                return
            if found != self._new:
                self._new = found
                return
        self._new, self._seen = None, found
        try:
            if isinstance(found, Fault):
                raise ConfigError(str(found), (found,))
            made = await asyncio.to_thread(self._make, found)
        except ConfigError as error:
            self._refused(error.faults or (Fault(str(self._path), error.message),))
            return
        self._taken(self._take(made))

    def _read(self) -> str | Fault:
        """Its text, or why there is none."""
        try:
            return flows.read(self._path)
        except ConfigError as error:
            return error.faults[0]

    def _taken(self, changes: str) -> None:
        mended = self._health.flows_refused is not None
        self._health.flows_refused = None
        self._metrics.flows_refused.set(0)
        self._metrics.flows_reloads.labels("taken" if changes else "same").inc()
        if changes:
            log.log(self._level, "%s is in force: %s", self._path, changes)
        elif mended:
            log.log(self._level, "%s is mended: the flows are as before", self._path)
        else:
            log.log(self._level, "%s was read again: the flows are as before", self._path)

    def _refused(self, faults: tuple[Fault, ...]) -> None:
        faults = tuple(fault for fault in faults if not fault.warning)
        self._metrics.flows_reloads.labels("refused").inc()
        self._metrics.flows_refused.set(1)
        self._health.flows_refused = (
            f"the flows file is refused, the flows from before go on: {faults[0]}"
        )
        for fault in faults[:TOLD]:
            text = "%s is refused, the flows from before go on: %s"
            log.log(self._faults_level, text, self._path, fault)
        if len(faults) > TOLD:
            more = len(faults) - TOLD
            log.log(self._faults_level, "and %d more faults: run emqx-gpt check", more)
