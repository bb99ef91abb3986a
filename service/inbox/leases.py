"""What the holder of a lease writes.

A lease is (seq, fence); each write first looks whether it still holds. A write whose commit
was done but never confirmed may come again: it finds the row where it put it itself, and
says yes without touching it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import bindparam, select, update

from service.domain import (
    ENDS,
    NO_USAGE,
    Attempt,
    Batch,
    Claimed,
    Ear,
    Ending,
    Message,
    State,
    Usage,
    Wait,
)
from service.inbox import batches, codec, memory, ordering, waits
from service.inbox.sql import Pair, Tx, among, numbers
from service.inbox.sql_tables import requests

_r = requests.c
_LEASED = frozenset({State.ANSWERING, State.ANSWERED})
_ACTIVE = _LEASED | {State.WAITING}
"""A conversation goes on only when its request is in none of these."""
AFTER_WAIT = 60_000  # ms that a request has at least, when it has waited


@dataclass(frozen=True, slots=True)
class Write:
    """Something to be noted about a request, by who holds it."""

    claimed: Claimed


@dataclass(frozen=True, slots=True)
class SaveEnding(Write):
    ending: Ending


@dataclass(frozen=True, slots=True)
class Finish(Write):
    delivered: bool | None
    outcome: State | None = None
    error_code: str | None = None
    error_message: str | None = None
    held: tuple[int, int] | None = None  # when to publish it again, and until when (ms)


@dataclass(frozen=True, slots=True)
class Reschedule(Write):
    at: int
    attempts: tuple[Attempt, ...] = ()
    count: bool = True
    error_code: str | None = None
    error_message: str | None = None
    usage: Usage = NO_USAGE
    trace: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SaveSteps(Write):
    steps: Sequence[Mapping[str, Any]]
    usage: Usage = NO_USAGE
    begun: Sequence[Wait] = ()
    closed: Sequence[waits.Close] = ()


@dataclass(frozen=True, slots=True)
class Park(Write):
    """It sleeps until `until` (ms), or until one of these waits has its answer."""

    until: int
    waiting_for: Sequence[tuple[str, Ear]]
    steps: Sequence[Mapping[str, Any]]
    attempts: tuple[Attempt, ...] = ()
    usage: Usage = NO_USAGE
    trace: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gather(Write):
    """It takes the queued messages of its conversation into its batch."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class Heartbeat(Write):
    until: int


@dataclass(frozen=True, slots=True)
class Release(Write):
    pass


class LeasedRow(NamedTuple):
    """A row as the database has it now."""

    seq: int
    fence: int
    state: str
    outcome: str | None


W = TypeVar("W", bound=Write)
Values = dict[str, Any]
"""New values of a row's columns."""


def _pair(claimed: Claimed) -> Pair:
    return codec.key(claimed.flow or ""), codec.key(claimed.conversation)


def lock_queues(tx: Tx, writes: Iterable[Write]) -> None:
    """Conversations before requests, all at once and sorted: no two processes wait in a ring."""
    ordering.lock(tx, (_pair(w.claimed) for w in writes if w.claimed.ordered))


@cache
def _held(pg: bool) -> Any:
    return (
        select(_r.seq, _r.fence, _r.state, _r.outcome)
        .where(among(pg, _r.seq, "seqs"))
        .order_by(_r.seq)
        .with_for_update()
    )


@cache
def _set(names: tuple[str, ...]) -> Any:
    values = {name: bindparam(f"b_{name}", type_=_r[name].type) for name in names}
    return update(requests).where(_r.seq == bindparam("b_seq")).values(values)


def _update(tx: Tx, rows: Iterable[Values]) -> None:
    """Update by seq; rows with the same columns go together."""
    kinds: dict[tuple[str, ...], list[Values]] = {}
    for row in rows:
        if len(row) > 1:
            kinds.setdefault(tuple(row), []).append(row)
    for names, alike in kinds.items():
        bound = [{f"b_{name}": value for name, value in row.items()} for row in alike]
        tx.run(_set(tuple(name for name in names if name != "seq")), bound)


