"""Commands of which nobody knows what became, and what a person found out about them.

A round of tool calls (a step) that is finished lists such calls as `unsettled`. One that was
interrupted has no results: there a call that must not be repeated (`once`) may be out, unless its
stage has a result or, where stages are stored before anything goes out (`guarded`), none says that
it is being sent. What a person says moves a call to `settled`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import LargeBinary, Text, bindparam, select, update

from service.inbox import codec
from service.inbox.sql import Tx
from service.inbox.sql_tables import ended, requests

_r = requests.c
Step = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Settle:
    """What became of calls of the ended request `id`: `outcome` is "committed" or "refused".
    `call_id` None: of all that are unsettled. `by` says who says so."""

    id: str
    outcome: str
    call_id: str | None
    by: str


def unsettled(steps: Sequence[Step]) -> list[Mapping[str, Any]]:
    """The calls of which a person has to say what became of them, as they are stored."""
    return [call for step in steps for call in _unsettled(step)]


def _unsettled(step: Step) -> Iterator[Mapping[str, Any]]:
    settled = step.get("settled", {})
    stages = step.get("stages") or [{}] * len(step["calls"])
    for call, stage in zip(step["calls"], stages, strict=True):
        if "results" in step:
            doubtful = call.get("call_id") in step.get("unsettled", ())
        else:
            doubtful = _interrupted(call, stage)
        if doubtful and call.get("call_id") not in settled:
            yield call


def _interrupted(call: Mapping[str, Any], stage: Mapping[str, Any]) -> bool:
    """Whether a call of a round without results may have been carried out, and not again."""
    if "result" in stage:
        return bool(stage.get("unsettled"))
    return bool(call.get("once")) and ("sending" in stage or not call.get("guarded"))


@cache
def _ended() -> Any:
    wanted = select(_r.seq, _r.steps).where(ended, _r.id == bindparam("b_id", type_=Text))
    return wanted.with_for_update()


@cache
def _write() -> Any:
    steps: Any = bindparam("b_steps", type_=LargeBinary)
    return update(requests).where(_r.seq == bindparam("b_seq")).values(steps=steps)


def settle(tx: Tx, said: Sequence[Settle]) -> list[int]:
    """Of how many calls each of these says what became; 0: nothing is unsettled, or it has not
    ended, or is not there."""
    places = sorted(range(len(said)), key=lambda at: said[at].id)  # locked in one order by all
    counts = [0] * len(said)
    for at in places:
        counts[at] = _settle_one(tx, said[at])
    return counts


def _settle_one(tx: Tx, one: Settle) -> int:
    row = tx.run(_ended(), {"b_id": codec.key(one.id)}).one_or_none()
    if row is None:
        return 0
    word = {"outcome": one.outcome, "by": codec.clean(one.by, 100), "at": tx.now}
    count, steps = 0, []
    for step in codec.steps_in(row.steps):
        said = {
            call["call_id"]: word
            for call in _unsettled(step)
            if one.call_id in (None, call["call_id"])
        }
        count += len(said)
        steps.append(_settled(step, said) if said else step)
    if count:
        tx.run(_write(), {"b_seq": row.seq, "b_steps": codec.steps_out(steps)})
    return count


def _settled(step: Step, said: Mapping[str, Any]) -> Step:
    found = {name: value for name, value in step.items() if name != "unsettled"}
    if left := [id for id in step.get("unsettled", ()) if id not in said]:
        found["unsettled"] = left
    return found | {"settled": {**step.get("settled", {}), **said}}
