"""Claims requests and begins their lives side by side within bounds; keeps leases; drains.

Nothing polls while there is nothing to do: the worker wakes when something was stored (here,
or by a notification of the database), when a waiting request falls due, or after IDLE.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable

from service.answering.intake import Intake
from service.answering.job import InHand, about, size_of
from service.answering.redelivery import Redelivery
from service.answering.request_run import RequestRunner
from service.domain import Claimed
from service.errors import StoreError
from service.flows import Catalogue
from service.inbox import Inbox
from service.llm.circuit_breaker import CircuitBreakers
from service.supervised import Link

LEASE = 30.0  # seconds; a dead worker's requests return after it
CLAIM_AT_ONCE = 200  # requests claimed at once
ANSWERED_PER_PLACE = (
    4  # answered requests in hand for each that may be asked, while the broker is away
)
MAX_BYTES = 128 << 20  # bytes in hand; beyond, requests had better wait in the inbox
LEAST_BYTES = 64 << 10  # bytes that a request is taken to have until larger ones are seen
SHORT_PAUSE = 0.02  # seconds
IDLE = 2.0  # seconds between looks when nothing falls due
PURGE_AT_ONCE = 500  # requests removed at once
PURGE_EVERY = 60.0  # seconds between removals of old requests
ADOPT_EVERY = 5.0  # seconds between looks for requests of flows that were unknown when they came

log = logging.getLogger("emqx-gpt.worker")


class Worker:
    """One process's share of the work. `now` gives epoch ms, `owner` names the process."""

    def __init__(
        self,
        flows: Catalogue,
        store: Inbox,
        runner: RequestRunner,
        in_hand: InHand,
        breakers: CircuitBreakers,
        intake: Intake,
        redelivery: Redelivery,
        *,
        owner: str,
        concurrency: int,
        retention: float,
        max_memory: int,
        now: Callable[[], int],
        lease: float = LEASE,
        link: Link | None = None,
    ) -> None:
        self._flows = flows
        self._store = store
        self._runner = runner
        self.in_hand = in_hand
        self._breakers = breakers
        self._intake = intake
        self._redelivery = redelivery
        self._owner = owner
        self._concurrency = concurrency
        self._retention = retention
        self._max_memory = max_memory
        self._now = now
        self._lease = lease
        self._link = link
        self._wake = in_hand.wake  # the store sets it when it has something new
        self._claims: asyncio.Task[None] | None = None
        self._upkeep: list[asyncio.Task[None]] = []
        self._large = LEAST_BYTES  # bytes of the largest request that was claimed lately
        self.paused: frozenset[str] = frozenset()  # flows of which nothing new is begun
        self.beat = time.monotonic()  # the claim loop went round

    def start(self) -> None:
        self._claims = asyncio.create_task(self._forever(self._claim))
        loops = (self._heartbeat, self._reap, self.purge, self._adopt, self._redelivery.round)
        self._upkeep = [asyncio.create_task(self._forever(loop)) for loop in loops]

    @property
    def claiming(self) -> bool:
        """Whether it takes new requests."""
        return self._claims is not None and not self._claims.done()

    async def stop(self, grace: float) -> None:
        """No new claims; requests in hand finish within `grace` seconds; the rest go back."""
        if self._claims is not None:
            self._claims.cancel()  # the other loops keep the leases of what is in hand
        self.in_hand.full = True
        ends = time.monotonic() + grace
        while self.in_hand.running and (left := ends - time.monotonic()) > 0:
            self._wake.clear()
            await self._sleep(left)
        unfinished = await self.halt()
        if unfinished:
            log.warning("%d requests go back to the inbox unfinished", len(unfinished))
            try:
                await self._store.release(unfinished)
            except StoreError as error:
                log.error("they come back when their leases run out: %s", error.message)

    async def halt(self) -> list[Claimed]:
        """Stop at once; what was in hand, whose leases still run."""
        await self.stop_loops()
        held = list(self.in_hand.running.values())
        for one in held:
            one.task.cancel()
        await asyncio.gather(*(one.task for one in held), return_exceptions=True)
        for one in held:
            self.in_hand.let_go(one.claimed)
        return [one.claimed for one in held]

    async def stop_loops(self) -> None:
        """End the loops: no claims and no heartbeats any more; what is in hand goes on."""
        loops = [*self._upkeep, *([self._claims] if self._claims is not None else [])]
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)

    async def _forever(self, loop: Callable[[], Awaitable[float]]) -> None:
        """Run a round, sleep as long as it says; the database being away ends nothing."""
        failures = 0
        while True:
            try:
                pause = await loop()
                failures = 0
            except StoreError as error:
                failures += 1
                if failures in (1, 10, 100):
                    log.error("the database does not work now: %s", error.message)
                pause = min(10.0, 0.2 * 2 ** min(failures, 6))
            except Exception:
                # Without this loop the process would take requests and never answer them.
                log.exception("an internal error in the worker")
                pause = 1.0
            if pause > 0:
                await asyncio.sleep(pause)

    # Claiming

    async def _claim(self) -> float:
        self.beat = time.monotonic()
        free = self._concurrency - len(self.in_hand.asking)
        room = MAX_BYTES - self.in_hand.bytes
        if len(self.in_hand.running) >= self._concurrency * ANSWERED_PER_PLACE:
            free = 0
        free = min(free, 1 + room // self._large)
        self.in_hand.full = free <= 0
        self._wake.clear()
        if free <= 0:
            await self._sleep(IDLE)
            return 0.0
        names, limited, next_in = self._callable_flows()
        took, due = await self._claim_and_start(names, min(free, CLAIM_AT_ONCE))
        for flows, room in limited:
            # Beyond their limit they had better wait in the inbox than here.
            more, _ = await self._claim_and_start(flows, min(free - took, room))
            if more:
                await asyncio.sleep(SHORT_PAUSE)  # until they stand in line for their model
            took += more
        if due > 0 or not took:
            await self._sleep(min(max(0.01, due), next_in, IDLE))
        return 0.0

    async def _claim_and_start(self, flows: list[str], limit: int) -> tuple[int, float]:
        """How many requests were taken up, and seconds until the next of these flows is due.

        Whatever the flows, also what waits to be published or is too late.
        """
        if limit <= 0:
            return 0, IDLE
        claims = await self._store.claim(flows, limit, self._owner, int(self._lease * 1000))
        largest = max(map(size_of, claims.requests), default=0)
        self._large = max(LEAST_BYTES, largest, self._large - self._large // 4)
        for claimed in claims.requests:
            work = self._runner.run(claimed)
            if self._link is not None:
                work = self._link.during(claimed.id, work)
            self.in_hand.take(claimed, asyncio.create_task(work))
        due = IDLE if claims.next_due is None else (claims.next_due - self._now()) / 1000
        return len(claims.requests), due

    def _callable_flows(self) -> tuple[list[str], list[tuple[list[str], int]], float]:
        """Flows one of whose models may be called; those of them whose models have shown a
        limit, with the room that there is; and seconds until another next_in."""
        names, limited, next_in = [], [], IDLE
        for flow in self._flows.flows.values():
            if flow.name in self.paused:
                continue
            room = math.inf
            if flow.on_error is None:  # such a flow speaks also when no model can
                room = self._breakers.room(flow.models)
            if room == math.inf:
                names.append(flow.name)
            elif room >= 1:
                limited.append(([flow.name], int(room)))
                next_in = min(next_in, SHORT_PAUSE)
            else:
                next_in = min(next_in, max(self._breakers.blocked_for(flow.models), SHORT_PAUSE))
        return names, limited, next_in

    async def _sleep(self, seconds: float) -> None:
        """Until something changes, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    # Upkeep

    async def _heartbeat(self) -> float:
        held = dict(self.in_hand.running)
        if held:
            until = self._now() + int(self._lease * 1000)
            for key in await self._store.heartbeat([one.claimed for one in held.values()], until):
                claimed = held[key].claimed
                if key in self.in_hand.running:
                    log.warning("request %s: its lease is lost", claimed.id, extra=about(claimed))
                    held[key].task.cancel()
                    self.in_hand.let_go(claimed)
        return self._lease / 3

    async def _reap(self) -> float:
        if await self._store.reap():
            self._wake.set()
        return self._lease / 3

    async def purge(self) -> float:
        """Remove what ended before RETENTION; seconds until it is worth it again."""
        before = self._now() - int(self._retention * 1000)
        removed = await self._store.purge(before, PURGE_AT_ONCE)
        if removed >= PURGE_AT_ONCE:
            return 0.05  # small bites: others write in between
        forgotten = await self._store.bound_memory(self._max_memory)
        if forgotten:
            log.warning(
                "what conversations remember is over MAX_MEMORY: the oldest %d exchanges are "
                "forgotten",
                forgotten,
            )
        return PURGE_EVERY

    async def _adopt(self) -> float:
        for claimed in await self._store.unresolved(list(self._flows.flows), 500):
            entry = self._intake.entry(claimed.message, claimed.id)
            if entry.resolved and await self._store.adopt(claimed.seq, entry):
                self._wake.set()
        return ADOPT_EVERY
