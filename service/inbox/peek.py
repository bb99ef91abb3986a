"""One look at the fronts of all queues: is anything due, and if not, when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, bindparam, select

from service.domain import State
from service.inbox.lines import ZERO
from service.inbox.sql import Tx, listed_texts, texts
from service.inbox.tables import conversations, loose, queued, requests, state_is

_c = conversations.c
_r = requests.c
_now: Any = bindparam("b_now", type_=BigInteger)


@dataclass(frozen=True, slots=True)
class View:
    """`due`: the kinds of work that each flow has; `later`: when there will be more (ms)."""

    due: dict[str, list[str]]
    answered: bool
    expired: bool
    later: int | None


def _first(column: Any, *where: Any) -> Any:
    """By an order that only the index has: else a planner hopes to meet one row by chance."""
    return select(column).where(*where).order_by(column).limit(1).scalar_subquery()


@cache
def _by_flow(pg: bool) -> Any:
    listed = listed_texts(pg, "flows")
    flow = listed.c.value
    line = (_c.flow == flow,)
    free = (loose, _r.flow == flow)
    return select(
        flow.label("flow"),
        _first(_c.since, *line, _c.next_at == ZERO).label("line_fresh"),
        _first(_c.next_at, *line, _c.next_at > ZERO).label("line_late"),
        _first(_c.next_at, *line, _c.next_at > _now).label("line_later"),
        _first(_r.seq, *free, _r.not_before == ZERO).label("loose_fresh"),
        _first(_r.not_before, *free, _r.not_before > ZERO).label("loose_late"),
        _first(_r.not_before, *free, _r.not_before > _now).label("loose_later"),
    )


@cache
def _of_all() -> Any:
    answered = state_is(State.ANSWERED)
    return select(
        _first(_r.lease_until, answered, _r.lease_until <= _now).label("answered"),
        _first(_r.lease_until, answered, _r.lease_until > _now).label("answered_later"),
        _first(_r.deadline, queued, _r.deadline <= _now).label("expired"),
        _first(_r.deadline, queued, _r.deadline > _now).label("expires_later"),
    )


def peek(tx: Tx, flows: Sequence[str]) -> View:
    """Costs a few index look-ups per flow, however many requests wait."""
    values = {"b_now": tx.now}
    of_all = tx.run(_of_all(), values).one()
    due: dict[str, list[str]] = {}
    later = [of_all.answered_later, of_all.expires_later]
    rows = tx.run(_by_flow(tx.pg), values | {"flows": texts(tx.pg, flows)}) if flows else ()
    for row in rows:
        kinds = []
        if row.line_late is not None and row.line_late <= tx.now:
            kinds.append("line_late")
        if row.loose_late is not None and row.loose_late <= tx.now:
            kinds.append("loose_late")
        if row.line_fresh is not None:
            kinds.append("line_fresh")
        if row.loose_fresh is not None:
            kinds.append("loose_fresh")
        if kinds:
            due[row.flow] = kinds
        later += [row.line_later, row.loose_later]
    return View(
        due=due,
        answered=of_all.answered is not None,
        expired=of_all.expired is not None,
        later=min((at for at in later if at is not None), default=None),
    )
