"""What conversations remember: turns, and until when they are cooling down."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import bindparam, delete, func, select, update

from service.domain import Ending, Turn
from service.inbox import codec, ordering, values
from service.inbox.rows import Memory
from service.inbox.sql import (
    Pair,
    Tx,
    among,
    among_pairs,
    insert,
    numbers,
    once,
    pair_is,
    pairs,
)
from service.inbox.sql_tables import conversations, turns

_c = conversations.c
_t = turns.c


@dataclass(frozen=True, slots=True)
class Forget:
    flow: str
    conversation: str


@dataclass(frozen=True, slots=True)
class SumUp:
    """`turn` in the place of the oldest ones, if these are still the oldest."""

    flow: str
    conversation: str
    old: Sequence[tuple[int, Turn]]  # as `stored` told them
    turn: Turn


@cache
def _turns_of(pg: bool) -> Any:
    return (
        select(_t.flow, _t.conversation, _t.at, _t.tokens, _t.text)
        .where(among_pairs(pg, _t.flow, _t.conversation))
        .order_by(_t.seq)
    )


@cache
def _cooldowns(pg: bool) -> Any:
    return select(_c.flow, _c.conversation, _c.cooldown_until).where(
        among_pairs(pg, _c.flow, _c.conversation), _c.cooldown_until.is_not(None)
    )


def recall_all(tx: Tx, wanted: Sequence[Pair]) -> dict[Pair, Memory]:
    """Two queries for all of them. What is kept per conversation is bounded when written."""
    if not wanted:
        return {}
    stored: dict[Pair, list[Turn]] = {}
    for row in tx.run(_turns_of(tx.pg), pairs(tx.pg, wanted)):
        turn = codec.turn_in(row.text, row.at, row.tokens)
        stored.setdefault((row.flow, row.conversation), []).append(turn)
    cooling = {
        (row.flow, row.conversation): row.cooldown_until
        for row in tx.run(_cooldowns(tx.pg), pairs(tx.pg, wanted))
    }
    return {pair: Memory(tuple(stored.get(pair, ())), cooling.get(pair)) for pair in wanted}


def recall(tx: Tx, flow: str, conversation: str, *, limit: int, since: int) -> Memory:
    """The newest `limit` turns of one conversation, none before `since` (ms)."""
    pair = codec.key(flow), codec.key(conversation)
    known = recall_all(tx, [pair])[pair]
    turns = tuple(turn for turn in known.turns if turn.at >= since)
    newest = turns[-limit:] if limit > 0 else ()
    return Memory(newest, known.cooldown_until)


@cache
def _forget() -> Any:
    return delete(turns).where(pair_is(turns))


@cache
def _learn(pg: bool) -> Any:
    return insert(pg, turns)


@cache
def _trim(but_first: bool) -> Any:
    oldest_kept = (
        select(_t.seq)
        .where(pair_is(turns))
        .order_by(_t.seq.desc())
        .limit(1)
        .offset(bindparam("b_keep"))
        .scalar_subquery()
    )
    trimmed = delete(turns).where(pair_is(turns), _t.seq <= oldest_kept)
    if not but_first:
        return trimmed
    return trimmed.where(_t.seq > select(func.min(_t.seq)).where(pair_is(turns)).scalar_subquery())


@cache
def _cool(pg: bool) -> Any:
    statement = insert(pg, conversations).values(
        flow=bindparam("b_flow"),
        conversation=bindparam("b_conversation"),
        since=0,
        cooldown_until=bindparam("b_until"),
    )
    return statement.on_conflict_do_update(
        index_elements=[_c.flow, _c.conversation],
        set_={"cooldown_until": statement.excluded.cooldown_until},
    )


def learn(tx: Tx, endings: Sequence[tuple[Pair, Ending]]) -> None:
    """What replies leave behind, in the order they came."""
    gone = [_bound(pair) for pair, one in endings if one.forget]
    if gone:
        tx.run(_forget(), gone)
    taught = [(pair, one.turn) for pair, one in endings if one.turn is not None]
    if taught:
        tx.run(
            _learn(tx.pg),
            [
                {
                    "flow": pair[0],
                    "conversation": pair[1],
                    "at": codec.number(turn.at),
                    "tokens": codec.number(turn.tokens),
                    "text": codec.turn_out(turn),
                }
                for pair, turn in taught
            ],
        )
        last = {pair: one for pair, one in endings if one.turn is not None}
        for but_first in (False, True):
            bounds = [
                _bound(pair) | {"b_keep": max(0, last[pair].keep_turns)}
                for pair in sorted(last)
                if last[pair].keep_summary is but_first
            ]
            if bounds:
                tx.run(_trim(but_first), bounds)
    values.learn(tx, [(pair, one.value) for pair, one in endings if one.value is not None])
    cooled = {pair: one.cooldown_until for pair, one in endings if one.cooldown_until is not None}
    if cooled:
        tx.run(
            _cool(tx.pg),
            [_bound(p) | {"b_until": codec.number(cooled[p])} for p in sorted(cooled)],
        )


def _bound(pair: Pair) -> dict[str, Any]:
    return {"b_flow": pair[0], "b_conversation": pair[1]}


def forget(tx: Tx, wanted: Sequence[Forget]) -> list[int]:
    """Delete what is remembered; how many turns that was."""
    results = []
    for one in wanted:
        pair = codec.key(one.flow), codec.key(one.conversation)
        bound = _bound(pair)
        values.forget(tx, pair)
        results.append(tx.run(_forget(), bound).rowcount)
    return results


@cache
def _stored() -> Any:
    return select(_t.seq, _t.at, _t.tokens, _t.text).where(pair_is(turns)).order_by(_t.seq)


def stored(tx: Tx, flow: str, conversation: str) -> list[tuple[int, Turn]]:
    """All that is stored of a conversation, oldest first, with its places."""
    return _placed(tx.run(_stored(), _bound((codec.key(flow), codec.key(conversation)))))


def _placed(rows: Iterable[Any]) -> list[tuple[int, Turn]]:
    return [(row.seq, codec.turn_in(row.text, row.at, row.tokens)) for row in rows]


@cache
def _oldest() -> Any:
    return _stored().limit(bindparam("b_limit")).with_for_update()


@cache
def _drop(pg: bool) -> Any:
    return delete(turns).where(among(pg, _t.seq, "seqs"))


@cache
def _rewrite() -> Any:
    names: dict[str, Any] = {n: bindparam(f"b_{n}") for n in ("at", "tokens", "text")}
    return update(turns).where(_t.seq == bindparam("b_seq")).values(names)


def sum_up(tx: Tx, wanted: Sequence[SumUp]) -> list[bool]:
    """False: somebody was faster, or it was forgotten meanwhile. The places alone don't tell:
    SQLite gives those of a forgotten conversation to the next one."""
    results = []
    pairs = [(codec.key(one.flow), codec.key(one.conversation)) for one in wanted]
    ordering.lock(tx, pairs)
    for one, pair in zip(wanted, pairs, strict=True):
        bound = _bound(pair) | {"b_limit": len(one.old)}
        same = _placed(tx.run(_oldest(), bound)) == list(one.old)
        results.append(same)
        if same:
            *gone, place = (seq for seq, _ in one.old)  # the last place, so that the order stays
            tx.run(_drop(tx.pg), {"seqs": numbers(tx.pg, gone)})
            row = {"b_at": codec.number(one.turn.at), "b_tokens": codec.number(one.turn.tokens)}
            tx.run(_rewrite(), row | {"b_seq": place, "b_text": codec.turn_out(one.turn)})
    return results


@cache
def _measure() -> Any:
    return select(func.count(), func.coalesce(func.sum(func.length(_t.text)), 0)).select_from(turns)


def measure(tx: Tx) -> tuple[int, int]:
    """How many turns there are of all conversations, and their bytes."""
    count, size = tx.run(_measure()).one()
    return int(count), int(size)


@cache
def _forget_oldest() -> Any:
    oldest = (
        select(_t.seq)
        .order_by(_t.seq)
        .limit(bindparam("b_limit"))
        .with_for_update(skip_locked=True)
    )
    return delete(turns).where(_t.seq.in_(once(oldest)))


def forget_oldest(tx: Tx, counts: Sequence[int]) -> list[int]:
    """Delete so many turns, of whatever conversation; how many there were."""
    return [int(tx.run(_forget_oldest(), {"b_limit": count}).rowcount) for count in counts]
