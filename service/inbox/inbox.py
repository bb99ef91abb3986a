"""The store as the rest of the program sees it: async, one method for each thing that is done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from service.domain import (
    NO_TRACE,
    NO_USAGE,
    Attempt,
    Batch,
    Claimed,
    Ear,
    Ending,
    Entry,
    Message,
    Reading,
    Reservation,
    State,
    Turn,
    Usage,
    Wait,
)
from service.inbox import (
    batches,
    claims,
    counters,
    entries,
    filters,
    held,
    leases,
    memory,
    ordering,
    purge,
    readings,
    reads,
    reap,
    rollup,
    ticks,
    unsettled_calls,
    values,
    waits,
)
from service.inbox.commit import Engine
from service.inbox.filters import Filter, Page
from service.inbox.held import HeldReply, Taken
from service.inbox.operator_desk import Desk
from service.inbox.rows import Added, BacklogStats, Change, Claims, Memory, Row
from service.inbox.sql import Tx

T = TypeVar("T")
ADD_TIMEOUT = 4.0
_BATCH = 500


def epoch_ms() -> int:
    """The time now."""
    return time.time_ns() // 1_000_000


class Inbox:
    """The durable inbox behind one DATABASE_URL.

    Writes of concurrent callers share transactions. `StoreBusy` means nothing was written
    and the same call may succeed later. `on_change` is called after each commit with what
    changed (in PostgreSQL also by other processes), `on_wake` when there may be something
    to claim; both must return at once.
    """

    def __init__(
        self,
        url: str,
        *,
        now: Callable[[], int] = epoch_ms,
        on_change: Callable[[Sequence[Change]], None] | None = None,
        on_wake: Callable[[], None] | None = None,
    ) -> None:
        self._engine = Engine(url, now=now, on_change=on_change, on_wake=on_wake)
        self._turn = 0
        self._sweep = claims.Sweep()
        self._round = purge.Walk()
        self._stats = reads.Cached(lambda: self._view(reads.stats))
        self._looked_at = 0
        self.desk = Desk(self._engine)
        self.next_expiry: int | None = None
        """When the next lease runs out, as the last `reap` saw it."""

    @property
    def backlog(self) -> int:
        """Requests not ended yet, known without asking; counted afresh now and then."""
        return self._engine.backlog

    @property
    def trouble(self) -> str | None:
        """Why the last write failed, if it did."""
        return self._engine.trouble

    async def open(self) -> None:
        """Bring the schema up to date and connect; `StoreUnusable` if a person has to act."""
        await self._engine.open()

    async def close(self) -> None:
        """What was submitted is still written; then everything is let go."""
        await self._engine.close()

    async def __aenter__(self) -> Inbox:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def ping(self) -> None:
        """Raises `StoreBusy` if the database can't be written to now."""
        await self._engine.submit(counters.settle, counters.Correction("ping", 0, 0))

    # What comes in

    async def add(self, entry: Entry) -> Added:
        """Committed to disk when this returns. Within 4 s, or `StoreBusy`."""
        return await self.adding(entry)

    def adding(self, entry: Entry) -> asyncio.Future[Added]:
        """The same, begun at once."""
        return self._engine.intake(
            entries.add, entry, weight=len(entry.message.payload), timeout=ADD_TIMEOUT
        )

    async def unresolved(self, flows: Sequence[str], limit: int) -> list[Claimed]:
        """Stored requests without a flow, that one of `flows` may fit. Not claimed by this.

        Those that came without a name are shown page by page, one page per call.
        """
        found = await self._view(
            lambda tx: entries.find_unresolved(tx, flows, limit, self._looked_at)
        )
        nameless = [one.seq for one in found if not one.message.flow]
        self._looked_at = nameless[-1] if nameless and len(found) >= limit else 0
        return found

    async def adopt(self, seq: int, entry: Entry) -> bool:
        """Give a stored request the flow, conversation and deadline of `entry`, once."""
        return await self._engine.intake(entries.adopt, entries.Adoption(seq, entry))

    async def retry(self, id: str, deadline: int, payload: bytes | None = None) -> bool:
        """A dead letter goes to the end of the queue; with `payload` instead of its own."""
        return await self._engine.intake(entries.requeue, entries.Requeue(id, deadline, payload))

    async def settle_calls(self, said: unsettled_calls.Settle) -> int:
        """A person says what became of commands that may be out; of how many."""
        return await self._engine.submit(unsettled_calls.settle, said)

    async def remove(self, id: str) -> bool:
        """Delete a request that has ended."""
        return await self._engine.submit(purge.remove, id)

    # Leases

    async def claim(self, flows: Sequence[str], limit: int, owner: str, lease_ms: int) -> Claims:
        """Take what is due: of `flows`, and of any flow what waits to be published or is late."""
        if limit < 1:
            return Claims([], None)
        self._turn += 1
        order = claims.Claim(tuple(flows), limit, owner, lease_ms, self._turn, self._sweep)
        future = self._engine.claim(claims.claim, order)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(self._unclaim)
            raise

    def _unclaim(self, future: asyncio.Future[Claims]) -> None:
        """Nobody was there any more to take what was claimed."""
        if not future.cancelled() and future.exception() is None:
            for claimed in future.result().requests:
                release = self._engine.submit(leases.release, leases.Release(claimed))
                release.add_done_callback(lambda f: f.cancelled() or f.exception())

    async def save_ending(self, claimed: Claimed, ending: Ending) -> bool:
        """Store how it ends, before anything is published. False: the lease is lost."""
        return await self._engine.submit(leases.save_ending, leases.SaveEnding(claimed, ending))

    async def finish(
        self,
        claimed: Claimed,
        *,
        delivered: bool | None,
        outcome: State | None = None,
        error_code: str | None = None,
        error_message: str | None = None,
        held: tuple[int, int] | None = None,
    ) -> bool:
        """An answered request is published (or never will be): it ends. `held`: when its outbox
        is published again, since it found nobody, and until when (ms)."""
        item = leases.Finish(claimed, delivered, outcome, error_code, error_message, held)
        return await self._engine.submit(leases.finish, item)

    async def reschedule(
        self,
        claimed: Claimed,
        *,
        at: int,
        attempts: Iterable[Attempt] = (),
        count: bool = True,
        error_code: str | None = None,
        error_message: str | None = None,
        usage: Usage = NO_USAGE,
        trace: Mapping[str, Any] = NO_TRACE,
    ) -> bool:
        """Not now but at `at`: asked again or, if it is answered, published again. `usage` is
        what these attempts took, `trace` how they went."""
        item = leases.Reschedule(
            claimed, at, tuple(attempts), count, error_code, error_message, usage, trace
        )
        return await self._engine.submit(leases.reschedule, item)

    async def checkpoint(
        self,
        claimed: Claimed,
        steps: Sequence[Mapping[str, Any]],
        usage: Usage = NO_USAGE,
        *,
        begun: Sequence[Wait] = (),
        closed: Sequence[waits.Close] = (),
    ) -> bool:
        """Store the rounds of a tool flow so far, all of them, what they took, and what they
        begin or cease to wait for."""
        item = leases.SaveSteps(claimed, tuple(steps), usage, begun, closed)
        return await self._engine.submit(leases.save_steps, item)

    async def gather(self, claimed: Claimed, batch: Batch) -> list[Message] | None:
        """The messages that it is asked about together, its own first; the same ones again when
        it is asked again. None: the lease is lost."""
        return await self._engine.submit(leases.gather, leases.Gather(claimed, batch))

    async def collected(self, seq: int) -> list[Message]:
        """What a request was asked about together with, beside its own message."""
        return await self._view(lambda tx: batches.members(tx, seq))

    async def park(
        self,
        claimed: Claimed,
        *,
        until: int,
        waiting_for: Sequence[tuple[str, Ear]],
        steps: Sequence[Mapping[str, Any]],
        attempts: Iterable[Attempt] = (),
        usage: Usage = NO_USAGE,
        trace: Mapping[str, Any] = NO_TRACE,
    ) -> bool:
        """It waits, in nobody's hands, until then (ms) or until one of these waits is answered."""
        item = leases.Park(claimed, until, waiting_for, steps, tuple(attempts), usage, trace)
        return await self._engine.submit(leases.park, item)

    async def waits_of(self, seq: int) -> list[Wait]:
        """What a request's tool calls wait for, or waited for."""
        return await self._view(lambda tx: waits.of(tx, seq))

    async def hear(self, said: waits.Hear) -> list[tuple[waits.Heard, waits.Verdict]]:
        """Hold a message against the waits it may answer. Committed to disk when this returns."""
        return await self._engine.intake(waits.hear, said, timeout=ADD_TIMEOUT)

    async def heartbeat(self, held: Sequence[Claimed], until: int) -> set[tuple[int, int]]:
        """Hold leases until then; returns those (seq, fence) that are lost."""
        beats = [leases.Heartbeat(claimed, until) for claimed in held]
        kept = await self._engine.submit_all(leases.heartbeat, beats)
        return {(c.seq, c.fence) for c, ok in zip(held, kept, strict=True) if not ok}

    async def release(self, held: Sequence[Claimed]) -> None:
        """Give leases back unused."""
        await self._engine.submit_all(leases.release, [leases.Release(c) for c in held])

    async def reap(self, *, all_leases: bool = False) -> int:
        """Requeue what dead workers hold; how many.

        `all_leases` also takes those that still run: at the start of the one process that
        has a SQLite database alone, whoever held them is dead.
        """
        count, more = 0, True
        while more:
            reaped = await self._engine.submit(reap.reap, reap.Reap(_BATCH, all_leases))
            count += reaped.count
            more = reaped.more and reaped.count > 0
            self.next_expiry = reaped.next_expiry
        return count

    async def take_held(self, limit: int, lease_ms: int) -> Taken:
        """Replies to publish again."""
        return await self._engine.submit(held.take, held.Take(limit, lease_ms))

    async def note_held(
        self, reply: HeldReply, delivered: bool | None, again_at: int | None
    ) -> None:
        """What came of it; `again_at` None: it is not published again."""
        await self._engine.submit(held.note, held.Note(reply, delivered, again_at))

    async def pause_ordered(self, until: int) -> None:
        """Claim nothing of an ordered queue before then (ms), in any process: what the broker
        sends again may be older than what is here. Not if nothing was ever stored."""
        await self._engine.submit(ordering.pause, until)

    # Memory and limits

    async def memory(self, flow: str, conversation: str, *, limit: int, since: int = 0) -> Memory:
        """The newest `limit` turns that are not before `since`, oldest first."""
        return await self._view(
            lambda tx: memory.recall(tx, flow, conversation, limit=limit, since=since)
        )

    async def last_value(self, flow: str, conversation: str) -> str | None:
        """What a flow with `on_change` asked about last in a conversation."""
        return await self._view(lambda tx: values.last(tx, flow, conversation))

    async def forget(self, flow: str, conversation: str) -> int:
        """Delete a conversation's memory; how many turns it had."""
        return await self._engine.submit(memory.forget, memory.Forget(flow, conversation))

    async def turns(self, flow: str, conversation: str) -> list[tuple[int, Turn]]:
        """All that is remembered of a conversation, with its places, oldest first."""
        return await self._view(lambda tx: memory.stored(tx, flow, conversation))

    async def sum_up(
        self, flow: str, conversation: str, old: Sequence[tuple[int, Turn]], turn: Turn
    ) -> bool:
        """Put a summary in the place of the oldest turns. False: they are others by now."""
        order = memory.SumUp(flow, conversation, old, turn)
        return await self._engine.submit(memory.sum_up, order)

    async def bound_memory(self, most: int) -> int:
        """Forget the oldest exchanges of all until no more than `most` bytes are remembered; how
        many. Measured without holding up anybody's write."""
        count, size = await self._view(memory.measure)
        if size <= most:
            return 0
        goal = forgotten = min(count, -(-(size - most) * count // size))
        while goal > 0:
            gone = await self._engine.submit(memory.forget_oldest, min(goal, _BATCH))
            goal = goal - gone if gone else 0
        return forgotten

    async def schedule(self, flow: str, every: str) -> int:
        """The time (ms) up to which this schedule was seen to; a new one begins now."""
        return await self._engine.intake(ticks.begin, ticks.Begin(flow, every))

    async def tick(self, flow: str, every: str, at: int, entry: Entry | None) -> bool:
        """See to the tick at `at`, by storing `entry` if there is one. False: it was seen to."""
        return await self._engine.intake(ticks.fire, ticks.Fire(flow, every, at, entry))

    # What was published lately

    def add_readings(self, chunks: Sequence[readings.Chunk]) -> asyncio.Future[list[int]]:
        """Committed to disk, all of them, when it is done; the row of each. Within 4 s, or
        `StoreBusy`."""
        weight = sum(len(one.body) for one in chunks)
        return self._engine.read_in(readings.put, tuple(chunks), weight=weight, timeout=ADD_TIMEOUT)

    async def readings(
        self, flow: str, window: str, *, since: int, limit: int, size: int
    ) -> list[Reading]:
        """The newest of a window, oldest first: at most `limit`, of `size` bytes together, none
        before `since` (ms). The same message twice counts once."""
        return await self._view(
            lambda tx: readings.recall(tx, flow, window, since=since, limit=limit, size=size)
        )

    async def bound_readings(self, most: int) -> int:
        """Drop what is too old, and the oldest of all windows until no more than `most` bytes are
        kept; how many rows the latter were."""
        gone = _BATCH
        while gone == _BATCH:  # small bites: others write in between
            gone = await self._engine.read_in(readings.expire, _BATCH)
        count, size = await self._view(readings.measure)
        goal = dropped = -(-(size - most) * count // size) if size > most else 0
        while goal > 0:
            gone = await self._engine.read_in(readings.drop_oldest, min(goal, _BATCH))
            goal = goal - gone if gone else 0
        return dropped

    async def reserve(self, wanted: Sequence[Reservation]) -> str | None:
        """All of it or nothing; None if granted, else the key that would run over."""
        return await self._engine.submit(counters.reserve, tuple(wanted))

    async def settle(self, key: str, window: int, delta: int) -> None:
        """Correct a reservation by what was really used."""
        await self._engine.submit(counters.settle, counters.Correction(key, window, delta))

    async def amounts(self, keys: Sequence[str], window: int) -> Mapping[str, int]:
        """How much of these is reserved or used in a window."""
        return await self._view(lambda tx: counters.amounts(tx, keys, window)) if keys else {}

    # Looking, and clearing up

    async def requests(
        self,
        *,
        state: State | None = None,
        flow: str | None = None,
        conversation: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[Row]:
        """Newest first; `before` is the `seq` of the last one seen."""
        wanted = Filter(state, flow, conversation)
        return (await self.find(wanted, limit=limit, before=before)).rows

    async def find(
        self, wanted: Filter, *, limit: int = 50, before: int | None = None, whole: bool = False
    ) -> Page:
        """A page of what a filter finds, newest first; `whole`: rows with all that they hold."""
        return await self._view(
            lambda tx: filters.find(tx, wanted, limit=limit, before=before, whole=whole)
        )

    async def request(self, id: str) -> Row | None:
        return await self._view(lambda tx: reads.get(tx, id))

    async def ids(self, part: str, limit: int = 5) -> list[str]:
        """Ids that end with this, or else begin with it; it looks at all of them."""
        return await self._view(lambda tx: reads.ids(tx, part, limit))

    async def stats(self) -> BacklogStats:
        """What waits, by flow and state; a while old where counting takes long."""
        return await self._stats()

    async def roll(self, keep: int) -> bool:
        """Count minutes that are over; whether there may be more of them now. `keep` in ms."""
        return await self._engine.submit(rollup.roll, keep)

    async def counts(self, since: int, width: int) -> list[rollup.Count]:
        """All that ended since then (ms), in slots of `width` ms."""
        return await self._view(lambda tx: rollup.counts(tx, since, width))

    async def conversations(
        self, limit: int, before: int | None = None, flow: str | None = None
    ) -> reads.Conversations:
        """Those with the latest requests first."""
        return await self._view(lambda tx: reads.conversations(tx, limit, before, flow))

    async def purge(self, before: int, limit: int = _BATCH) -> int:
        """Remove what ended before then, at most `limit`; how many requests that were."""
        return await self._engine.submit(purge.purge, purge.Purge(before, limit, self._round))

    async def _view(self, look: Callable[[Tx], T]) -> T:
        return await self._engine.view(look)
