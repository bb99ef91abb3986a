"""Limits of a flow: reserved before the model is asked, corrected by what was really used."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from service.answering import prompt
from service.answering.job import Job, stored
from service.domain import Claimed, Reservation
from service.errors import StoreError
from service.flows import Flow
from service.inbox import Inbox

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


class OverLimit(Exception):
    """A limit of the flow is used up; `message` is for the sender, `about` names it."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.about = "limit"
        self.message = "too many requests, wait a little"
        if key.startswith(_TOKENS):
            self.about = "daily_tokens"
            self.message = "this flow has used up its tokens for today"


class Allowance:
    """What one attempt takes of the limits while entered; what it did not use goes back."""

    def __init__(
        self, store: Inbox, job: Job, messages: Sequence[Mapping[str, Any]], now: int
    ) -> None:
        self._store = store
        self._log = job.log
        self._estimate = prompt.estimate_of(messages) if job.flow.daily_tokens is not None else 0
        self._wanted = reservations(job.flow, job.claimed, self._estimate, now)
        # A worker that died with this request had reserved for it.
        self._fresh = job.claimed.claims == 1

    async def __aenter__(self) -> Allowance:
        """All of it or nothing. Raises OverLimit."""
        if self._wanted and self._fresh:
            over = await stored(self._store.reserve, self._wanted)
            if over is not None:
                raise OverLimit(over)
        return self

    def said(self, text: str) -> None:
        """What the model said: some servers do not count what they stream."""
        self._estimate += prompt.estimate(text)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        asked = kind is None or bool(self._log.attempts)
        used = self._log.usage.total_tokens or (self._estimate if kind is None else 0)
        for one in self._wanted:
            if one.key.startswith(_TOKENS):
                delta = used - one.amount
            elif not asked and self._fresh:
                delta = -one.amount
            else:
                continue
            try:
                await self._store.settle(one.key, one.window, delta)
            except StoreError as error:  # an answer is worth more than its count
                log.warning("%s could not be settled: %s", one.key, error)
