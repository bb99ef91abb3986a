"""What a server counted for an answer, in every server's words. Pure.

`prompt_tokens` are all tokens sent, `cached_tokens` and `cache_write_tokens` parts of them;
`completion_tokens` are all that is billed as output, reasoning included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.domain import Usage

_MOST = 20_000_000
"""Tokens: ten times what any context holds. A larger number is a mistake, or meant to use up
a budget."""


def usage_of(answer: Mapping[str, Any]) -> Usage:
    """The usage of a whole answer or of a stream's event; nothing where it counted none."""
    raw = answer.get("usage")
    if not isinstance(raw, dict):
        return Usage()
    told = _count(raw, "prompt_tokens", "input_tokens")
    said = _count(raw, "completion_tokens", "output_tokens")
    details = _table(raw, "prompt_tokens_details", "input_tokens_details")
    cached = _count(details, "cached_tokens") or _count(
        raw, "cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens"
    )
    written = _count(details, "cache_write_tokens", "cache_creation_tokens") or _count(
        raw, "cache_write_tokens", "cache_creation_input_tokens"
    )
    if "input_tokens" in raw and "cache_read_input_tokens" in raw:
        told += cached + written  # Anthropic's own words leave them out of input_tokens
    missing = _count(raw, "prompt_cache_miss_tokens")
    told = max(told, cached + missing, cached + written)
    # Gemini and xAI leave reasoning out of completion_tokens, but not out of the total.
    said = max(said, _count(raw, "total_tokens") - told)
    tier = answer.get("service_tier")
    return Usage(
        told,
        said,
        cached,
        written,
        tier=tier if isinstance(tier, str) else "",
        cost=_cost(raw.get("cost")),
    )


def _table(raw: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    return next((raw[name] for name in names if isinstance(raw.get(name), dict)), {})


def _count(raw: Mapping[str, Any], *names: str) -> int:
    """The first of these that is there."""
    for name in names:
        value = raw.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST:
            return int(value)
    return 0


def _cost(value: Any) -> float | None:
    """US dollars, where the server says them (OpenRouter, Perplexity)."""
    if isinstance(value, dict):
        value = value.get("total_cost")
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 10_000
    return float(value) if good else None