def _write(
    tx: Tx,
    writes: Sequence[W],
    values: Callable[[W, LeasedRow], Values],
    *,
    allowed: Collection[str],
    repeated: Collection[str] = (),
) -> list[bool]:
    """Where the lease holds and the state is `allowed`, the row takes these values.

    False: the lease is lost. In the states `repeated` the same was written before.
    """
    seqs = sorted({write.claimed.seq for write in writes})
    found = tx.run(_held(tx.pg), {"seqs": numbers(tx.pg, seqs)})
    rows = {row.seq: LeasedRow._make(row) for row in found}
    results, changed, left = [], list[Values](), list[tuple[Pair, int]]()
    for write in writes:
        claimed = write.claimed
        held = rows.get(claimed.seq)
        if held is None or held.fence != claimed.fence:
            results.append(False)
            continue
        results.append(held.state in allowed or held.state in repeated)
        if held.state not in allowed:
            continue
        row = values(write, held)
        changed.append({"seq": claimed.seq} | row)
        if "state" in row:
            state = State(row["state"])
            tx.tell(claimed.id, claimed.flow, claimed.conversation, state)
            tx.opened -= state in ENDS
            if claimed.ordered and state not in _ACTIVE:
                left.append((_pair(claimed), claimed.seq))
    _update(tx, changed)
    ordering.leave(tx, left)
    return results


def _error(code: str | None, message: str | None) -> Values:
    return {
        "error_code": None if code is None else codec.clean(code),
        "error_message": None if message is None else codec.clean(message),
    }


def _used(claimed: Claimed, usage: Usage) -> Values:
    """What the request took so far: `usage`, and what it took before this claim."""
    total = claimed.usage + usage
    return {
        "prompt_tokens": codec.number(total.prompt_tokens),
        "completion_tokens": codec.number(total.completion_tokens),
        "cached_tokens": codec.number(total.cached_tokens),
        "cache_write_tokens": codec.number(total.cache_write_tokens),
        "cost": total.cost,
    }


_NO_LEASE: Values = {"owner": None, "lease_until": None}


def save_ending(tx: Tx, endings: Sequence[SaveEnding]) -> list[bool]:
    """Store endings; what they teach the memory and the cooldown, in the same commit."""
    taught: list[tuple[Pair, Ending]] = []

    def values(one: SaveEnding, held: LeasedRow) -> Values:
        ending = one.ending
        taught.append((_pair(one.claimed), ending))
        if ending.batch is not None:
            batches.end(tx, one.claimed, _pair(one.claimed), ending.batch)
        if one.claimed.steps:
            waits.close_all(tx, one.claimed.seq)
        at_once = not ending.outbox
        row = {
            "state": (ending.outcome if at_once else State.ANSWERED).value,
            "claims": 0,
            "outbox": codec.outbox_out(ending.outbox),
            "outcome": ending.outcome.value,
            "reply": None if ending.text is None else codec.text_out(ending.text),
            "model": None if ending.model is None else codec.clean(ending.model),
            "reasoning": None if not ending.reasoning else codec.text_out(ending.reasoning),
            "attempts": codec.attempts_out(one.claimed.attempts + ending.attempts),
            "trace": codec.trace_out(one.claimed.trace, ending.trace),
            "answered_at": tx.now,
        }
        row |= _used(one.claimed, ending.usage) | _error(ending.error_code, ending.error_message)
        return row | _NO_LEASE | {"ended_at": tx.now} if at_once else row

    again = ENDS | {State.ANSWERED}
    results = _write(tx, endings, values, allowed={State.ANSWERING}, repeated=again)
    memory.learn(tx, taught)
    return results


def finish(tx: Tx, finishes: Sequence[Finish]) -> list[bool]:
    """The outbox is published, or given up: the request ends, its conversation goes on."""

    def values(one: Finish, held: LeasedRow) -> Values:
        state = one.outcome or State(held.outcome or State.DONE)
        row: Values = {"state": state.value, "delivered": one.delivered, "ended_at": tx.now}
        row |= _NO_LEASE
        if one.held is not None:
            row["held_at"], row["held_until"] = one.held
        if one.outcome is not None:
            row["outcome"] = one.outcome.value
        if one.error_code is not None or state is State.DONE:  # of earlier publishes, too
            row |= _error(one.error_code, one.error_message)
        return row

    return _write(tx, finishes, values, allowed={State.ANSWERED}, repeated=ENDS)


