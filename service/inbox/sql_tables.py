"""The schema, one for both databases. How older ones come to it: `migrations`.

Keys that come from devices pass through `codec.key` first, so that no index ever meets
a text it refuses. Partial indexes hold what the hot statements need, and nothing else:
a claim reads the front of a queue, however long the queue is.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    literal_column,
    not_,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

APPLICATION_ID = 0x65677074
"""Marks a SQLite file as ours ("egpt")."""

metadata = MetaData()

version = Table(
    "emqx_gpt_version",
    metadata,
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="emqx_gpt_version_pkc"),
)
"""One row: the newest step of `migrations` that this database has."""

# PostgreSQL would sort by the locale of its database; order must not depend on that.
Key = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
Seq = BigInteger().with_variant(Integer, "sqlite")


def _answer(name: str, kind: type[TypeEngine[Any]]) -> Column[Any]:
    """A column that says how a request was answered; empty again when it is requeued."""
    return Column(name, kind, info={"answer": True})


requests = Table(
    "requests",
    metadata,
    Column("seq", Seq, primary_key=True, autoincrement=True),
    Column("id", Key, nullable=False),
    Column("flow", Key, nullable=False),  # "" until a process knows the flow
    Column("scope", Key, nullable=False),  # flow, or the name that nobody knew: dedupe's scope
    Column("dedupe", Key, nullable=False),
    Column("conversation", Key, nullable=False),
    Column("ordered", Boolean, nullable=False),
    Column("order_at", BigInteger, nullable=False),  # EMQX's clock; a retry moves to the end
    Column("order_id", Key, nullable=False),
    Column("accepted_at", BigInteger, nullable=False),
    Column("deadline", BigInteger, nullable=False),
    Column("not_before", BigInteger, nullable=False),  # up to 0: no wait, see fresh()
    Column("state", Text, nullable=False),
    Column("fence", BigInteger, nullable=False),  # grows with each lease, never falls
    Column("claims", Integer, nullable=False),  # since the last sign of life
    Column("tries", Integer, nullable=False),
    Column("owner", Text),
    Column("lease_until", BigInteger),  # 0: answered, and nobody's
    Column("publish", Boolean, nullable=False),
    Column("topic", Text, nullable=False),  # topic and clientid: for people; `message` is exact
    Column("clientid", Text),
    Column("payload", LargeBinary, nullable=False),
    Column("message", LargeBinary, nullable=False),
    Column("attempts", LargeBinary),
    _answer("steps", LargeBinary),
    _answer("outbox", LargeBinary),
    _answer("outcome", Text),
    _answer("reply", LargeBinary),
    _answer("model", Text),
    _answer("reasoning", LargeBinary),
    Column("prompt_tokens", BigInteger),  # what was paid stays paid when it is requeued
    Column("completion_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("cache_write_tokens", BigInteger),
    Column("cost", Double),  # US dollars
    Column("trace", LargeBinary),  # when it was begun, what it waited for (`codec.trace_out`)
    _answer("error_code", Text),
    _answer("error_message", Text),
    _answer("delivered", Boolean),
    _answer("answered_at", BigInteger),
    _answer("ended_at", BigInteger),
    _answer("held_at", BigInteger),  # when it is published again; NULL: not any more
    _answer("held_until", BigInteger),
    Column("batch", BigInteger),  # seq of the request that it is asked about in
    UniqueConstraint("id", name="requests_id"),
    UniqueConstraint("scope", "dedupe", name="requests_dedupe"),
    sqlite_autoincrement=True,  # a purged seq must not come back: (seq, fence) is a lease
)

ANSWER_COLUMNS = tuple(column.name for column in requests.c if "answer" in column.info)

_r = requests.c


_FRESH = 1 << 61


def fresh(turn: int) -> int:
    """`not_before` of what waits for nothing but its turn (ms): always past, and in this order."""
    return turn - _FRESH


def state_is(state: str) -> ColumnElement[bool]:
    """As a literal: with a bound value no planner could prove a partial index right."""
    return _r.state == literal_column(f"'{state}'")


queued = state_is("queued")
ordered_queue: ColumnElement[bool] = and_(queued, _r.ordered)
unordered_queue: ColumnElement[bool] = and_(queued, not_(_r.ordered))
waiting = state_is("waiting")
unresolved: ColumnElement[bool] = and_(queued, _r.flow == literal_column("''"))
open_: ColumnElement[bool] = _r.ended_at.is_(None)
ended: ColumnElement[bool] = _r.ended_at.is_not(None)
leased: ColumnElement[bool] = _r.lease_until.is_not(None)
held: ColumnElement[bool] = _r.held_at.is_not(None)


failed_with: ColumnElement[bool] = _r.error_code.is_not(None)


def _partial(name: str, where: ColumnElement[bool], *columns: Column[Any]) -> Index:
    return Index(name, *columns, sqlite_where=where, postgresql_where=where)


_partial("requests_line", ordered_queue, _r.flow, _r.conversation, _r.order_at, _r.order_id, _r.seq)
_partial("requests_loose", unordered_queue, _r.flow, _r.not_before, _r.seq)
_partial("requests_unresolved", unresolved, _r.scope, _r.seq)
_partial("requests_deadline", queued, _r.deadline, _r.seq)
_partial("requests_leased", leased, _r.state, _r.lease_until)
_partial("requests_open", open_, _r.seq)
_partial("requests_ended", ended, _r.ended_at)
_partial("requests_outcome", ended, _r.state, _r.seq)
requests_held = _partial("requests_held", held, _r.held_at)
requests_waiting = _partial("requests_waiting", waiting, _r.flow, _r.not_before, _r.seq)
requests_overslept = _partial("requests_overslept", waiting, _r.deadline, _r.seq)
requests_asleep = _partial("requests_asleep", waiting, _r.seq)
requests_batch = _partial("requests_batch", _r.batch.is_not(None), _r.batch)
requests_flow = Index("requests_flow", _r.flow, _r.seq)  # for people who look through a flow
requests_error = _partial("requests_error", failed_with, _r.error_code, _r.seq)
Index("requests_conversation", _r.flow, _r.conversation, _r.seq)

conversations = Table(
    "conversations",
    metadata,
    Column("flow", Key, primary_key=True),
    Column("conversation", Key, primary_key=True),
    # When its head may be claimed; 0: now; NULL: nothing is queued, or one is active.
    Column("next_at", BigInteger),
    Column("since", BigInteger, nullable=False),  # in line since, among those with 0
    Column("active_seq", BigInteger),
    Column("cooldown_until", BigInteger),
    sqlite_with_rowid=False,
)

_c = conversations.c
_partial("conversations_next", _c.next_at.is_not(None), _c.flow, _c.next_at, _c.since)

turns = Table(
    "turns",
    metadata,
    Column("seq", Seq, primary_key=True, autoincrement=True),
    Column("flow", Key, nullable=False),
    Column("conversation", Key, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("text", LargeBinary, nullable=False),
)
Index("turns_conversation", turns.c.flow, turns.c.conversation, turns.c.seq)

waits = Table(
    "waits",
    metadata,
    Column("seq", Seq, primary_key=True, autoincrement=True),
    Column("request", BigInteger, nullable=False),  # its seq
    Column("call_id", Key, nullable=False),
    Column("ear", Text, nullable=False),
    Column("topic", Key, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("rule", LargeBinary, nullable=False),
    Column("answer", LargeBinary),
    Column("answered_at", BigInteger),
    Column("closed_at", BigInteger),
    Column("by", Text, nullable=False),  # who closed it: "device", "timeout", a person's name
    Column("tries", BigInteger, nullable=False),
    Column("late", BigInteger, nullable=False),
    Column("noted", Text, nullable=False),
    Column("heard", Text),
    UniqueConstraint("call_id", "ear", name="waits_call"),
)
"""What tool calls wait for, and what came of it; they go with their request."""

_w = waits.c
waits_open = Index(
    "waits_open",
    _w.topic,
    _w.seq,
    sqlite_where=_w.closed_at.is_(None),
    postgresql_where=_w.closed_at.is_(None),
)
Index("waits_topic", _w.topic, _w.seq)
Index("waits_request", _w.request)

counters = Table(
    "counters",
    metadata,
    Column("key", Key, primary_key=True),
    Column("starts_at", BigInteger, primary_key=True, autoincrement=False),
    Column("amount", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
Index("counters_starts_at", counters.c.starts_at)

readings = Table(
    "readings",
    metadata,
    Column("seq", Seq, primary_key=True, autoincrement=True),
    Column("flow", Key, nullable=False),
    Column("window", Key, nullable=False),
    Column("at", BigInteger, nullable=False),  # of the newest one
    Column("expires_at", BigInteger, nullable=False),
    Column("count", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),  # bytes of their payloads
    Column("body", LargeBinary, nullable=False),  # `codec.readings_out`
)
"""What was published lately, for prompts. A row has what one process took for one window between
two writes, so that rows are only added and removed."""
Index("readings_window", readings.c.flow, readings.c.window, readings.c.seq)
Index("readings_expires_at", readings.c.expires_at, readings.c.size)

ticks = Table(
    "ticks",
    metadata,
    Column("flow", Key, primary_key=True),
    Column("every", Text, nullable=False),  # its schedule and time zone; another one begins anew
    Column("at", BigInteger, nullable=False),  # the last time that was seen to
    sqlite_with_rowid=False,
)
"""How far each schedule has come."""

last_values = Table(
    "last_values",
    metadata,
    Column("flow", Key, primary_key=True),
    Column("conversation", Key, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("value", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
"""What flows with `on_change` asked about last."""
Index("last_values_at", last_values.c.at)

acts = Table(
    "acts",
    metadata,
    Column("seq", Seq, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("act", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("result", Text, nullable=False),  # "ok" or an error code
)
"""Who did what."""

paused = Table(
    "paused",
    metadata,
    Column("kind", Key, primary_key=True),  # flow, provider
    Column("name", Key, primary_key=True),
    Column("since", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    sqlite_with_rowid=False,
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Key, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("beat_at", BigInteger, nullable=False),  # its last sign of life
    Column("ended_at", BigInteger),
    Column("looked_at", BigInteger, nullable=False),  # requests
    Column("done", BigInteger, nullable=False),
    Column("error", Text),
)
"""Acts on many requests, and how far they are."""

rollup = Table(
    "rollup",
    metadata,
    Column("at", BigInteger, primary_key=True, autoincrement=False),  # start of a minute
    Column("flow", Key, primary_key=True),
    Column("state", Key, primary_key=True),
    Column("bucket", Integer, primary_key=True, autoincrement=False),  # of the time to the reply
    Column("count", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cost", Double, nullable=False),
    sqlite_with_rowid=False,
)
"""Ended requests by minute. A row of flow "" and state "" says that its minute is counted."""
