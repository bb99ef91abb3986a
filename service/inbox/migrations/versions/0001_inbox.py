"""The inbox: requests, conversations, turns, counters."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

KEY = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _partial(name: str, table: str, columns: list[str], where: str, sqlite: str = "") -> None:
    op.create_index(
        name,
        table,
        columns,
        postgresql_where=sa.text(where),
        sqlite_where=sa.text(sqlite or where),
    )


def upgrade() -> None:
    op.create_table(
        "requests",
        sa.Column("seq", SEQ, primary_key=True, autoincrement=True),
        sa.Column("id", KEY, nullable=False),
        sa.Column("flow", KEY, nullable=False),
        sa.Column("scope", KEY, nullable=False),
        sa.Column("dedupe", KEY, nullable=False),
        sa.Column("conversation", KEY, nullable=False),
        sa.Column("ordered", sa.Boolean, nullable=False),
        sa.Column("order_at", sa.BigInteger, nullable=False),
        sa.Column("order_id", KEY, nullable=False),
        sa.Column("accepted_at", sa.BigInteger, nullable=False),
        sa.Column("deadline", sa.BigInteger, nullable=False),
        sa.Column("not_before", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("claims", sa.Integer, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("lease_until", sa.BigInteger),
        sa.Column("publish", sa.Boolean, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("clientid", sa.Text),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("message", sa.LargeBinary, nullable=False),
        sa.Column("attempts", sa.LargeBinary),
        sa.Column("steps", sa.LargeBinary),
        sa.Column("outbox", sa.LargeBinary),
        sa.Column("outcome", sa.Text),
        sa.Column("reply", sa.LargeBinary),
        sa.Column("model", sa.Text),
        sa.Column("prompt_tokens", sa.BigInteger),
        sa.Column("completion_tokens", sa.BigInteger),
        sa.Column("error_code", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("delivered", sa.Boolean),
        sa.Column("answered_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
        sa.UniqueConstraint("id", name="requests_id"),
        sa.UniqueConstraint("scope", "dedupe", name="requests_dedupe"),
        sqlite_autoincrement=True,
    )
    queued = "state = 'queued'"
    _partial(
        "requests_line",
        "requests",
        ["flow", "conversation", "order_at", "order_id", "seq"],
        f"{queued} AND ordered",
        f"{queued} AND ordered = 1",
    )
    _partial(
        "requests_loose",
        "requests",
        ["flow", "not_before", "seq"],
        f"{queued} AND NOT ordered",
        f"{queued} AND ordered = 0",
    )
    _partial("requests_unresolved", "requests", ["scope", "seq"], f"{queued} AND flow = ''")
    _partial("requests_deadline", "requests", ["deadline", "seq"], queued)
    _partial("requests_leased", "requests", ["state", "lease_until"], "lease_until IS NOT NULL")
    _partial("requests_open", "requests", ["seq"], "ended_at IS NULL")
    _partial("requests_ended", "requests", ["ended_at"], "ended_at IS NOT NULL")
    _partial("requests_outcome", "requests", ["state", "seq"], "ended_at IS NOT NULL")
    op.create_index("requests_conversation", "requests", ["flow", "conversation", "seq"])
    op.create_table(
        "conversations",
        sa.Column("flow", KEY, primary_key=True),
        sa.Column("conversation", KEY, primary_key=True),
        sa.Column("next_at", sa.BigInteger),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("active_seq", sa.BigInteger),
        sa.Column("cooldown_until", sa.BigInteger),
        sqlite_with_rowid=False,
    )
    _partial(
        "conversations_next", "conversations", ["flow", "next_at", "since"], "next_at IS NOT NULL"
    )
    op.create_table(
        "turns",
        sa.Column("seq", SEQ, primary_key=True, autoincrement=True),
        sa.Column("flow", KEY, nullable=False),
        sa.Column("conversation", KEY, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("text", sa.LargeBinary, nullable=False),
    )
    op.create_index("turns_conversation", "turns", ["flow", "conversation", "seq"])
    op.create_table(
        "counters",
        sa.Column("key", KEY, primary_key=True),
        sa.Column("starts_at", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("counters_starts_at", "counters", ["starts_at"])
    if op.get_bind().dialect.name == "postgresql":
        # Rows change state several times a second; the fronts of the indexes stay short.
        for table in ("requests", "conversations", "turns"):
            op.execute(
                f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.02,"
                " autovacuum_vacuum_insert_scale_factor = 0.1,"
                " autovacuum_analyze_scale_factor = 0.05)"
            )
