"""A conversation's requests as the exchanges of a chat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PAYLOAD = 20_000  # characters of a question that are shown


def exchanges(requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Oldest first. A picture or other bytes are named, not shown."""
    return [_exchange(one) for one in reversed(requests)]


def _exchange(request: dict[str, Any]) -> dict[str, Any]:
    question = request["payload"]
    binary = question.count("\ufffd") > max(2, len(question) // 20) or "\0" in question
    return {
        "request": request,
        "question": None if binary else question[:PAYLOAD],
        "size": len(question),
        "reply": request["reply"],
        "reasoning": request["reasoning"],
        "json": (request["reply"] or "").lstrip()[:1] in ("{", "["),
    }
