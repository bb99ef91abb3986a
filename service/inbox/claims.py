"""Claims: what is due is taken under a lease, a batch at a time.

Every statement reads the front of an index; none depends on how many wait. Where rows are
taken, they are locked first and decided on in a later statement: in PostgreSQL only that
one sees what others committed while we waited.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Text, bindparam, case, or_, select, tuple_, update

from service.domain import Claimed, State
from service.inbox import codec, lines, memory
from service.inbox.peek import peek
from service.inbox.rows import NOTHING, claimed_columns, to_claimed
from service.inbox.sql import Pair, Tx, among, numbers
from service.inbox.tables import loose, queued, requests, state_is
from service.inbox.values import Claims

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


@cache
def _take(pg: bool, expired: bool) -> Any:
    """Put a lease on queued rows that are due (or too late), and on answered ones."""
    due = _r.deadline <= _now if expired else or_(_r.not_before <= _now, _r.deadline <= _now)
    answered = state_is(State.ANSWERED)
    return (
        update(requests)
        .where(among(pg, _r.seq, "seqs"), or_(queued & due, answered))
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
    taken = [to_claimed(r, known.get((r.flow, r.conversation), NOTHING)) for r in rows]
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
def _loose(fresh: bool) -> Any:
    statement = select(_r.seq).where(loose, _r.flow == bindparam("b_flow", type_=Text))
    if fresh:
        statement = statement.where(_r.not_before == lines.ZERO).order_by(_r.seq)
    else:
        statement = statement.where(_r.not_before > lines.ZERO, _r.not_before <= _now)
        statement = statement.order_by(_r.not_before, _r.seq)
    return statement.limit(bindparam("b_limit")).with_for_update(skip_locked=True)


Candidate = tuple[Pair | None, int]
"""What a flow offers: a conversation whose head may be due, or a request without order."""


def _offer(tx: Tx, flow: str, limit: int, kinds: Iterable[str]) -> list[Candidate]:
    """Lock up to `limit` candidates of a flow; those that waited out a delay come first."""
    found: list[Candidate] = []
    for kind in kinds:
        left = limit - len(found)
        if left <= 0:
            break
        fresh = kind.endswith("fresh")
        if kind.startswith("line"):
            found += [(pair, 0) for pair in lines.take_due(tx, flow, left, fresh=fresh)]
        else:
            values = {"b_flow": flow, "b_limit": left} | ({} if fresh else {"b_now": tx.now})
            found += [(None, seq) for seq in tx.run(_loose(fresh), values).scalars()]
    return found


def _fair(offers: list[list[Candidate]]) -> Iterator[Candidate]:
    """One of each flow in turn."""
    for at in range(max(map(len, offers), default=0)):
        for offer in offers:
            if at < len(offer):
                yield offer[at]


Taken = tuple[list[Claimed], int | None]
"""What was leased, and when there may be more (ms)."""


def _from_flows(tx: Tx, order: Claim, due: dict[str, list[str]], limit: int) -> Taken:
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
    heads = lines.heads(tx, pairs)
    seqs = [heads.get(pair) if pair else seq for pair, seq in candidates]
    taken = _lease(tx, order, [seq for seq in seqs if seq is not None])
    later = _settle_lines(tx, pairs, heads, {claimed.seq for claimed in taken})
    return taken, tx.now if more else later


@cache
def _not_before(pg: bool) -> Any:
    return select(_r.seq, _r.not_before).where(among(pg, _r.seq, "seqs"))


def _settle_lines(
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
    lines.activate(tx, active)
    if early:
        found = tx.run(_not_before(tx.pg), {"seqs": numbers(tx.pg, [head for _, head in early])})
        times = {row.seq: row.not_before for row in found}
        wait += [(pair, times[head]) for pair, head in early]
    lines.wait(tx, wait)
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
def _lock_loose(pg: bool) -> Any:
    return select(_r.seq).where(among(pg, _r.seq, "seqs"), loose).with_for_update(skip_locked=True)


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
    loose_seqs = [row.seq for row in rows if not row.ordered]
    free = [
        (row.flow, row.conversation)
        for row in lines.lock(
            tx, ((row.flow, row.conversation) for row in rows if row.ordered), skip=True
        )
        if row.active_seq is None
    ]
    heads = lines.heads(tx, free)
    seqs = [head for head in heads.values() if head is not None]
    if loose_seqs:
        seqs += tx.run(_lock_loose(tx.pg), {"seqs": numbers(tx.pg, loose_seqs)}).scalars()
    taken = _lease(tx, order, seqs, expired=True)
    pair_of = {head: pair for pair, head in heads.items()}
    lines.activate(tx, [(pair_of[c.seq], c.seq) for c in taken if c.seq in pair_of])
    return taken, tx.now if full else None


def claim(tx: Tx, orders: Sequence[Claim]) -> list[Claims]:
    return [_claim_one(tx, order) for order in orders]


def _claim_one(tx: Tx, order: Claim) -> Claims:
    view = peek(tx, [codec.key(flow) for flow in order.flows])
    taken: list[Claimed] = []
    times = [view.later]
    if view.answered:
        seqs = tx.run(_answered(), {"b_now": tx.now, "b_limit": order.limit}).scalars().all()
        taken += _lease(tx, order, seqs)
    if view.expired and len(taken) < order.limit:
        left = order.limit - len(taken)
        # Where both are, the late ones get half: they have waited, but so have the others.
        share = (left + order.turn % 2) // 2 if view.due else left
        late, time = _too_late(tx, order, share) if share else ([], tx.now)
        taken, times = taken + late, [*times, time]
    if view.due and len(taken) < order.limit:
        fresh, time = _from_flows(tx, order, view.due, order.limit - len(taken))
        taken, times = taken + fresh, [*times, time]
    if len(taken) >= order.limit:
        times.append(tx.now)
    return Claims(taken, min((time for time in times if time is not None), default=None))
