"""What tool calls of a request wait for, and of which nobody knows what became, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.domain import Ear, Wait
from service.inbox import Row, unsettled

TOLD = 4000  # characters of an answer that are shown


def is_open(wait: Wait, row: Row, now: int) -> bool:
    """Whether an answer would still count."""
    return wait.closed_at is None and not row.state.ended and now <= wait.until


def waits_of(row: Row, waits: Sequence[Wait], now: int) -> list[dict[str, Any]]:
    """In the order in which they began; times are epoch ms. Never a PIN, which no wait has."""
    return [_shown(wait, open=is_open(wait, row, now)) for wait in waits]


def _shown(wait: Wait, *, open: bool) -> dict[str, Any]:
    answer = None
    if wait.answer is not None:
        answer = wait.answer[: 4 * TOLD].decode("utf-8", "replace")[:TOLD]
    question = wait.ear is Ear.CONFIRM
    return {
        "call_id": wait.call_id,
        "tool": wait.rule.get("tool"),
        "ear": str(wait.ear),
        "topic": wait.topic,
        "until": wait.until,
        "open": open,
        "answer": answer,
        "answered_at": wait.answered_at,
        "closed_at": wait.closed_at,
        "by": wait.by or None,
        "tries": wait.tries,
        "late": wait.late,
        "noted": wait.noted or None,
        "asked": wait.rule.get("asked") if question else None,
        "pin": question and bool(wait.rule.get("pin_env")),
    }


def unsettled_of(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The calls of which a person has to say what became of them."""
    return [
        {"call_id": call["call_id"], "tool": call["name"], "arguments": call["arguments"]}
        for call in unsettled(steps)
    ]
