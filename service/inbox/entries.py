"""What comes into the inbox: new requests, dead letters asked again, flows found later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, LargeBinary, Text, bindparam, func, select, update

from service.domain import Claimed, Entry, State
from service.inbox import batches, codec, ordering, unsettled_calls, waits
from service.inbox.rows import Added, claimed_columns, to_claimed
from service.inbox.sql import Pair, Tx, among_pairs, insert, listed_texts, pairs, texts
from service.inbox.sql_tables import ANSWER_COLUMNS, fresh, ordered_queue, requests, unresolved

_r = requests.c


@dataclass(frozen=True, slots=True)
class Adoption:
    """A stored request of unknown flow, and what it turned out to be."""

    seq: int
    entry: Entry


@dataclass(frozen=True, slots=True)
class Requeue:
    """A dead letter that shall be asked again, at the end of the queue."""

    id: str
    deadline: int
    payload: bytes | None = None


def _scope(entry: Entry) -> str:
    """Where its dedupe key counts. A flow nobody knows yet has its name already."""
    return codec.key(entry.flow or entry.message.flow or "")


def _placed(entry: Entry) -> dict[str, Any]:
    """The columns that depend on the flow."""
    return {
        "flow": codec.key(entry.flow or ""),
        "scope": _scope(entry),
        "dedupe": codec.key(entry.dedupe),
        "conversation": codec.key(entry.conversation),
        "ordered": entry.ordered,
        "deadline": codec.number(entry.deadline),
        "message": codec.entry_out(entry),
    }


def _turn(entry: Entry) -> int:
    return codec.number(entry.turn or entry.accepted_at)


def _not_before(entry: Entry) -> int:
    if entry.batch is not None:
        return codec.number(entry.accepted_at + entry.batch.every)
    return 0 if entry.ordered else fresh(_turn(entry))


def _row(entry: Entry) -> dict[str, Any]:
    message = entry.message
    return _placed(entry) | {
        "id": codec.key(entry.id),
        "order_at": codec.number(message.received_at),
        "order_id": codec.clean(message.id, 64),
        "accepted_at": codec.number(entry.accepted_at),
        "not_before": _not_before(entry),
        "state": State.QUEUED.value,
        "fence": 0,
        "claims": 0,
        "tries": 0,
        "publish": entry.publish,
        "topic": codec.clean(message.topic, 250),
        "clientid": None if message.clientid is None else codec.clean(message.clientid, 250),
        "payload": message.payload,
    }


@cache
def _insert(pg: bool) -> Any:
    new = insert(pg, requests).on_conflict_do_nothing(index_elements=[_r.scope, _r.dedupe])
    return new.returning(_r.id) if pg else new


@cache
def _known(pg: bool) -> Any:
    return select(_r.scope, _r.dedupe, _r.id, _r.seq).where(among_pairs(pg, _r.scope, _r.dedupe))


def _stored(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What the inbox has under the dedupe keys of these."""
    wanted = {(row["scope"], row["dedupe"]) for row in rows}
    return list(tx.run(_known(tx.pg), pairs(tx.pg, sorted(wanted))))


@cache
def _last() -> Any:
    return select(func.max(_r.seq))


def _put(tx: Tx, rows: Sequence[dict[str, Any]]) -> set[str]:
    """Insert what is new; the ids of those."""
    if tx.pg:
        in_order = sorted(rows, key=lambda r: (r["scope"], r["dedupe"]))
        return set(tx.run(_insert(True), in_order).scalars())
    last = tx.run(_last()).scalar() or 0
    if tx.run(_insert(False), rows).rowcount == len(rows):
        return {row["id"] for row in rows}
    return {row.id for row in _stored(tx, rows) if row.seq > last}


def add(tx: Tx, entries: Sequence[Entry]) -> list[Added]:
    """Store what is new. The same message again is told the id it got the first time."""
    rows = [_row(entry) for entry in entries]
    turns: dict[Pair, int] = {}
    for entry, row in zip(entries, rows, strict=True):
        if row["ordered"]:
            pair = (row["flow"], row["conversation"])
            turns[pair] = min(_turn(entry), turns.get(pair, _turn(entry)))
    ordering.enqueue(tx, turns)
    new = _put(tx, rows)
    filled = {}
    for entry, row in zip(entries, rows, strict=True):
        if entry.batch is not None and row["id"] in new:
            filled[row["flow"], row["conversation"]] = entry.batch
    if filled:
        batches.press(tx, filled.items())
    known: dict[Pair, str] = {}
    if len(new) < len(rows):
        known = {(row.scope, row.dedupe): row.id for row in _stored(tx, rows)}
    results = []
    for entry, row in zip(entries, rows, strict=True):
        if row["id"] in new:
            new.discard(row["id"])
            tx.tell(entry.id, entry.flow, entry.conversation, State.QUEUED)
            tx.opened += 1
            tx.wake = True
            results.append(Added(entry.id, duplicate=False))
        else:
            results.append(Added(known[row["scope"], row["dedupe"]], duplicate=True))
    return results


@cache
def _names_waiting(pg: bool) -> Any:
    listed = listed_texts(pg, "names")
    first = (
        select(_r.seq)
        .where(unresolved, _r.scope == listed.c.value)
        .order_by(_r.seq)
        .limit(1)
        .scalar_subquery()
    )
    return select(listed.c.value.label("name")).where(first.is_not(None))


@cache
def _waiting() -> Any:
    return (
        select(*claimed_columns)
        .where(
            unresolved,
            _r.scope == bindparam("b_name", type_=Text),
            _r.seq > bindparam("b_after", type_=BigInteger),
        )
        .order_by(_r.seq)
        .limit(bindparam("b_limit"))
    )


