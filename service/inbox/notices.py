"""What replicas tell each other through PostgreSQL's NOTIFY, within its 8,000 bytes."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select

from service.domain import State
from service.inbox import codec
from service.inbox.rows import Change, Notice
from service.inbox.sql import Tx, listed_texts

CHANNEL = "emqx_gpt"
_ROOM = 7000


def pack(origin: str, wake: bool, changes: Sequence[Change]) -> list[str]:
    """As many texts as it takes. What needs no telling gives none."""
    texts, rows, size = [], list[bytes](), 0
    for change in changes:
        conversation = codec.key(change.conversation)
        row = codec.dumps([change.id, change.flow, conversation, change.state.value])
        if size + len(row) > _ROOM:
            texts.append(_text(origin, wake, rows))
            rows, size = [], 0
        rows.append(row)
        size += len(row) + 1
    if rows or (wake and not texts):
        texts.append(_text(origin, wake, rows))
    return texts


def _text(origin: str, wake: bool, rows: list[bytes]) -> str:
    head = codec.dumps([origin, wake])[:-1]
    return (head + b",[" + b",".join(rows) + b"]]").decode()


def unpack(text: str) -> Notice:
    origin, wake, rows = codec.loads(text.encode())
    changes = tuple(Change(id, flow, conv, State(state)) for id, flow, conv, state in rows)
    return Notice(origin, wake, changes)


_texts = listed_texts(True, "texts")
_NOTIFY = select(func.pg_notify(CHANNEL, _texts.c.value))


def send(tx: Tx, origin: str) -> None:
    """Told by the server at commit, and only then."""
    if told := pack(origin, tx.wake, tx.changes):
        tx.run(_NOTIFY, {"texts": told})
