"""What the holder of a lease writes. Each write first looks whether the lease still holds.

A lease is (seq, fence). A write whose commit was done but never confirmed may come again:
it finds the row where it put it itself, and says yes without touching it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import bindparam, select, update

from service.domain import ENDS, Answer, Attempt, Claimed, State
from service.inbox import codec, lines, memory
from service.inbox.sql import Pair, Tx, among, numbers
from service.inbox.tables import requests

_r = requests.c
_LEASED = (State.ANSWERING, State.ANSWERED)


@dataclass(frozen=True, slots=True)
class Reply:
    claimed: Claimed
    answer: Answer


@dataclass(frozen=True, slots=True)
class Finish:
    claimed: Claimed
    delivered: bool | None
    outcome: State | None = None
    error_code: str | None = None
    error_message: str | None = None


@dataclass(frozen=True, slots=True)
class Again:
    claimed: Claimed
    at: int
    attempts: tuple[Attempt, ...] = ()
    count: bool = True
    error_code: str | None = None
    error_message: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    claimed: Claimed
    steps: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    claimed: Claimed
    until: int


@dataclass(frozen=True, slots=True)
class Release:
    claimed: Claimed


Write = Reply | Finish | Again | Step | Heartbeat | Release


def pair(claimed: Claimed) -> Pair:
    return codec.key(claimed.flow or ""), codec.key(claimed.conversation)


def lock_lines(tx: Tx, writes: Iterable[Write]) -> None:
    """Conversations before requests, all at once and sorted: no two processes wait in a ring."""
    lines.lock(tx, (pair(w.claimed) for w in writes if w.claimed.ordered))


@cache
def _held(pg: bool) -> Any:
    return (
        select(_r.seq, _r.fence, _r.state, _r.outcome)
        .where(among(pg, _r.seq, "seqs"))
        .order_by(_r.seq)
        .with_for_update()
    )


def _states(tx: Tx, writes: Sequence[Write]) -> list[Any]:
    """For each write the row as it is, or None if its lease is another's by now."""
    seqs = sorted({write.claimed.seq for write in writes})
    rows = {row.seq: row for row in tx.run(_held(tx.pg), {"seqs": numbers(tx.pg, seqs)})}
    found = (rows.get(write.claimed.seq) for write in writes)
    return [
        row if row is not None and row.fence == write.claimed.fence else None
        for row, write in zip(found, writes, strict=True)
    ]


@cache
def _set(names: tuple[str, ...]) -> Any:
    values = {name: bindparam(f"b_{name}", type_=_r[name].type) for name in names}
    return update(requests).where(_r.seq == bindparam("b_seq")).values(values)


def _write(tx: Tx, rows: list[dict[str, Any]]) -> None:
    """Update by seq; rows with the same columns go together."""
    kinds: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        kinds.setdefault(tuple(row), []).append(row)
    for names, alike in kinds.items():
        bound = [{f"b_{name}": value for name, value in row.items()} for row in alike]
        tx.run(_set(tuple(name for name in names if name != "seq")), bound)


def _tell(tx: Tx, claimed: Claimed, state: State) -> None:
    tx.tell(claimed.id, claimed.flow, claimed.conversation, state)
    if state in ENDS:
        tx.opened -= 1


_NO_LEASE: dict[str, Any] = {"owner": None, "lease_until": None}


def reply(tx: Tx, replies: Sequence[Reply]) -> list[bool]:
    """Store replies; what they teach the memory and the cooldown, in the same commit."""
    results, rows, written, left = [], [], [], []
    for one, held in zip(replies, _states(tx, replies), strict=True):
        holds = held is not None and held.state == State.ANSWERING
        repeated = held is not None and (held.state == State.ANSWERED or held.state in ENDS)
        results.append(holds or repeated)
        if not holds:
            continue
        claimed, answer = one.claimed, one.answer
        ends = not answer.outbox
        state = answer.outcome if ends else State.ANSWERED
        row = {
            "seq": claimed.seq,
            "state": state.value,
            "claims": 0,
            "outbox": codec.outbox_out(answer.outbox),
            "outcome": answer.outcome.value,
            "reply": None if answer.text is None else codec.text_out(answer.text),
            "model": None if answer.model is None else codec.clean(answer.model),
            "prompt_tokens": codec.number(answer.usage.prompt_tokens),
            "completion_tokens": codec.number(answer.usage.completion_tokens),
            "attempts": codec.attempts_out(claimed.attempts + answer.attempts),
            "answered_at": tx.now,
        } | _error(answer.error_code, answer.error_message)
        if ends:
            row |= _NO_LEASE | {"ended_at": tx.now}
            if claimed.ordered:
                left.append((pair(claimed), claimed.seq))
        rows.append(row)
        written.append((pair(claimed), answer))
        _tell(tx, claimed, state)
    _write(tx, rows)
    memory.learn(tx, written)
    lines.leave(tx, left)
    return results


