"""Tokens and money of a day: reserved before each model call by what it could take at most,
settled after it by what was billed.

The installation's own budgets (DAILY_TOKENS, DAILY_USD) are drawn from the database in portions,
so that a call seldom waits for it; those of a flow are exact at each call. What is reserved is
counted before it is spent, so no number of calls at once, in any number of processes, overspends;
what a process had drawn when it was killed counts as spent until the day (UTC) ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import orjson

from service.answering.job import retry_while_busy
from service.domain import Reservation, Spent, Usage
from service.errors import BudgetError, StoreError
from service.flows import Catalogue, Flow
from service.inbox import Inbox
from service.llm.chat_completions import LIMITS, Question
from service.llm.prices import Billing

DAY_MS = 86_400_000
MAX_TOKENS = 16_000  # tokens of an answer, where a flow sets no max_tokens
IMAGE_TOKENS = 4_000  # what a picture takes at most, with all but the smallest of mini models
MESSAGE_TOKENS = 16  # around each message and tool
PORTION = 100  # a process draws such a part of a budget at once
MICRO = 1_000_000  # money is counted in millionths of a US dollar
_SENT = ("tools", "response_format")
TOKENS, USD = "tokens", "usd"

log = logging.getLogger("emqx-gpt.answering")


def cap_of(flow: Flow) -> int:
    """The longest answer that is asked for where the flow sets no max_tokens. Of a small
    `daily_tokens` each call may take an eighth."""
    if flow.daily_tokens is None:
        return MAX_TOKENS
    return max(256, min(MAX_TOKENS, flow.daily_tokens // 8))


def most(question: Question) -> Usage:
    """What a call takes at most: no tokenizer makes more tokens of a text than it has bytes."""
    told = 0
    for message in question.messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, dict) and part.get("type") == "image_url":
                told += IMAGE_TOKENS
            else:
                text = part.get("text") if isinstance(part, dict) else part
                told += len(str(text or "").encode("utf-8", "replace"))
        rest = {key: value for key, value in message.items() if key != "content"}
        told += MESSAGE_TOKENS + (_size(rest) if len(rest) > 1 else 0)
    tools = question.options.get("tools") or ()
    told += sum(_size(question.options[key]) for key in _SENT if key in question.options)
    told += MESSAGE_TOKENS * len(tools)
    given = next((question.options[name] for name in LIMITS if name in question.options), None)
    said = question.max_tokens or (given if isinstance(given, int) else question.cap) or MAX_TOKENS
    choices = question.options.get("n")
    return Usage(told, said * (choices if isinstance(choices, int) and choices > 1 else 1))


def _size(value: object) -> int:
    try:
        return len(orjson.dumps(value))
    except TypeError:  # a lone surrogate
        return len(str(value).encode("utf-8", "replace"))


def micro(usd: float | None) -> int:
    """Millionths of a dollar, rounded up."""
    return -int(-(usd or 0.0) * MICRO // 1)


class Drawn:
    """A budget of the whole installation, of which this process has drawn a portion."""

    def __init__(self, store: Inbox, name: str, limit: int, say: str) -> None:
        self._store = store
        self.key = f"budget:{name}"
        self.limit = limit
        self._say = say
        self._left = 0
        self._window = -1
        self._told = -1
        self._drawing = asyncio.Lock()

    async def take(self, amount: int, window: int) -> bool:
        """False: there is not so much left today."""
        if self.limit <= 0 or amount <= 0:
            return True
        if self._has(amount, window):
            return True
        async with self._drawing:  # one draws for all who wait
            if self._has(amount, window):
                return True
            missing = amount - self._left
            for wanted in (missing + self.limit // PORTION, missing):
                order = Reservation(self.key, window, wanted, self.limit)
                if await retry_while_busy(self._store.reserve, [order]) is None:
                    self._left += wanted
                    return self._has(amount, window)
        if self._told != window:
            self._told = window
            log.warning("%s is used up for today: no model is asked until 00:00 UTC", self._say)
        return False

    def _has(self, amount: int, window: int) -> bool:
        if window != self._window:
            self._window, self._left = window, 0
        if self._left < amount:
            return False
        self._left -= amount
        return True

    def left(self, window: int) -> int:
        """What this process has drawn of it and not used."""
        return self._left if window == self._window else 0

    def give_back(self, amount: int, window: int) -> None:
        """What was taken and not used; less than nothing: more was used."""
        if window == self._window and self.limit > 0:
            self._left += amount

    async def close(self) -> None:
        """What this process has left is there for others again."""
        left, self._left = self._left, 0
        if left:
            await _settle(self._store, self.key, self._window, -left)


@dataclass(slots=True)
class HeldBudget:
    """What is reserved for one call."""

    budgets: Budgets
    window: int
    tokens: int
    micro_usd: int
    exact: list[tuple[Reservation, str]] = field(default_factory=list)

    async def settle(self, usage: Usage | None) -> None:
        """What the call took. None: it may have been billed, and nobody knows for how much: what
        is reserved stays spent."""
        if usage is None:
            return
        await self.budgets.settle(self, usage)


class Budgets:
    """All of them. `now` gives epoch ms, `usd` is in US dollars; 0: no limit."""

    def __init__(
        self,
        store: Inbox,
        flows: Catalogue,
        prices: Billing | None,
        *,
        tokens: int,
        usd: float,
        now: Callable[[], int],
    ) -> None:
        self._store = store
        self._flows = flows
        self._prices = prices
        self._now = now
        self._tokens = Drawn(store, TOKENS, tokens, "DAILY_TOKENS")
        self._usd = Drawn(store, USD, micro(usd), "DAILY_USD")

    async def reserve(self, flow: str, question: Question) -> HeldBudget:
        """Raises BudgetError."""
        bound = most(question)
        now = self._now()
        window = now - now % DAY_MS
        cost = self._prices.billed(question.model, bound).cost if self._prices else None
        held = HeldBudget(self, window, bound.total_tokens, micro(cost))
        held.exact = self._of_flow(self._flows.flows.get(flow), held)
        if held.exact:
            orders = [order for order, _ in held.exact]
            over = await retry_while_busy(self._store.reserve, orders)
            if over is not None:
                about = next(name for order, name in held.exact if order.key == over)
                what = "tokens" if about == "daily_tokens" else "money"
                raise BudgetError(f"this flow has used up its {what} for today", about)
        if not await self._tokens.take(held.tokens, window):
            await self.settle(held, Usage(), drawn=False)
            raise BudgetError("all tokens of today are used up", "daily_tokens")
        if not await self._usd.take(held.micro_usd, window):
            self._tokens.give_back(held.tokens, window)
            await self.settle(held, Usage(), drawn=False)
            raise BudgetError("all money of today is used up", "daily_usd")
        return held

    def _of_flow(self, flow: Flow | None, held: HeldBudget) -> list[tuple[Reservation, str]]:
        if flow is None:
            return []
        wanted = []
        if flow.daily_tokens is not None:
            order = Reservation(
                f"{TOKENS}:{flow.name}", held.window, held.tokens, flow.daily_tokens
            )
            wanted.append((order, "daily_tokens"))
        if flow.daily_usd is not None:
            limit = micro(flow.daily_usd)
            order = Reservation(f"{USD}:{flow.name}", held.window, held.micro_usd, limit)
            wanted.append((order, "daily_usd"))
        return wanted

    async def settle(self, held: HeldBudget, usage: Usage, *, drawn: bool = True) -> None:
        """Correct what was reserved by what was used."""
        tokens, usd = usage.total_tokens, micro(usage.cost)
        for order, about in held.exact:
            used = tokens if about == "daily_tokens" else usd
            if used != order.amount:
                await _settle(self._store, order.key, order.window, used - order.amount)
        if drawn:
            self._tokens.give_back(held.tokens - tokens, held.window)
            self._usd.give_back(held.micro_usd - usd, held.window)

    async def spent(self) -> Sequence[Spent]:
        """How far each budget of today is used. What other processes have drawn and not used,
        about 1 % each, counts as used. Raises StoreError."""
        now = self._now()
        window = now - now % DAY_MS
        wanted = [
            (unit, "", one.key, one.limit, one.left(window))
            for unit, one in ((TOKENS, self._tokens), (USD, self._usd))
            if one.limit > 0
        ]
        for flow in self._flows.flows.values():
            nothing = HeldBudget(self, window, 0, 0)
            for order, _ in self._of_flow(flow, nothing):
                unit = order.key.partition(":")[0]
                wanted.append((unit, flow.name, order.key, order.limit, 0))
        used = await self._store.amounts([key for _, _, key, _, _ in wanted], window)
        return [
            Spent("tokens", flow, used.get(key, 0) - left, limit)
            if unit == TOKENS
            else Spent("dollars", flow, (used.get(key, 0) - left) / MICRO, limit / MICRO)
            for unit, flow, key, limit, left in wanted
        ]

    async def close(self) -> None:
        """What this process had drawn and not used goes back."""
        await self._tokens.close()
        await self._usd.close()


async def _settle(store: Inbox, key: str, window: int, delta: int) -> None:
    try:
        await store.settle(key, window, delta)
    except StoreError as error:  # an answer is worth more than its count
        log.warning("%s could not be settled: %s", key, error)
