"""Limits of a flow as counters to reserve before the model is asked. Pure."""

from __future__ import annotations

from service.flows import Flow
from service.model import Claimed, Reservation

DAY_MS = 86_400_000
REPLY_TOKENS = 500  # reserved for a reply where the flow sets no max_tokens


def reservations(flow: Flow, claimed: Claimed, tokens: int, now: int) -> list[Reservation]:
    """What this request takes; `tokens` estimates its prompt."""
    wanted = []
    if flow.limit is not None:
        window = _window(now, flow.limit.per)
        key = f"limit:{flow.name}:{claimed.conversation}"
        wanted.append(Reservation(key, window, 1, flow.limit.count))
    if flow.client_limit is not None:
        window = _window(now, flow.client_limit.per)
        key = f"client:{flow.name}:{claimed.message.clientid or ''}"
        wanted.append(Reservation(key, window, 1, flow.client_limit.count))
    if flow.daily_tokens is not None:
        amount = tokens + (flow.max_tokens or REPLY_TOKENS)
        window = now - now % DAY_MS
        wanted.append(Reservation(f"tokens:{flow.name}", window, amount, flow.daily_tokens))
    return wanted


def _window(now: int, per: float) -> int:
    width = max(1, int(per * 1000))
    return now - now % width