def _error(code: str | None, message: str | None) -> dict[str, Any]:
    return {
        "error_code": None if code is None else codec.clean(code),
        "error_message": None if message is None else codec.clean(message),
    }


def finish(tx: Tx, finishes: Sequence[Finish]) -> list[bool]:
    """The outbox is published, or given up: the request ends, its conversation goes on."""
    results, rows, left = [], [], []
    for one, held in zip(finishes, _states(tx, finishes), strict=True):
        holds = held is not None and held.state == State.ANSWERED
        results.append(holds or (held is not None and held.state in ENDS))
        if not holds:
            continue
        state = one.outcome or State(held.outcome)
        row = {
            "seq": one.claimed.seq,
            "state": state.value,
            "delivered": one.delivered,
            "ended_at": tx.now,
        } | _NO_LEASE
        if one.outcome is not None:
            row["outcome"] = one.outcome.value
        if one.error_code is not None or state is State.DONE:  # of earlier publishes, too
            row |= _error(one.error_code, one.error_message)
        rows.append(row)
        if one.claimed.ordered:
            left.append((pair(one.claimed), one.claimed.seq))
        _tell(tx, one.claimed, state)
    _write(tx, rows)
    lines.leave(tx, left)
    return results


def again(tx: Tx, agains: Sequence[Again]) -> list[bool]:
    """Not now: ask again at `at`, or, if the reply is stored, publish again at `at`."""
    results, rows, left = [], [], []
    for one, held in zip(agains, _states(tx, agains), strict=True):
        results.append(held is not None and held.state in (*_LEASED, State.QUEUED))
        if held is None or held.state not in _LEASED:
            continue
        claimed = one.claimed
        at = max(1, codec.number(one.at))
        row: dict[str, Any] = {"seq": claimed.seq, "claims": 0, "owner": None}
        if one.error_code is not None and held.outcome in (None, State.DONE):
            row |= _error(one.error_code, one.error_message)  # not over why it failed
        if one.attempts:
            row["attempts"] = codec.attempts_out(claimed.attempts + one.attempts)
        if held.state == State.ANSWERED:
            row |= {"lease_until": at}
        else:
            row |= {
                "state": State.QUEUED.value,
                "not_before": at,
                "tries": claimed.tries + one.count,
                "lease_until": None,
            }
            if claimed.ordered:
                left.append((pair(claimed), claimed.seq))
            _tell(tx, claimed, State.QUEUED)
        rows.append(row)
        tx.wake = True
    _write(tx, rows)
    lines.leave(tx, left)
    return results


def step(tx: Tx, steps: Sequence[Step]) -> list[bool]:
    """Note the rounds of a tool flow so far."""
    results, rows = [], []
    for one, held in zip(steps, _states(tx, steps), strict=True):
        holds = held is not None and held.state == State.ANSWERING
        results.append(holds)
        if holds:
            rows.append({"seq": one.claimed.seq, "steps": codec.steps_out(one.steps)})
    _write(tx, rows)
    return results


def heartbeat(tx: Tx, beats: Sequence[Heartbeat]) -> list[bool]:
    """Hold leases longer; False for each that is lost."""
    results, rows = [], []
    for one, held in zip(beats, _states(tx, beats), strict=True):
        holds = held is not None and held.state in _LEASED
        results.append(holds)
        if holds:
            rows.append({"seq": one.claimed.seq, "lease_until": codec.number(one.until)})
    _write(tx, rows)
    return results


def release(tx: Tx, releases: Sequence[Release]) -> list[bool]:
    """Give leases back unused, at shutdown: somebody else may go on at once."""
    results, rows, left = [], [], []
    for one, held in zip(releases, _states(tx, releases), strict=True):
        holds = held is not None and held.state in _LEASED
        results.append(holds)
        if not holds:
            continue
        claimed = one.claimed
        row: dict[str, Any] = {"seq": claimed.seq, "owner": None}
        row["claims"] = max(0, claimed.claims - 1)
        if held.state == State.ANSWERED:
            row["lease_until"] = 0
        else:
            row |= {"state": State.QUEUED.value, "lease_until": None}
            if claimed.ordered:
                left.append((pair(claimed), claimed.seq))
            _tell(tx, claimed, State.QUEUED)
        rows.append(row)
        tx.wake = True
    _write(tx, rows)
    lines.leave(tx, left)
    return results
