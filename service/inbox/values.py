"""The last value of each conversation that a flow with `on_change` asked about."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, bindparam, delete, select

from service.inbox import codec
from service.inbox.sql import Pair, Tx, insert, pair_is
from service.inbox.sql_tables import last_values

_v = last_values.c


@cache
def _put(pg: bool) -> Any:
    new = insert(pg, last_values)
    return new.on_conflict_do_update(
        index_elements=[_v.flow, _v.conversation],
        set_={"at": new.excluded.at, "value": new.excluded.value},
    )


def learn(tx: Tx, found: Sequence[tuple[Pair, str]]) -> None:
    """What was asked about, the latest of each."""
    latest = dict(found)
    if latest:
        rows = [
            {
                "flow": pair[0],
                "conversation": pair[1],
                "at": tx.now,
                "value": codec.text_out(latest[pair]),
            }
            for pair in sorted(latest)
        ]
        tx.run(_put(tx.pg), rows)


@cache
def _of() -> Any:
    return select(_v.value).where(pair_is(last_values))


def last(tx: Tx, flow: str, conversation: str) -> str | None:
    bound = {"b_flow": codec.key(flow), "b_conversation": codec.key(conversation)}
    return codec.text_in(tx.run(_of(), bound).scalar())


@cache
def _forget() -> Any:
    return delete(last_values).where(pair_is(last_values))


def forget(tx: Tx, pair: Pair) -> None:
    tx.run(_forget(), {"b_flow": pair[0], "b_conversation": pair[1]})


@cache
def _old() -> Any:
    return (
        select(_v.flow, _v.conversation)
        .where(_v.at < bindparam("b_before", type_=BigInteger))
        .order_by(_v.at)
        .limit(bindparam("b_limit"))
        .with_for_update(skip_locked=True)
    )


def purge(tx: Tx, before: int, limit: int) -> None:
    """Those that are older than `before` (ms)."""
    rows = tx.run(_old(), {"b_before": before, "b_limit": limit}).all()
    if rows:
        tx.run(
            _forget(), [{"b_flow": row.flow, "b_conversation": row.conversation} for row in rows]
        )