def reschedule(tx: Tx, snoozes: Sequence[Reschedule]) -> list[bool]:
    """Not now: ask again at `at`, or, if the reply is stored, publish again at `at`."""

    def values(one: Reschedule, held: LeasedRow) -> Values:
        tx.wake = True
        at = max(1, codec.number(one.at))
        row: Values = {"claims": 0, "owner": None}
        if one.error_code is not None and held.outcome in (None, State.DONE):
            row |= _error(one.error_code, one.error_message)  # not over why it failed
        if one.attempts:
            row["attempts"] = codec.attempts_out(one.claimed.attempts + one.attempts)
            row |= _used(one.claimed, one.usage)
        if held.state == State.ANSWERED:
            return row | {"lease_until": at}
        if one.trace:
            row["trace"] = codec.trace_out(one.claimed.trace, one.trace)
        tries = one.claimed.tries + one.count
        queued = {"state": State.QUEUED.value, "not_before": at, "tries": tries}
        return row | queued | {"lease_until": None}

    return _write(tx, snoozes, values, allowed=_LEASED, repeated={State.QUEUED})


def save_steps(tx: Tx, writes: Sequence[SaveSteps]) -> list[bool]:
    """Note the rounds of a tool flow so far, and what they wait for."""

    def values(one: SaveSteps, held: LeasedRow) -> Values:
        waits.begin(tx, one.claimed.seq, one.begun)
        waits.close(tx, one.closed)
        return {"steps": codec.steps_out(one.steps)} | _used(one.claimed, one.usage)

    return _write(tx, writes, values, allowed={State.ANSWERING})


def gather(tx: Tx, writes: Sequence[Gather]) -> list[list[Message] | None]:
    """What each takes into its batch, its own message first; None: the lease is lost."""
    found: dict[tuple[int, int], list[Message]] = {}

    def values(one: Gather, held: LeasedRow) -> Values:
        claimed = one.claimed
        taken = batches.take(tx, claimed, _pair(claimed), one.batch)
        found[claimed.seq, claimed.fence] = taken
        return {}

    _write(tx, writes, values, allowed={State.ANSWERING})
    return [found.get((one.claimed.seq, one.claimed.fence)) for one in writes]


def park(tx: Tx, parks: Sequence[Park]) -> list[bool]:
    """Go to sleep, in nobody's hands; not if what it waits for is there already. Its conversation
    waits with it."""

    def values(one: Park, held: LeasedRow) -> Values:
        until = codec.number(one.until)
        if waits.answered(tx, one.claimed.seq, one.waiting_for):
            until = tx.now
        tx.wake = True
        row = {
            "state": State.WAITING.value,
            "not_before": max(1, until),
            "deadline": max(one.claimed.deadline, until + AFTER_WAIT),
            "claims": 0,
            "steps": codec.steps_out(one.steps),
        }
        if one.attempts:
            row["attempts"] = codec.attempts_out(one.claimed.attempts + one.attempts)
        if one.trace:
            row["trace"] = codec.trace_out(one.claimed.trace, one.trace)
        return row | _used(one.claimed, one.usage) | _NO_LEASE

    return _write(tx, parks, values, allowed={State.ANSWERING}, repeated={State.WAITING})


def heartbeat(tx: Tx, beats: Sequence[Heartbeat]) -> list[bool]:
    """Hold leases longer; False for each that is lost."""

    def values(one: Heartbeat, held: LeasedRow) -> Values:
        return {"lease_until": codec.number(one.until)}

    return _write(tx, beats, values, allowed=_LEASED)


def release(tx: Tx, releases: Sequence[Release]) -> list[bool]:
    """Give leases back unused, at shutdown: somebody else may go on at once."""

    def values(one: Release, held: LeasedRow) -> Values:
        tx.wake = True
        row: Values = {"owner": None, "claims": max(0, one.claimed.claims - 1)}
        if held.state == State.ANSWERED:
            return row | {"lease_until": 0}
        return row | {"state": State.QUEUED.value, "lease_until": None}

    return _write(tx, releases, values, allowed=_LEASED)
