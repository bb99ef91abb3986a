"""How each flow does: requests, success, times, tokens, money, over an hour, a day, a week."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from service.errors import StoreError
from service.inbox import BUCKETS, KEPT, Count, Inbox
from service.operations.insights import when

WINDOWS = {
    "hour": (3_600_000, 60_000),
    "day": (86_400_000, 900_000),
    "week": (604_800_000, 7_200_000),
}
"""Length and width of a slot of its chart, ms."""
KEEP = WINDOWS["week"][0] + 86_400_000
BITE = 0.02  # seconds between looks at old minutes: others write in between
EVERY = 20.0  # seconds
GOOD_FOR = 2_000  # ms that an answer is given again

log = logging.getLogger("emqx-gpt.worker")


@dataclass(slots=True)
class _Sum:
    states: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    times: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    tokens: int = 0
    cost: float = 0.0
    kept: int = 0

    def add(self, one: Count) -> None:
        if one.state == KEPT:
            self.kept += one.count
            return
        self.states[one.state] += one.count
        self.tokens += one.prompt_tokens + one.completion_tokens
        self.cost += one.cost
        if one.state == "done":
            self.times[one.bucket] += one.count

    def shown(self) -> dict[str, Any]:
        asked = sum(n for state, n in self.states.items() if state != "ignored")
        done = self.states.get("done", 0)
        return {
            "requests": sum(self.states.values()),
            "saved": self.kept + self.states.get("ignored", 0),
            "states": dict(self.states),
            "success": done / asked if asked else None,
            "p50_ms": quantile(self.times, 0.5),
            "p95_ms": quantile(self.times, 0.95),
            "tokens": self.tokens,
            "cost": round(self.cost, 6),
        }


def quantile(times: dict[int, int], share: float) -> float | None:
    """About the time in ms within which this share came: in its bucket it is taken to be even."""
    total = sum(times.values())
    if not total:
        return None
    left = share * total
    for bucket in sorted(times):
        count = times[bucket]
        if count >= left:
            low = BUCKETS[bucket - 1] if bucket else 0
            high = BUCKETS[min(bucket, len(BUCKETS) - 1)]
            return float(round(low + (high - low) * left / count, 1))
        left -= count
    return float(BUCKETS[-1])


class Statistics:
    """Counts by the minute, in the background, and sums them up. `now` gives epoch ms."""

    def __init__(self, store: Inbox, *, now: Callable[[], int]) -> None:
        self._store = store
        self._now = now
        self._task: asyncio.Task[None] | None = None
        self._locks = {window: asyncio.Lock() for window in WINDOWS}
        self._known: dict[str, tuple[int, dict[str, Any]]] = {}

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def count(self) -> None:
        """Count all minutes that are over. Raises StoreError."""
        more = True
        while more:
            more = await self._store.roll(KEEP)
            await asyncio.sleep(BITE)

    async def _watch(self) -> None:
        while True:
            try:
                await self.count()
            except StoreError as error:
                log.debug("minutes are not counted now: %s", error.message)
            except Exception:
                log.exception("an internal error while counting")
            await asyncio.sleep(EVERY)

    async def of(self, window: str) -> dict[str, Any]:
        """The figures of a window; for a moment the same for all who ask. Raises StoreError."""
        async with self._locks[window]:
            at, known = self._known.get(window, (0, {}))
            if not known or not 0 <= self._now() - at < GOOD_FOR:
                known = await self._look(window)
                self._known[window] = (self._now(), known)
            return known

    async def _look(self, window: str) -> dict[str, Any]:
        length, width = WINDOWS[window]
        since = (self._now() - length) // width * width + width
        found = await self._store.counts(since, width)
        total, flows = _Sum(), defaultdict[str, _Sum](_Sum)
        slots = {at: _Sum() for at in range(since, self._now() + 1, width)}
        for one in found:
            total.add(one)
            flows[one.flow].add(one)
            if one.at in slots:
                slots[one.at].add(one)
        return {
            "window": window,
            "since": when(since),
            "width_s": width // 1000,
            "total": total.shown(),
            "flows": {name: flows[name].shown() for name in sorted(flows)},
            "series": [{"at": when(at), **one.shown()} for at, one in slots.items()],
        }
