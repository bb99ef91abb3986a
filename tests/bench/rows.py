"""What a row of the bench is, and what all measurements share."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.bench.load import USERS, webhook
from tests.bench.processes import Child, Ends, Service

T = TypeVar("T")
Prepare = Callable[[Path], Awaitable[None]]


@dataclass
class Bar:
    """One bar of the picture; those of a row share their scale."""

    label: str
    value: float
    text: str


@dataclass
class Row:
    """One line of the table. `ratio`: ours over the baseline."""

    name: str
    what: str
    target: str
    ours: str
    reached: bool
    baseline: str = ""
    ratio: float | None = None
    bars: list[Bar] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)


class Bench:
    """One run: its ends, its folder, its sizes."""

    def __init__(self, ends: Ends, folder: Path, *, quick: bool) -> None:
        self.ends = ends
        self.quick = quick
        self._folder = folder
        self._runs = itertools.count(1)
        self.rounds = 1 if quick else 5

    def size(self, full: T, quick: T) -> T:
        return quick if self.quick else full

    def run(
        self, count: int, *, flow: str = "chat", publishers: int = USERS
    ) -> tuple[str, list[bytes]]:
        """Webhooks with ids that no other run has, and the name of this run."""
        run = f"R{next(self._runs):03d}"
        numbers = range(count)
        return run, [webhook(run, at, flow=flow, publishers=publishers) for at in numbers]

    def requests(self, count: int, *, flow: str = "chat", publishers: int = USERS) -> list[bytes]:
        return self.run(count, flow=flow, publishers=publishers)[1]

    @contextlib.asynccontextmanager
    async def service(
        self, model: str, prepare: Prepare | None = None, **env: str
    ) -> AsyncIterator[Service]:
        """A fresh service whose model behaves as the path says."""
        with tempfile.TemporaryDirectory(
            prefix="service-", dir=self._folder, ignore_cleanup_errors=True
        ) as home:
            if prepare is not None:
                await prepare(Path(home))
            service = Service(Path(home), self.ends, model=model, **env)
            try:
                yield await service.start()
            finally:
                service.stop()

    @contextlib.asynccontextmanager
    async def baseline(self, name: str, model: str = "") -> AsyncIterator[Child]:
        urls = ("--model", self.ends.model.url + model, "--emqx", self.ends.emqx.url)
        child = Child("tests.bench.baselines", name, *urls)
        try:
            yield await child.start()
        finally:
            child.stop()

    async def forget(self) -> None:
        """Nothing noted at the ends."""
        await self.ends.published()
        await self.ends.asked()


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def in_pairs(ours: Sequence[float], others: Sequence[float]) -> float:
    """The ratio of two interleaved series: the median of each round's."""
    return median([one / other for one, other in zip(ours, others, strict=True)])
