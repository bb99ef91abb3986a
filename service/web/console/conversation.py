"""A conversation's requests as the exchanges of a chat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PAYLOAD = 20_000  # characters of a question that are shown
LAID_OUT = 100_000  # characters of replies that a page lays out as Markdown, the newest


def exchanges(requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Oldest first. A picture or other bytes are named, not shown."""
    made = []
    total = 0
    for request in requests:
        total += len(request["reply"] or "")
        made.append(_exchange(request) | {"laid_out": total <= LAID_OUT})
    return made[::-1]


def binary(text: str) -> bool:
    """Whether a payload that was decoded is a picture or other bytes."""
    return "\0" in text or text.count("\ufffd") > max(2, len(text) // 20)


def _exchange(request: dict[str, Any]) -> dict[str, Any]:
    question = request["payload"]
    return {
        "request": request,
        "question": None if binary(question) else question[:PAYLOAD],
        "size": len(question),
        "reply": request["reply"],
        "reasoning": request["reasoning"],
        "json": (request["reply"] or "").lstrip()[:1] in ("{", "["),
    }
