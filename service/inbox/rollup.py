"""Ended requests by the minute, so that a week of them is summed up in a moment.

A minute is counted once it is over and its last commits are in; what is younger is counted from
the requests themselves, by the index of their ends. The time to a reply is kept as how many fell
into each of BUCKETS, whose edges lie a fixed factor apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Double,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal_column,
    select,
)

from service.inbox.sql import Tx, insert
from service.inbox.sql_tables import ended, requests, rollup

MINUTE = 60_000
LATE = 15_000  # ms after the end of a minute in which its last commits may come
BUCKETS = tuple(round(10 * 1.35**n) for n in range(46))
"""Upper edges in ms: 10 ms to 2 hours."""
KEPT = "kept"
"""Stands in the place of a state for messages that are no requests."""
AT_ONCE = 30  # minutes of one pass

_r = requests.c
_k = rollup.c
_from = bindparam("b_from", type_=BigInteger)
_to = bindparam("b_to", type_=BigInteger)


@dataclass(frozen=True, slots=True)
class Count:
    """How many ended so, in the slot of time that begins at `at` (ms)."""

    at: int
    flow: str
    state: str
    bucket: int
    count: int
    prompt_tokens: int
    completion_tokens: int
    cost: float


def _sums(columns: Any) -> tuple[Any, ...]:
    return (
        cast(func.coalesce(func.sum(columns.prompt_tokens), 0), BigInteger),
        cast(func.coalesce(func.sum(columns.completion_tokens), 0), BigInteger),
        cast(func.coalesce(func.sum(columns.cost), 0.0), Double),
    )


@cache
def _counted() -> Any:
    """Of the requests that ended in a span."""
    took = func.coalesce(_r.answered_at, _r.ended_at) - _r.accepted_at
    edges = [(took <= edge, at) for at, edge in enumerate(BUCKETS)]
    found = (
        select(
            _r.flow,
            _r.state,
            case(*edges, else_=len(BUCKETS)).label("bucket"),
            _r.prompt_tokens,
            _r.completion_tokens,
            _r.cost,
        )
        .where(ended, _r.ended_at >= _from, _r.ended_at < _to)
        .subquery()
    )
    f = found.c
    return select(f.flow, f.state, f.bucket, func.count().label("n"), *_sums(f)).group_by(
        f.flow, f.state, f.bucket
    )


@cache
def _first_end() -> Any:
    where = (ended, _r.ended_at >= _from)
    return select(_r.ended_at).where(*where).order_by(_r.ended_at).limit(1)


@cache
def _last() -> Any:
    """The newest minute that is counted; rows of `keep` may be younger."""
    done = (_k.flow == literal_column("''"), _k.state == literal_column("''"))
    return select(_k.at).where(*done).order_by(_k.at.desc()).limit(1)


@cache
def _put(pg: bool) -> Any:
    return insert(pg, rollup).on_conflict_do_nothing()


@cache
def _old() -> Any:
    return delete(rollup).where(_k.at < bindparam("b_before", type_=BigInteger))


def _live(tx: Tx, since: int, until: int, at: int) -> list[Count]:
    rows = tx.run(_counted(), {"b_from": since, "b_to": until})
    return [Count(at, *row) for row in rows]


def roll(tx: Tx, orders: Sequence[int]) -> list[bool]:
    """Count minutes that are over; `orders` is how long (ms) counts are kept. Whether there may be
    more to do at once. Several processes may do so side by side: a minute is counted once."""
    return [_roll_one(tx, keep) for keep in orders]


def _roll_one(tx: Tx, keep: int) -> bool:
    last = tx.run(_last()).scalar()
    over = (tx.now - LATE) // MINUTE * MINUTE
    at = max(0 if last is None else last + MINUTE, (tx.now - keep) // MINUTE * MINUTE)
    for _ in range(AT_ONCE):
        first = tx.run(_first_end(), {"b_from": at}).scalar()
        at = over if first is None else max(at, first // MINUTE * MINUTE)
        if at >= over:
            return False
        rows = [_row(one) for one in _live(tx, at, at + MINUTE, at)]
        tx.run(_put(tx.pg), [*rows, _row(Count(at, "", "", 0, 0, 0, 0, 0.0))])
        at += MINUTE
    tx.run(_old(), {"b_before": tx.now - keep})
    return True


def _row(one: Count) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Count.__dataclass_fields__}


@cache
def _more(pg: bool) -> Any:
    new = insert(pg, rollup)
    return new.on_conflict_do_update(
        index_elements=[_k.at, _k.flow, _k.state, _k.bucket],
        set_={"count": _k.count + new.excluded.count},
    )


def keep(tx: Tx, kept: Mapping[str, int]) -> None:
    """So many messages of these flows came that are no requests (`recent`), now."""
    at = tx.now // MINUTE * MINUTE
    rows = [_row(Count(at, flow, KEPT, 0, n, 0, 0, 0.0)) for flow, n in sorted(kept.items())]
    tx.run(_more(tx.pg), rows)


@cache
def _slots() -> Any:
    width = bindparam("b_width", type_=BigInteger)
    slot = (_k.at - _k.at % width).label("slot")
    found = (
        select(slot, *(_k[name] for name in Count.__dataclass_fields__ if name != "at"))
        .where(_k.at >= _from, _k.state != literal_column("''"))
        .subquery()
    )
    f = found.c
    sums = (cast(func.sum(f.count), BigInteger), *_sums(f))
    by = (f.slot, f.flow, f.state, f.bucket)
    return select(*by, *sums).group_by(*by)


def counts(tx: Tx, since: int, width: int) -> list[Count]:
    """All that ended since then, in slots of `width` ms; of what is not yet counted by the minute
    at most the last hour is looked at."""
    last = tx.run(_last()).scalar()
    found = [Count(*row) for row in tx.run(_slots(), {"b_from": since, "b_width": width})]
    begun = max(since, 0 if last is None else last + MINUTE, tx.now - 60 * MINUTE)
    at = begun
    while at <= tx.now:
        slot = at - at % width
        until = min(slot + width, tx.now + 1)
        found += _live(tx, at, until, slot)
        at = until
    return found
