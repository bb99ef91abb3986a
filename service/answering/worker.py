"""Claims requests, answers them side by side within bounds, keeps their leases, drains.

Nothing polls while there is nothing to do: the worker wakes when something was stored (here,
or by a notification of the database), when a waiting request falls due, or after IDLE.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from service.answering import endings
from service.answering.answer import Pipeline
from service.answering.endings import Endings, OnEnd, Outbox
from service.answering.intake import Intake
from service.domain import Claimed, Entry, State
from service.errors import StoreError
from service.flows import Flows
from service.llm.circuit_breaker import CircuitBreakers

LEASE = 30.0  # seconds; a dead worker's requests return after it
BATCH = 200  # requests claimed at once
AHEAD = 4  # answered requests in hand for each that may be asked, while the broker is away
IDLE = 2.0  # seconds between looks when nothing falls due
PURGE = 500
UPKEEP = 60.0  # seconds between removals of old requests
UNKNOWN = 5.0  # seconds between looks for requests of flows that were unknown when they came

log = logging.getLogger("emqx-gpt.worker")


class Claims(Protocol):
    @property
    def requests(self) -> Sequence[Claimed]: ...

    @property
    def next_due(self) -> int | None: ...


class Inbox(endings.Inbox, Protocol):
    """The part of the store that the worker drives."""

    async def claim(
        self, flows: Sequence[str], limit: int, owner: str, lease_ms: int
    ) -> Claims: ...
    async def heartbeat(self, claimed: Sequence[Claimed], until: int) -> set[tuple[int, int]]: ...
    async def release(self, claimed: Sequence[Claimed]) -> None: ...
    async def reap(self) -> int: ...
    async def unresolved(self, flows: Sequence[str], limit: int) -> Sequence[Claimed]: ...
    async def adopt(self, seq: int, entry: Entry) -> bool: ...
    async def purge(self, before: int, limit: int) -> int: ...


class Worker:
    """One process's share of the work. `now` gives epoch ms, `owner` names the process."""

    def __init__(
        self,
        flows: Flows,
        inbox: Inbox,
        pipeline: Pipeline,
        gates: CircuitBreakers,
        intake: Intake,
        *,
        owner: str,
        concurrency: int,
        retention: float,
        now: Callable[[], int],
        on_end: OnEnd,
        outbox: Outbox,
        lease: float = LEASE,
    ) -> None:
        self._flows = flows
        self._inbox = inbox
        self.endings = Endings(inbox, outbox, told=pipeline.refused, done=self._drop, on_end=on_end)
        self._pipeline = pipeline
        self._gates = gates
        self._intake = intake
        self._owner = owner
        self._concurrency = concurrency
        self._retention = retention
        self._now = now
        self._on_end = on_end
        self._lease = lease
        self._wake = asyncio.Event()
        self._asking: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._held: dict[tuple[int, int], Claimed] = {}
        self._loops: list[asyncio.Task[None]] = []
        self.beat = time.monotonic()  # the claim loop went round

    def start(self) -> None:
        loops = (self._claiming, self._heartbeat, self._reaping, self._upkeep, self._adopting)
        self._loops = [asyncio.create_task(self._forever(loop)) for loop in loops]

    def wake(self) -> None:
        """Something may be there to claim."""
        self._wake.set()

    @property
    def in_flight(self) -> int:
        """Requests being asked now."""
        return len(self._asking)

    async def stop(self, grace: float) -> None:
        """No new claims; requests in hand finish within `grace` seconds; the rest go back."""
        self._loops[0].cancel()  # claiming; the others keep the leases of what is in hand
        ends = time.monotonic() + grace
        while self._held and (left := ends - time.monotonic()) > 0:
            self._wake.clear()
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                break
        for task in (*self._loops, *self._asking.values()):
            task.cancel()
        await asyncio.gather(*self._loops, *self._asking.values(), return_exceptions=True)
        if self._held:
            log.warning("%d requests go back to the inbox unfinished", len(self._held))
            try:
                await self._inbox.release(list(self._held.values()))
            except StoreError as error:
                log.error("they come back when their leases run out: %s", error.message)
            self._held.clear()

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
                log.exception("a fault of this program in the worker")
                pause = 1.0
            if pause > 0:
                await asyncio.sleep(pause)

    # Claiming

    async def _claiming(self) -> float:
        self.beat = time.monotonic()
        free = self._concurrency - len(self._asking)
        if len(self._held) >= self._concurrency * AHEAD:
            free = 0
        self._wake.clear()
        if free <= 0:
            await self._sleep(IDLE)
            return 0.0
        flows, opens = self._open_flows()
        claims = await self._inbox.claim(
            flows, min(free, BATCH), self._owner, int(self._lease * 1000)
        )
        for claimed in claims.requests:
            self._take(claimed)
        due = IDLE if claims.next_due is None else (claims.next_due - self._now()) / 1000
        if due > 0 or not claims.requests:
            await self._sleep(min(max(0.01, due), opens, IDLE))
        return 0.0

    def _open_flows(self) -> tuple[list[str], float]:
        """Flows one of whose providers may be called, and seconds until another opens."""
        names, opens = [], IDLE
        for flow in self._flows.flows.values():
            wait = 0.0
            if flow.on_error is None:  # such a flow speaks also when no model can
                wait = self._gates.closed(flow.models)
            if wait <= 0:
                names.append(flow.name)
            else:
                opens = min(opens, max(wait, 0.01))
        return names, opens

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _take(self, claimed: Claimed) -> None:
        key = (claimed.seq, claimed.fence)
        self._held[key] = claimed
        if claimed.state is State.ANSWERED:
            self.endings.publish(claimed, claimed.outbox, claimed.outcome or State.DONE, None)
            return
        task = asyncio.create_task(self._answer(claimed))
        self._asking[key] = task
        task.add_done_callback(lambda _: self._asked(key))

    def _asked(self, key: tuple[int, int]) -> None:
        self._asking.pop(key, None)
        self._wake.set()

    async def _answer(self, claimed: Claimed) -> None:
        try:
            answer = await self._pipeline.answer(claimed)
        except StoreError as error:
            # Still claimed: the lease runs out and the request comes back.
            log.error("request %s: its end could not be stored: %s", claimed.id, error.message)
            self._drop(claimed)
            return
        except Exception:
            log.exception("request %s: a fault of this program", claimed.id)
            self._drop(claimed)  # likewise, until it was claimed too often
            return
        if answer is None:
            self._drop(claimed)
        elif answer.outbox:
            self.endings.publish(claimed, answer.outbox, answer.outcome, answer.error_code)
        else:
            self._drop(claimed)
            self._on_end(claimed, answer.outcome, answer.error_code)

    def _drop(self, claimed: Claimed) -> None:
        self._held.pop((claimed.seq, claimed.fence), None)
        self._wake.set()

    # Upkeep

    async def _heartbeat(self) -> float:
        held = list(self._held.values())
        if held:
            lost = await self._inbox.heartbeat(held, self._now() + int(self._lease * 1000))
            for key in lost:
                claimed = self._held.pop(key, None)
                if claimed is not None and (task := self._asking.get(key)) is not None:
                    log.warning("request %s: its lease is lost", claimed.id)
                    task.cancel()
        return self._lease / 3

    async def _reaping(self) -> float:
        if await self._inbox.reap():
            self._wake.set()
        return self._lease / 3

    async def _upkeep(self) -> float:
        before = self._now() - int(self._retention * 1000)
        removed = await self._inbox.purge(before, PURGE)
        return 0.05 if removed >= PURGE else UPKEEP  # small bites: others write in between

    async def _adopting(self) -> float:
        for claimed in await self._inbox.unresolved(list(self._flows.flows), 500):
            entry = self._intake.entry(claimed.message, claimed.id)
            if entry.resolved and await self._inbox.adopt(claimed.seq, entry):
                self._wake.set()
        return UNKNOWN
