"""Claims: what is due is taken under a lease, a batch at a time.

Every statement reads the front of an index; none depends on how many wait. Where rows are
taken, they are locked first and decided on in a later statement: in PostgreSQL only that
one sees what others committed while we waited.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Text, bindparam, case, or_, select, tuple_, update

from service.domain import Claimed, State
from service.inbox import codec, memory, ordering
from service.inbox.ordering import ZERO
from service.inbox.rows import Claims, claimed_columns, to_claimed
from service.inbox.sql import Pair, Tx, among, listed_texts, numbers, texts
from service.inbox.sql_tables import (
    conversations,
    queued,
    requests,
    state_is,
    unordered_queue,
    waiting,
)

_c = conversations.c
_r = requests.c
_now: Any = bindparam("b_now", type_=BigInteger)


@dataclass(slots=True)
class Sweep:
    """How far the search for expired requests has come; the next claim goes on there."""

    after: tuple[int, int] = (-(1 << 63), 0)


@dataclass(frozen=True, slots=True)
class Claim:
    """Who wants how much of which flows. `turn` moves on, so that each flow is first once."""

    flows: tuple[str, ...]
    limit: int
    owner: str
    lease_ms: int
    turn: int
    sweep: Sweep = field(default_factory=Sweep)


class Queue(NamedTuple):
    """Where a flow's requests wait: in the order of their conversations or without, and new
    ones apart from those that wait out a delay; and those that `slept`."""

    ordered: bool
    delayed: bool
    slept: bool = False


@dataclass(frozen=True, slots=True)
class Fronts:
    """Which queues of each flow have something due; `later`: when there will be more (ms)."""

    due: dict[str, list[Queue]]
    answered: bool
    expired: bool
    overslept: bool
    later: int | None


def _first(column: Any, *where: Any) -> Any:
    """By an order that only the index has: else a planner hopes to meet one row by chance."""
    return select(column).where(*where).order_by(column).limit(1).scalar_subquery()


@cache
def _by_flow(pg: bool) -> Any:
    listed = listed_texts(pg, "flows")
    flow = listed.c.value
    ordered = (_c.flow == flow,)
    unordered = (unordered_queue, _r.flow == flow)
    asleep = (waiting, _r.flow == flow)
    return select(
        flow.label("flow"),
        _first(_c.since, *ordered, _c.next_at == ZERO).label("ordered_new"),
        _first(_c.next_at, *ordered, _c.next_at > ZERO).label("ordered_delayed"),
        _first(_c.next_at, *ordered, _c.next_at > _now).label("ordered_later"),
        _first(_r.not_before, *unordered, _r.not_before <= ZERO).label("unordered_new"),
        _first(_r.not_before, *unordered, _r.not_before > ZERO).label("unordered_delayed"),
        _first(_r.not_before, *unordered, _r.not_before > _now).label("unordered_later"),
        _first(_r.not_before, *asleep, _r.not_before <= _now).label("slept"),
        _first(_r.not_before, *asleep, _r.not_before > _now).label("wakes_later"),
    )


_overslept = (waiting, _r.deadline <= _now, _r.not_before <= _now)


@cache
def _of_all() -> Any:
    answered = state_is(State.ANSWERED)
    return select(
        _first(_r.lease_until, answered, _r.lease_until <= _now).label("answered"),
        _first(_r.lease_until, answered, _r.lease_until > _now).label("answered_later"),
        _first(_r.deadline, queued, _r.deadline <= _now).label("expired"),
        _first(_r.deadline, queued, _r.deadline > _now).label("expires_later"),
        _first(_r.deadline, *_overslept).label("overslept"),
        ordering.settled_at.label("settled_at"),
    )


def _peek(tx: Tx, flows: Sequence[str]) -> Fronts:
    """Costs a few index look-ups per flow, however many requests wait."""
    values = {"b_now": tx.now}
    of_all = tx.run(_of_all(), values).one()
    due: dict[str, list[Queue]] = {}
    later = [of_all.answered_later, of_all.expires_later]
    settling = of_all.settled_at is not None and of_all.settled_at > tx.now
    if settling:
        later.append(of_all.settled_at)
    rows = tx.run(_by_flow(tx.pg), values | {"flows": texts(tx.pg, flows)}) if flows else ()
    for row in rows:
        delayed = {True: row.ordered_delayed, False: row.unordered_delayed}
        new = {True: row.ordered_new, False: row.unordered_new}
        queues = [Queue(o, True) for o, at in delayed.items() if at is not None and at <= tx.now]
        queues += [Queue(o, False) for o, found in new.items() if found is not None]
        if settling:
            queues = [queue for queue in queues if not queue.ordered]
        if row.slept is not None:
            queues.insert(0, Queue(ordered=False, delayed=True, slept=True))
        if queues:
            due[row.flow] = queues
        later += [row.ordered_later, row.unordered_later, row.wakes_later]
    return Fronts(
        due=due,
        answered=of_all.answered is not None,
        expired=of_all.expired is not None,
        overslept=of_all.overslept is not None,
        later=min((at for at in later if at is not None), default=None),
    )


@cache
def _take(pg: bool, expired: bool) -> Any:
    """Put a lease on queued rows that are due (or too late), on answered ones, and on those that
    slept long enough."""
    due = _r.deadline <= _now if expired else or_(_r.not_before <= _now, _r.deadline <= _now)
    answered = state_is(State.ANSWERED)
    slept = waiting & (_r.not_before <= _now)
    return (
        update(requests)
        .where(among(pg, _r.seq, "seqs"), or_(queued & due, answered, slept))
        .values(
            state=case((answered, State.ANSWERED.value), else_=State.ANSWERING.value),
            fence=_r.fence + 1,
            claims=_r.claims + 1,
            owner=bindparam("b_owner", type_=Text),
            lease_until=bindparam("b_until", type_=BigInteger),
        )
        .returning(*claimed_columns)
    )


def _lease(tx: Tx, order: Claim, seqs: Sequence[int], *, expired: bool = False) -> list[Claimed]:
    if not seqs:
        return []
    values = {
        "seqs": numbers(tx.pg, seqs),
        "b_now": tx.now,
        "b_owner": order.owner,
        "b_until": tx.now + order.lease_ms,
    }
    place = {seq: at for at, seq in enumerate(seqs)}
    rows = tx.run(_take(tx.pg, expired), values).all()
    asked = [r for r in rows if r.state == State.ANSWERING.value]
    known = memory.recall_all(tx, sorted({(r.flow, r.conversation) for r in asked}))
    taken = [to_claimed(row, known.get((row.flow, row.conversation))) for row in rows]
    taken.sort(key=lambda claimed: place[claimed.seq])
    for claimed in taken:
        if claimed.state is State.ANSWERING:
            tx.tell(claimed.id, claimed.flow, claimed.conversation, claimed.state)
    return taken


@cache
def _answered() -> Any:
    return (
        select(_r.seq)
        .where(state_is(State.ANSWERED), _r.lease_until <= _now)
        .order_by(_r.lease_until)
        .limit(bindparam("b_limit"))
        .with_for_update(skip_locked=True)
    )


@cache
def _too_long_asleep() -> Any:
    """Of any flow: of those that are asked, others have been taken before."""
    return (
        select(_r.seq)
        .where(*_overslept)
        .order_by(_r.deadline, _r.seq)
        .limit(bindparam("b_limit"))
        .with_for_update(skip_locked=True)
    )


@cache
def _slept() -> Any:
    return (
        select(_r.seq)
        .where(waiting, _r.flow == bindparam("b_flow", type_=Text), _r.not_before <= _now)
        .order_by(_r.not_before, _r.seq)
        .limit(bindparam("b_limit"))
        .with_for_update(skip_locked=True)
    )


@cache
def _unordered(delayed: bool) -> Any:
    statement = select(_r.seq).where(unordered_queue, _r.flow == bindparam("b_flow", type_=Text))
    if delayed:
        statement = statement.where(_r.not_before > ZERO, _r.not_before <= _now)
        statement = statement.order_by(_r.not_before, _r.seq)
    else:
        statement = statement.where(_r.not_before <= ZERO).order_by(_r.not_before, _r.seq)
    return statement.limit(bindparam("b_limit")).with_for_update(skip_locked=True)


Candidate = tuple[Pair | None, int]
"""What a flow offers: a conversation whose head may be due, or a request without order."""


def _offer(tx: Tx, flow: str, limit: int, queues: Iterable[Queue]) -> list[Candidate]:
    """Lock up to `limit` candidates of a flow; those that waited out a delay come first."""
    found: list[Candidate] = []
    for queue in queues:
        left = limit - len(found)
        if left <= 0:
            break
        if queue.slept:
            values = {"b_flow": flow, "b_limit": left, "b_now": tx.now}
            found += [(None, seq) for seq in tx.run(_slept(), values).scalars()]
        elif queue.ordered:
            pairs = ordering.take_due(tx, flow, left, delayed=queue.delayed)
            found += [(pair, 0) for pair in pairs]
        else:
            values = {"b_flow": flow, "b_limit": left}
            if queue.delayed:
                values["b_now"] = tx.now
            found += [(None, seq) for seq in tx.run(_unordered(queue.delayed), values).scalars()]
    return found


def _fair(offers: list[list[Candidate]]) -> Iterator[Candidate]:
    """One of each flow in turn."""
    for at in range(max(map(len, offers), default=0)):
        for offer in offers:
            if at < len(offer):
                yield offer[at]


Taken = tuple[list[Claimed], int | None]
"""What was leased, and when there may be more (ms)."""


def _from_flows(tx: Tx, order: Claim, due: dict[str, list[Queue]], limit: int) -> Taken:
    names = sorted(due)
    names = names[order.turn % len(names) :] + names[: order.turn % len(names)] if names else []
    offers: list[list[Candidate]] = []
    left, more = limit, False
    for at, name in enumerate(names):
        share = -(-left // (len(names) - at))
        offers.append(_offer(tx, name, share, due[name]))
        left -= len(offers[-1])
        more = more or len(offers[-1]) == share
    candidates = list(_fair(offers))
    pairs = [pair for pair, _ in candidates if pair is not None]
    heads = ordering.heads(tx, pairs)
    seqs = [heads.get(pair) if pair else seq for pair, seq in candidates]
    taken = _lease(tx, order, [seq for seq in seqs if seq is not None])
    later = _settle_queues(tx, pairs, heads, {claimed.seq for claimed in taken})
    return taken, tx.now if more else later


@cache
def _not_before(pg: bool) -> Any:
    return select(_r.seq, _r.not_before).where(among(pg, _r.seq, "seqs"))


def _settle_queues(
    tx: Tx, pairs: list[Pair], heads: dict[Pair, int | None], taken: set[int]
) -> int | None:
    """Note in each conversation we hold what became of it: active, waiting, or empty.

    Returns the first time that one waits for.
    """
    active: list[tuple[Pair, int]] = []
    early: list[tuple[Pair, int]] = []
    wait: list[tuple[Pair, int | None]] = []
    for pair in pairs:
        head = heads.get(pair)
        if head is None:
            wait.append((pair, None))
        elif head in taken:
            active.append((pair, head))
        else:
            early.append((pair, head))
    ordering.activate(tx, active)
    if early:
        found = tx.run(_not_before(tx.pg), {"seqs": numbers(tx.pg, [head for _, head in early])})
        times = {row.seq: row.not_before for row in found}
        wait += [(pair, times[head]) for pair, head in early]
    ordering.wait(tx, wait)
    return min((at for _, at in wait if at is not None), default=None)


@cache
def _expired() -> Any:
    return (
        select(_r.seq, _r.flow, _r.conversation, _r.ordered, _r.deadline)
        .where(
            queued,
            _r.deadline <= _now,
            tuple_(_r.deadline, _r.seq)
            > tuple_(
                bindparam("b_deadline", type_=BigInteger), bindparam("b_seq", type_=BigInteger)
            ),
        )
        .order_by(_r.deadline, _r.seq)
        .limit(bindparam("b_limit"))
    )


@cache
def _lock_unordered(pg: bool) -> Any:
    where = (among(pg, _r.seq, "seqs"), unordered_queue)
    return select(_r.seq).where(*where).with_for_update(skip_locked=True)


def _too_late(tx: Tx, order: Claim, limit: int) -> Taken:
    """Expired requests of any flow: paused, unknown, removed, waiting to be tried again.

    In a conversation only the head, and only while nothing is active: even bad news
    comes in order.
    """
    deadline, seq = order.sweep.after
    rows = tx.run(
        _expired(),
        {"b_now": tx.now, "b_deadline": deadline, "b_seq": seq, "b_limit": limit},
    ).all()
    full = len(rows) == limit
    order.sweep.after = (rows[-1].deadline, rows[-1].seq) if full else Sweep().after
    unordered = [row.seq for row in rows if not row.ordered]
    free = [
        (row.flow, row.conversation)
        for row in ordering.lock(
            tx, ((row.flow, row.conversation) for row in rows if row.ordered), skip=True
        )
        if row.active_seq is None
    ]
    heads = ordering.heads(tx, free)
    seqs = [head for head in heads.values() if head is not None]
    if unordered:
        seqs += tx.run(_lock_unordered(tx.pg), {"seqs": numbers(tx.pg, unordered)}).scalars()
    taken = _lease(tx, order, seqs, expired=True)
    pair_of = {head: pair for pair, head in heads.items()}
    ordering.activate(tx, [(pair_of[c.seq], c.seq) for c in taken if c.seq in pair_of])
    return taken, tx.now if full else None


def claim(tx: Tx, orders: Sequence[Claim]) -> list[Claims]:
    return [_claim_one(tx, order) for order in orders]


def _claim_one(tx: Tx, order: Claim) -> Claims:
    fronts = _peek(tx, [codec.key(flow) for flow in order.flows])
    taken: list[Claimed] = []
    times = [fronts.later]
    if fronts.answered:
        seqs = tx.run(_answered(), {"b_now": tx.now, "b_limit": order.limit}).scalars().all()
        taken += _lease(tx, order, seqs)
    if fronts.expired and len(taken) < order.limit:
        left = order.limit - len(taken)
        # Where both are, the late ones get half: they have waited, but so have the others.
        share = (left + order.turn % 2) // 2 if fronts.due else left
        late, time = _too_late(tx, order, share) if share else ([], tx.now)
        taken, times = taken + late, [*times, time]
    if fronts.overslept and len(taken) < order.limit:
        # Of a flow that was removed or is paused, too: whatever waits ends some day.
        values = {"b_now": tx.now, "b_limit": order.limit - len(taken)}
        taken += _lease(tx, order, tx.run(_too_long_asleep(), values).scalars().all())
    if fronts.due and len(taken) < order.limit:
        asked, time = _from_flows(tx, order, fronts.due, order.limit - len(taken))
        taken, times = taken + asked, [*times, time]
    if len(taken) >= order.limit:
        times.append(tx.now)
    return Claims(taken, min((time for time in times if time is not None), default=None))
