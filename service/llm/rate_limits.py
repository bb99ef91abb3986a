"""What servers say of their limits beside an answer (x-ratelimit-*). Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from service.llm.failures import seconds

_NAMES = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-limit-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining", "x-ratelimit-limit", "x-ratelimit-reset"),
)


@dataclass(frozen=True, slots=True)
class Granted:
    """Calls left of how many, and the seconds until all of them are there again."""

    remaining: int
    limit: int | None = None
    reset: float | None = None

    @classmethod
    def read(cls, headers: Mapping[str, str]) -> Granted | None:
        for remaining, limit, reset in _NAMES:
            if (left := headers.get(remaining)) is None:
                continue
            with contextlib.suppress(ValueError):
                until = seconds(headers.get(reset) or "")
                if until is not None and until > 86_400:
                    until = None  # a point in time
                total = headers.get(limit) or ""
                return cls(int(left), int(total) if total.isdigit() else None, until)
        return None
