"""Limits of a flow: reserved before the model is asked, corrected by what was really used."""

from __future__ import annotations

import logging

from service.answering.job import Job, stored
from service.domain import Claimed, Reservation
from service.errors import StoreError
from service.flows import Flow
from service.inbox import Store

DAY_MS = 86_400_000
REPLY_TOKENS = 500  # reserved for a reply where the flow sets no max_tokens
_TOKENS = "tokens:"

log = logging.getLogger("emqx-gpt.answering")


def reservations(flow: Flow, claimed: Claimed, tokens: int, now: int) -> list[Reservation]:
    """What this request takes; `tokens` estimates its prompt. Pure.

    A request counts once, however often it is tried; its tokens count at each attempt.
    """
    wanted = []
    if flow.limit is not None and not claimed.attempts:
        window = _window(now, flow.limit.per)
        key = f"limit:{flow.name}:{claimed.conversation}"
        wanted.append(Reservation(key, window, 1, flow.limit.count))
    if flow.client_limit is not None and not claimed.attempts:
        window = _window(now, flow.client_limit.per)
        key = f"client:{flow.name}:{claimed.message.clientid or ''}"
        wanted.append(Reservation(key, window, 1, flow.client_limit.count))
    if flow.daily_tokens is not None:
        amount = tokens + (flow.max_tokens or REPLY_TOKENS)
        window = now - now % DAY_MS
        wanted.append(Reservation(f"{_TOKENS}{flow.name}", window, amount, flow.daily_tokens))
    return wanted


def _window(now: int, per: float) -> int:
    width = max(1, int(per * 1000))
    return now - now % width


def told(key: str) -> str:
    """What the sender hears of the limit with this key."""
    if key.startswith(_TOKENS):
        return "this flow has used up its tokens for today"
    return "too many requests, wait a little"


class Allowance:
    """What one attempt takes of the limits, and gives back as far as it was not used."""

    def __init__(self, store: Store, job: Job, tokens: int, now: int) -> None:
        self._store = store
        self._wanted = reservations(job.flow, job.claimed, tokens, now)
        # A worker that died with this request had reserved for it.
        self._fresh = job.claimed.claims == 1

    async def take(self) -> str | None:
        """All of it or nothing; the key that is over its limit, or None."""
        if not self._wanted or not self._fresh:
            return None
        return await stored(self._store.reserve, self._wanted)

    async def settle(self, used: int | None) -> None:
        """`used` tokens; None: the model was not asked, so nothing counts."""
        for one in self._wanted:
            if one.key.startswith(_TOKENS):
                delta = (used or 0) - one.amount
            elif used is None and self._fresh:
                delta = -one.amount
            else:
                continue
            try:
                await self._store.settle(one.key, one.window, delta)
            except StoreError as error:  # an answer is worth more than its count
                log.warning("%s could not be settled: %s", one.key, error)
