"""What tool calls wait for: begun by who holds the request, answered by whoever hears it.

A message is judged in the transaction that stores what came of it, after the rows of the requests
are locked: of two answers the first one counts, and none is missed by a request that goes to
sleep just then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum, auto
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Text, bindparam, delete, select, update

from service.domain import Ear, State, Wait
from service.inbox import codec
from service.inbox.sql import Tx, among, insert, numbers
from service.inbox.sql_tables import requests, state_is, waits

_r = requests.c
_w = waits.c
_OPEN = 500  # waits on one topic that a message is held against, the oldest first
_CLOSED = 5  # latest ones that a late message may have been meant for
_AWAKE = frozenset({State.QUEUED, State.ANSWERING, State.WAITING})


class Word(Enum):
    """What a message is to a wait."""

    ANSWER = auto()  # what it waits for; nothing more counts
    LATEST = auto()  # it goes on waiting, and this is how things stand
    TRY = auto()  # an attempt that failed
    NOTE = auto()  # it does not count
    LATE = auto()  # likewise: it came too late


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a message is to one wait. `by` says who, `note` why it does not count."""

    word: Word
    answer: bytes | None = None
    by: str = "device"
    note: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """A wait that may be meant, with its request. `open`: it still waits."""

    wait: Wait
    seq: int
    request: str
    flow: str | None
    open: bool


Judge = Callable[[Sequence[Heard]], Mapping[int, Verdict]]
"""Whom a message answers: by place in the list. Pure."""


@dataclass(frozen=True, slots=True)
class Hear:
    """A message on `topic`, or a word about the request `id`; it was said at `at` (ms). `message`
    is its id; `call_id` the call that it names, however many others wait there."""

    judge: Judge
    at: int
    topic: str | None = None
    id: str | None = None
    message: str = ""
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Close:
    """Nothing more counts for this wait; `by`: why."""

    call_id: str
    ear: Ear
    by: str


@cache
def _insert(pg: bool) -> Any:
    new = insert(pg, waits)
    return new.on_conflict_do_update(
        index_elements=[_w.call_id, _w.ear],
        set_={"until": new.excluded.until},
        where=_w.closed_at.is_(None),
    )


def begin(tx: Tx, request: int, begun: Sequence[Wait]) -> None:
    """By who holds the request. What began before has until then now."""
    rows = [
        {
            "request": request,
            "call_id": codec.key(wait.call_id),
            "ear": wait.ear.value,
            "topic": codec.key(wait.topic),
            "until": codec.number(wait.until),
            "rule": codec.dumps(dict(wait.rule)),
            "by": "",
            "tries": 0,
            "late": 0,
            "noted": "",
        }
        for wait in begun
    ]
    if rows:
        tx.run(_insert(tx.pg), rows)


@cache
def _close() -> Any:
    return (
        update(waits)
        .where(
            _w.call_id == bindparam("b_call_id"),
            _w.ear == bindparam("b_ear"),
            _w.closed_at.is_(None),
        )
        .values(closed_at=bindparam("b_now", type_=BigInteger), by=bindparam("b_by"))
    )


def close(tx: Tx, closes: Sequence[Close]) -> None:
    rows = [
        {"b_call_id": codec.key(one.call_id), "b_ear": one.ear.value, "b_by": one.by}
        for one in closes
    ]
    if rows:
        tx.run(_close(), [row | {"b_now": tx.now} for row in rows])


@cache
def _close_all() -> Any:
    return (
        update(waits)
        .where(_w.request == bindparam("b_request", type_=BigInteger), _w.closed_at.is_(None))
        .values(closed_at=bindparam("b_now", type_=BigInteger), by="over")
    )


def close_all(tx: Tx, request: int) -> None:
    """The request ends, whatever it still waited for: its flow may be gone."""
    tx.run(_close_all(), {"b_request": request, "b_now": tx.now})


@cache
def _answered() -> Any:
    return select(_w.call_id, _w.ear).where(
        _w.request == bindparam("b_request", type_=BigInteger), _w.answered_at.is_not(None)
    )


def answered(tx: Tx, request: int, waiting_for: Iterable[tuple[str, Ear]]) -> bool:
    """Whether any of these waits has its answer."""
    wanted = {(codec.key(call_id), ear.value) for call_id, ear in waiting_for}
    rows = tx.run(_answered(), {"b_request": request})
    return any((row.call_id, row.ear) in wanted for row in rows)


_COLUMNS = tuple(_w[one.name] for one in fields(Wait))


def _read(row: Any) -> Wait:
    found = {one.name: getattr(row, one.name) for one in fields(Wait)}
    found["ear"] = Ear(found["ear"])
    found["rule"] = codec.loads(found["rule"])
    found["heard"] = found["heard"] or ""
    found["answer"] = None if found["answer"] is None else bytes(found["answer"])
    return Wait(**found)


@cache
def _of() -> Any:
    mine = _w.request == bindparam("b_request", type_=BigInteger)
    return select(*_COLUMNS).where(mine).order_by(_w.seq)


def of(tx: Tx, request: int) -> list[Wait]:
    """All of a request, in the order in which they began."""
    return [_read(row) for row in tx.run(_of(), {"b_request": request})]


# A message comes


@cache
def _on(open_: bool) -> Any:
    statement = select(_w.seq, _w.request).where(_w.topic == bindparam("b_topic", type_=Text))
    if open_:
        return statement.where(_w.closed_at.is_(None)).order_by(_w.seq).limit(_OPEN)
    return statement.where(_w.closed_at.is_not(None)).order_by(_w.seq.desc()).limit(_CLOSED)