def find_unresolved(tx: Tx, flows: Sequence[str], limit: int, after: int) -> list[Claimed]:
    """Requests without a flow that one of `flows` may take: by name, or else by topic.

    Those without a name may fit none of ours for ever, so they are looked through from
    `after` on; those with one of our names are gone once they are adopted.
    """
    names = [codec.key(flow) for flow in flows] + [""]
    waiting = {row.name for row in tx.run(_names_waiting(tx.pg), {"names": texts(tx.pg, names)})}
    found: list[Claimed] = []
    for name in names:
        if name in waiting and len(found) < limit:
            rows = tx.run(
                _waiting(),
                {
                    "b_name": name,
                    "b_after": 0 if name else after,
                    "b_limit": limit - len(found),
                },
            )
            found += [to_claimed(row) for row in rows]
    return found


@cache
def _adopt() -> Any:
    names = ("flow", "scope", "dedupe", "conversation", "ordered", "deadline", "message")
    return (
        update(requests)
        .where(_r.seq == bindparam("b_seq"), unresolved)
        .values({name: bindparam(f"b_{name}") for name in names})
    )


@cache
def _is_duplicate() -> Any:
    return (
        update(requests)
        .where(_r.seq == bindparam("b_seq"), unresolved)
        .values(
            state=State.IGNORED.value,
            error_code="duplicate",
            error_message="the same message was taken before",
            ended_at=bindparam("b_now"),
        )
    )


@cache
def _by_seq() -> Any:
    return select(_r.seq, _r.id).where(_r.seq == bindparam("b_seq"), unresolved).with_for_update()


def adopt(tx: Tx, adoptions: Sequence[Adoption]) -> list[bool]:
    """Give requests their flow, once. One that its flow has already ends as a duplicate."""
    return [_adopt_one(tx, adoption) for adoption in adoptions]


def _adopt_one(tx: Tx, adoption: Adoption) -> bool:
    entry, seq = adoption.entry, adoption.seq
    placed = _placed(entry)
    pair = (placed["flow"], placed["conversation"])
    if entry.ordered:
        ordering.enqueue(tx, {pair: tx.now})
    row = tx.run(_by_seq(), {"b_seq": seq}).one_or_none()
    if row is None:
        return False
    if any(other.id != row.id for other in _stored(tx, [placed])):
        tx.run(_is_duplicate(), {"b_seq": seq, "b_now": tx.now})
        tx.tell(row.id, entry.flow, entry.conversation, State.IGNORED)
        tx.opened -= 1
        return False
    tx.run(_adopt(), {"b_seq": seq} | {f"b_{name}": value for name, value in placed.items()})
    tx.tell(row.id, entry.flow, entry.conversation, State.QUEUED)
    tx.wake = True
    return True


@cache
def _by_id(lock: bool) -> Any:
    columns = (_r.seq, _r.flow, _r.conversation, _r.ordered, _r.order_at, _r.state, _r.message)
    where = _r.id == bindparam("b_id", type_=Text)
    return (
        select(*columns, _r.steps).where(where).with_for_update()
        if lock
        else (select(*columns).where(where))
    )


@cache
def _last_ordered_queue() -> Any:
    return select(func.max(_r.order_at)).where(
        ordered_queue,
        _r.flow == bindparam("b_flow", type_=Text),
        _r.conversation == bindparam("b_conversation", type_=Text),
    )


@cache
def _requeue() -> Any:
    return (
        update(requests)
        .where(_r.seq == bindparam("b_seq"))
        .values(
            dict.fromkeys(ANSWER_COLUMNS)
            | {
                "state": State.QUEUED.value,
                "fence": _r.fence + 1,
                "claims": 0,
                "tries": 0,
                "not_before": bindparam("b_not_before", type_=BigInteger),
                "order_at": bindparam("b_order_at"),
                "deadline": bindparam("b_deadline"),
            }
        )
    )


@cache
def _edit() -> Any:
    payload: Any = bindparam("b_payload", type_=LargeBinary)
    return update(requests).where(_r.seq == bindparam("b_seq")).values(payload=payload)


def requeue(tx: Tx, dead: Sequence[Requeue]) -> list[bool]:
    """Queue dead letters again, behind whoever waits in their conversations. Not those with a
    command that may be out and must not be repeated."""
    return [_requeue_one(tx, one) for one in dead]


def _requeue_one(tx: Tx, one: Requeue) -> bool:
    values = {"b_id": codec.key(one.id)}
    row = tx.run(_by_id(False), values).one_or_none()
    if row is None:
        return False
    if row.ordered:
        ordering.enqueue(tx, {(row.flow, row.conversation): tx.now})
    row = tx.run(_by_id(True), values).one_or_none()
    if row is None or row.state not in (State.FAILED, State.EXPIRED):
        return False
    if unsettled_calls.unsettled(codec.steps_in(row.steps)):
        return False
    waits.drop(tx, [row.seq])
    last = None
    if row.ordered:
        last = tx.run(
            _last_ordered_queue(), {"b_flow": row.flow, "b_conversation": row.conversation}
        ).scalar()
    end = max(tx.now, row.order_at, last + 1 if last is not None else 0)
    tx.run(
        _requeue(),
        {
            "b_seq": row.seq,
            "b_not_before": 0 if row.ordered else fresh(tx.now),
            "b_order_at": codec.number(end),
            "b_deadline": codec.number(one.deadline),
        },
    )
    if one.payload is not None:
        tx.run(_edit(), {"b_seq": row.seq, "b_payload": one.payload})
    tx.tell(one.id, *codec.names_in(row.message, row.flow, row.conversation), State.QUEUED)
    tx.opened += 1
    tx.wake = True
    return True
