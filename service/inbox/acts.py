"""Who did what, what is paused, how far acts on many requests are, as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Text, bindparam, delete, func, select

from service.inbox import codec
from service.inbox.sql import Tx, insert
from service.inbox.sql_tables import acts, jobs, paused

ACT_LIFE = 90 * 86_400_000  # ms
JOB_LIFE = 86_400_000  # ms
_a = acts.c
_p = paused.c
_j = jobs.c


@dataclass(frozen=True, slots=True)
class Act:
    """What somebody did. `result` is "ok" or an error code."""

    who: str
    act: str
    target: str
    result: str
    at: int = 0
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Pause:
    """A flow or a provider that is paused; `since` in ms."""

    kind: str
    name: str
    since: int
    who: str


@dataclass(frozen=True, slots=True)
class Resume:
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class BulkJob:
    """An act on many requests: how many it `looked_at`, and to how many it was `done`."""

    id: str
    kind: str
    who: str
    started_at: int
    beat_at: int
    ended_at: int | None = None
    looked_at: int = 0
    done: int = 0
    error: str | None = None


@cache
def _insert(pg: bool, table: Any) -> Any:
    return insert(pg, table)


def note(tx: Tx, noted: Sequence[Act]) -> list[None]:
    """Write acts down; those older than ACT_LIFE go."""
    rows = [
        {
            "at": tx.now,
            "who": codec.clean(one.who, 100),
            "act": codec.clean(one.act, 100),
            "target": codec.clean(one.target, 500),
            "result": codec.clean(one.result, 100),
        }
        for one in noted
    ]
    tx.run(_insert(tx.pg, acts), rows)
    tx.run(_old_acts(), {"b_before": tx.now - ACT_LIFE})
    return [None] * len(noted)


@cache
def _old_acts() -> Any:
    first = select(func.min(_a.seq)).scalar_subquery()
    old = select(_a.seq).where(
        _a.seq < first + 100, _a.at < bindparam("b_before", type_=BigInteger)
    )
    return delete(acts).where(_a.seq.in_(old))


@cache
def _acts() -> Any:
    return (
        select(_a.who, _a.act, _a.target, _a.result, _a.at, _a.seq)
        .where(_a.seq < bindparam("b_before", type_=BigInteger))
        .order_by(_a.seq.desc())
        .limit(bindparam("b_limit", type_=BigInteger))
    )


def listed(tx: Tx, limit: int, before: int | None) -> list[Act]:
    values = {"b_limit": limit, "b_before": (1 << 62) if before is None else before}
    return [Act(*row) for row in tx.run(_acts(), values)]


@cache
def _pause(pg: bool) -> Any:
    return insert(pg, paused).on_conflict_do_nothing()


@cache
def _resume() -> Any:
    kind, name = bindparam("b_kind", type_=Text), bindparam("b_name", type_=Text)
    return delete(paused).where(_p.kind == kind, _p.name == name)


def change(tx: Tx, changes: Sequence[Pause | Resume]) -> list[bool]:
    """Pause and resume; whether that changed anything."""
    results = []
    for one in changes:
        name = codec.key(one.name)
        if isinstance(one, Pause):
            row = {"kind": one.kind, "name": name, "since": one.since, "who": one.who}
            done = tx.run(_pause(tx.pg), row)
        else:
            done = tx.run(_resume(), {"b_kind": one.kind, "b_name": name})
        results.append(done.rowcount > 0)
    tx.wake = True
    return results


@cache
def _paused() -> Any:
    return select(_p.kind, _p.name, _p.since, _p.who).order_by(_p.kind, _p.name)


def pauses(tx: Tx) -> list[Pause]:
    return [Pause(*row) for row in tx.run(_paused())]


@cache
def _put_job(pg: bool) -> Any:
    statement = insert(pg, jobs)
    kept = ("beat_at", "ended_at", "looked_at", "done", "error")
    return statement.on_conflict_do_update(
        index_elements=[_j.id], set_={name: statement.excluded[name] for name in kept}
    )


@cache
def _old_jobs() -> Any:
    return delete(jobs).where(_j.beat_at < bindparam("b_before", type_=BigInteger))


def put_job(tx: Tx, put: Sequence[BulkJob]) -> list[None]:
    names = [column.name for column in jobs.c]
    for job in put:
        tx.run(_put_job(tx.pg), {name: getattr(job, name) for name in names})
    tx.run(_old_jobs(), {"b_before": tx.now - JOB_LIFE})
    return [None] * len(put)


_columns = [_j[name] for name in BulkJob.__dataclass_fields__]


@cache
def _get_job() -> Any:
    return select(*_columns).where(_j.id == bindparam("b_id", type_=Text))


def job(tx: Tx, id: str) -> BulkJob | None:
    row = tx.run(_get_job(), {"b_id": codec.key(id)}).one_or_none()
    return None if row is None else BulkJob(*row)
