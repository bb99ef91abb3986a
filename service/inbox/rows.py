"""Rows of `requests` as the values that leave the store."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func

from service.domain import Claimed, State, Usage
from service.inbox import codec
from service.inbox.tables import requests
from service.inbox.values import Memory, Row

_r = requests.c
PREVIEW = 400
NOTHING = Memory()

claimed_columns = (
    _r.seq, _r.fence, _r.id, _r.flow, _r.conversation, _r.ordered, _r.state, _r.message,
    _r.payload, _r.accepted_at, _r.deadline, _r.publish, _r.claims, _r.tries, _r.attempts,
    _r.steps, _r.outbox, _r.outcome,
)  # fmt: skip

_size = func.length(_r.payload).label("payload_size")
_row_columns = (
    _r.seq, _r.id, _r.flow, _r.conversation, _r.ordered, _r.state, _r.message, _size,
    _r.accepted_at, _r.deadline, _r.not_before, _r.publish, _r.claims, _r.tries, _r.attempts,
    _r.outcome, _r.reply, _r.model, _r.prompt_tokens, _r.completion_tokens, _r.error_code,
    _r.error_message, _r.delivered, _r.answered_at, _r.ended_at,
)  # fmt: skip
full_columns = (*_row_columns, _r.payload, _r.steps, _r.outbox)
listed_columns = (
    *_row_columns,
    func.coalesce(func.substr(_r.payload, 1, PREVIEW), b"").label("payload"),
)


def to_claimed(row: Any, memory: Memory = NOTHING) -> Claimed:
    flow, conversation = codec.names_in(row.message, row.flow, row.conversation)
    return Claimed(
        seq=row.seq,
        fence=row.fence,
        id=row.id,
        flow=flow,
        conversation=conversation,
        ordered=row.ordered,
        state=State(row.state),
        message=codec.message_in(row.message, row.payload),
        accepted_at=row.accepted_at,
        deadline=row.deadline,
        publish=row.publish,
        claims=row.claims,
        tries=row.tries,
        attempts=codec.attempts_in(row.attempts),
        steps=codec.steps_in(row.steps),
        outbox=codec.outbox_in(row.outbox),
        outcome=codec.state_in(row.outcome),
        turns=memory.turns,
        cooldown_until=memory.cooldown_until,
    )


def to_row(row: Any, *, full: bool) -> Row:
    flow, conversation = codec.names_in(row.message, row.flow, row.conversation)
    return Row(
        seq=row.seq,
        id=row.id,
        flow=flow,
        conversation=conversation,
        ordered=row.ordered,
        state=State(row.state),
        message=codec.message_in(row.message, row.payload or b""),  # substr of nothing: NULL
        payload_size=row.payload_size,
        accepted_at=row.accepted_at,
        deadline=row.deadline,
        not_before=row.not_before,
        publish=row.publish,
        claims=row.claims,
        tries=row.tries,
        attempts=codec.attempts_in(row.attempts),
        steps=codec.steps_in(row.steps) if full else (),
        outbox=codec.outbox_in(row.outbox) if full else (),
        outcome=codec.state_in(row.outcome),
        reply=codec.text_in(row.reply) if row.reply is not None else None,
        model=row.model,
        usage=Usage(row.prompt_tokens or 0, row.completion_tokens or 0),
        error_code=row.error_code,
        error_message=row.error_message,
        delivered=row.delivered,
        answered_at=row.answered_at,
        ended_at=row.ended_at,
    )