@cache
def _by_call() -> Any:
    mine = (_w.call_id == bindparam("b_call_id"), _w.topic == bindparam("b_topic", type_=Text))
    return select(_w.seq, _w.request).where(*mine)


@cache
def _by_id() -> Any:
    return (
        select(_w.seq, _w.request)
        .select_from(waits.join(requests, _r.seq == _w.request))
        .where(_r.id == bindparam("b_id", type_=Text))
        .order_by(_w.seq)
    )


@cache
def _lock(pg: bool) -> Any:
    columns = (_r.seq, _r.id, _r.flow, _r.conversation, _r.state, _r.message)
    return select(*columns).where(among(pg, _r.seq, "seqs")).order_by(_r.seq).with_for_update()


@cache
def _these(pg: bool) -> Any:
    where = among(pg, _w.seq, "seqs")
    return select(_w.seq, _w.request, *_COLUMNS).where(where).order_by(_w.seq)


@cache
def _change() -> Any:
    names = ("answer", "answered_at", "closed_at", "by", "tries", "late", "noted", "heard")
    values = {name: bindparam(f"b_{name}", type_=_w[name].type) for name in names}
    return update(waits).where(_w.seq == bindparam("b_seq")).values(values)


@cache
def _wake(pg: bool) -> Any:
    return (
        update(requests)
        .where(among(pg, _r.seq, "seqs"), state_is(State.WAITING))
        .values(not_before=bindparam("b_now", type_=BigInteger))
    )


def hear(tx: Tx, said: Sequence[Hear]) -> list[list[tuple[Heard, Verdict]]]:
    """Hold each message against the waits it may be for, in the order in which they were said;
    what it was to which of them."""
    places = sorted(range(len(said)), key=lambda at: said[at].at)
    meant = {at: _candidates(tx, said[at]) for at in places}
    seqs = sorted({request for found in meant.values() for _, request in found})
    locked = {}
    if seqs:
        locked = {row.seq: row for row in tx.run(_lock(tx.pg), {"seqs": numbers(tx.pg, seqs)})}
    results: list[list[tuple[Heard, Verdict]]] = [[] for _ in said]
    for at in places:
        results[at] = _judge(tx, said[at], meant[at], locked)
    return results


def _candidates(tx: Tx, one: Hear) -> list[tuple[int, int]]:
    if one.topic is None:
        rows = list(tx.run(_by_id(), {"b_id": codec.key(one.id or "")}))
    else:
        values = {"b_topic": codec.key(one.topic)}
        rows = [*tx.run(_on(True), values), *tx.run(_on(False), values)]
        if len(rows) >= _OPEN and one.call_id is not None:
            rows += tx.run(_by_call(), values | {"b_call_id": codec.key(one.call_id)})
    return sorted({(row.seq, row.request) for row in rows})


def _judge(
    tx: Tx, one: Hear, meant: Sequence[tuple[int, int]], locked: Mapping[int, Any]
) -> list[tuple[Heard, Verdict]]:
    if not meant:
        return []
    # Read after the lock: what others changed meanwhile counts.
    rows = list(tx.run(_these(tx.pg), {"seqs": numbers(tx.pg, (seq for seq, _ in meant))}))
    heard, seqs = [], []
    for row in rows:
        request = locked.get(row.request)
        if request is None:
            continue  # removed meanwhile
        wait = _read(row)
        flow, _ = codec.names_in(request.message, request.flow, request.conversation)
        open_ = wait.closed_at is None and request.state in _AWAKE
        heard.append(Heard(wait, row.request, request.id, flow, open_))
        seqs.append(row.seq)
    verdicts = one.judge(heard)
    changes, woken = [], set()
    for at, verdict in sorted(verdicts.items()):
        after = _after(heard[at].wait, verdict, one, tx.now, heard[at].open)
        changes.append({"b_seq": seqs[at], **_row(after)})
        if verdict.word is Word.ANSWER and heard[at].open:
            woken.add(heard[at].seq)
    if changes:
        tx.run(_change(), changes)
    if woken:
        tx.run(_wake(tx.pg), {"seqs": numbers(tx.pg, sorted(woken)), "b_now": tx.now})
        tx.wake = True
    return [(heard[at], verdict) for at, verdict in sorted(verdicts.items())]


def _after(wait: Wait, verdict: Verdict, said: Hear, now: int, open_: bool) -> Wait:
    """The wait with what this message was to it."""
    note = codec.clean(verdict.note, 200)
    if not open_ or verdict.word is Word.LATE:
        return replace(wait, late=wait.late + 1, noted=note or wait.noted)
    match verdict.word:
        case Word.ANSWER:
            return replace(
                wait,
                answer=verdict.answer,
                answered_at=codec.number(said.at),
                closed_at=now,
                by=codec.clean(verdict.by, 200),
                noted=note,
                heard=codec.clean(said.message),
            )
        case Word.LATEST:
            return replace(wait, answer=verdict.answer, noted=note)
        case Word.TRY:
            return replace(wait, tries=wait.tries + 1, noted=note, heard=codec.clean(said.message))
        case _:
            return replace(wait, noted=note)


def _row(wait: Wait) -> dict[str, Any]:
    names = ("answer", "answered_at", "closed_at", "by", "tries", "late", "noted", "heard")
    return {f"b_{name}": getattr(wait, name) for name in names}


# They go with their request


@cache
def _drop(pg: bool) -> Any:
    return delete(waits).where(among(pg, _w.request, "seqs"))


def drop(tx: Tx, requests: Sequence[int]) -> None:
    if requests:
        tx.run(_drop(tx.pg), {"seqs": numbers(tx.pg, requests)})
