"""What goes wrong: seeded, bounded, and put right again when a run ends."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from tests.chaos.broker import WAYS, Broker
from tests.chaos.plan import Plan
from tests.chaos.postgres import Postgres
from tests.chaos.processes import Replica
from tests.chaos.traffic import Feed

HOUR = 3600 * 1000


class Troubles:
    """All of them side by side; `killed` is set after the last kill."""

    def __init__(
        self,
        plan: Plan,
        replicas: Sequence[Replica],
        broker: Broker,
        feed: Feed,
        postgres: Postgres | None,
    ) -> None:
        self._plan = plan
        self._replicas = replicas
        self._broker = broker
        self._feed = feed
        self._postgres = postgres
        self._tasks: list[asyncio.Task[None]] = []
        self._restarting: asyncio.Task[None] | None = None
        self.counts: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.stopped: list[tuple[float, float]] = []  # loop times of SIGSTOP and what ended it
        self.killed = asyncio.Event()

    def start(self) -> None:
        works: list[Callable[[random.Random], Coroutine[Any, Any, None]]] = [
            self._kill,
            self._send_broker_away,
            self._jump,
        ]
        if self._plan.resets:
            works.append(self._reset)
        if self._plan.sqlite:
            works.append(self._fill_disk)
        if self._postgres is not None and self._plan.restarts[1]:
            works.append(self._restart_postgres)
        for work in works:
            rng = random.Random(f"{self._plan.seed} {work.__name__}")
            self._tasks.append(asyncio.create_task(work(rng), name=work.__name__))

    async def end(self) -> None:
        """Everything works again. Raises what went wrong in here."""
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._restarting is not None:
            await self._restarting  # not left half way
        await self._broker.come_back()
        for replica in self._replicas:
            replica.signal(signal.SIGCONT)
            replica.control.ahead = 0
            replica.control.full = False
        for result in results:
            if isinstance(result, Exception):
                raise result

    # Kills

    async def _kill(self, rng: random.Random) -> None:
        plan = self._plan
        while (
            self.counts["kills"] < plan.kills
            or self.counts["stops"] < plan.stops
            or self.counts["restarts"] < plan.restarts_in_order
        ):
            if self._due(plan.restarts_in_order, "restarts"):
                victim = rng.choice(self._replicas)
                await victim.up.wait()
                await asyncio.sleep(rng.uniform(*plan.kill_pause))
                self.counts["restarts"] += victim.signal(signal.SIGTERM)
                continue
            victims = [rng.choice(self._replicas)]
            if rng.random() < 0.1:
                victims = list(self._replicas)  # all at once, as when a machine goes
            if rng.random() < 0.85:  # the others die while they start
                for victim in victims:
                    await victim.up.wait()
            await asyncio.sleep(rng.uniform(*plan.kill_pause))
            # Stops are spread evenly among the kills.
            if self._due(plan.stops, "stops"):
                await self._stand_still(rng, victims[0])
                continue
            if rng.random() < 0.5:
                await self._moment(rng, victims[0])
            for victim in victims:
                self.counts["kills"] += victim.signal(signal.SIGKILL)
        self.killed.set()

    def _due(self, many: int, what: str) -> bool:
        """Whether it is the turn of one of these, spread evenly among the kills."""
        kills = self._plan.kills
        if not kills:
            return self.counts[what] < many
        return self.counts[what] * (kills + 1) < self.counts["kills"] * many

    async def _moment(self, rng: random.Random, victim: Replica) -> None:
        """Kill it while it publishes, or while a webhook is on the way to it."""
        reached = asyncio.Event()

        def kill() -> None:
            self.counts["kills"] += victim.signal(signal.SIGKILL)
            reached.set()

        def sent(port: int) -> None:
            if port == victim.port and not reached.is_set():
                kill()

        if rng.random() < 0.5:
            self._broker.on_call[victim.key] = kill
        else:
            for connection in self._feed.connections:
                connection.on_sent = sent
        try:
            async with asyncio.timeout(2):
                await reached.wait()
        except TimeoutError:
            pass
        finally:
            self._broker.on_call.pop(victim.key, None)
            for connection in self._feed.connections:
                connection.on_sent = lambda port: None

    async def _stand_still(self, rng: random.Random, victim: Replica) -> None:
        """Longer than its lease; then it goes on as if nothing had been, or dies."""
        began = asyncio.get_running_loop().time()
        await victim.up.wait()
        victim.signal(signal.SIGSTOP)
        try:
            self.counts["stops"] += 1
            await asyncio.sleep(self._plan.lease * rng.uniform(1.2, 2.0))
        finally:
            victim.signal(signal.SIGCONT)
            self.stopped.append((began, asyncio.get_running_loop().time()))
        if rng.random() < 0.5:
            self.counts["kills"] += victim.signal(signal.SIGKILL)

    # The rest

    async def _reset(self, rng: random.Random) -> None:
        while True:
            await asyncio.sleep(rng.uniform(0.5, 1.5) * self._plan.resets)
            busy = [each for each in self._feed.connections if each.pipelined]
            if busy:
                max(busy, key=lambda each: each.pipelined).reset()
                self.counts["resets"] += 1

    async def _send_broker_away(self, rng: random.Random) -> None:
        for at, seconds in enumerate(self._plan.outages):
            await asyncio.sleep(self._gap(rng, len(self._plan.outages)))
            await self._broker.leave("refuse" if at == 0 else rng.choice(WAYS))
            try:
                self.counts["outages"] += 1
                self.seconds["outages"] += round(seconds)
                await asyncio.sleep(seconds)
            finally:
                await self._broker.come_back()

    async def _fill_disk(self, rng: random.Random) -> None:
        for seconds in self._plan.disk_full:
            await asyncio.sleep(self._gap(rng, len(self._plan.disk_full)))
            self._replicas[0].control.full = True
            try:
                self.counts["disk full"] += 1
                self.seconds["disk full"] += round(seconds)
                await asyncio.sleep(seconds)
            finally:
                self._replicas[0].control.full = False

    async def _jump(self, rng: random.Random) -> None:
        """A process's clock is up to an hour wrong for a while."""
        for seconds in self._plan.jumps:
            await asyncio.sleep(self._gap(rng, len(self._plan.jumps)))
            victim = rng.choice(self._replicas)
            await victim.up.wait()
            control = victim.control
            control.ahead = rng.randint(-HOUR, HOUR)
            try:
                self.counts["clock jumps"] += 1
                await asyncio.sleep(seconds)
            finally:
                control.ahead = 0

    async def _restart_postgres(self, rng: random.Random) -> None:
        assert self._postgres is not None
        while True:
            await asyncio.sleep(rng.uniform(*self._plan.restarts))
            restart = self._postgres.restart(rng.choice(("fast", "immediate")))
            self._restarting = asyncio.create_task(restart)
            await asyncio.shield(self._restarting)
            self.counts["restarts of PostgreSQL"] += 1

    def _gap(self, rng: random.Random, times: int) -> float:
        """Pauses that spread `times` events over the run."""
        return rng.uniform(0.5, 1.2) * self._plan.requests / self._plan.rate / (times + 1)
