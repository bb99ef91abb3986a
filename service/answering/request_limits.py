"""Limits of requests: of a conversation and of a client. Tokens and money: `budget`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from service.answering.job import Job, retry_while_busy
from service.domain import Message, Reservation
from service.errors import BudgetError, StoreError
from service.inbox import Inbox
from service.units import Limit

LIMIT = Limit(10_000, 3600.0)
CLIENT_LIMIT = Limit(100_000, 3600.0)
"""Where a flow sets none: more than anybody needs, and an end to what runs wild. Counted in each
process for itself, so that no request waits for the database because of them."""
MOST = 200_000  # keys that are counted at once
TOO_MANY = "too many requests, wait a little"

log = logging.getLogger("emqx-gpt.answering")


def window(now: int, per: float) -> int:
    """When the window began in which `now` (ms) lies; `per` in seconds."""
    width = max(1, int(per * 1000))
    return now - now % width


class Tally:
    """Counts in memory, for limits that need not be exact over processes."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], int] = {}

    def take(self, key: str, limit: Limit, now: int) -> bool:
        """False: it would be one too many."""
        slot = (key, window(now, limit.per))
        count = self._counts.pop(slot, 0) + 1
        if len(self._counts) >= MOST:
            del self._counts[next(iter(self._counts))]
        self._counts[slot] = min(count, limit.count + 1)
        return count <= limit.count


class Limits:
    """`identity`: what of a client counts: clientid, username or address."""

    def __init__(self, store: Inbox, *, identity: str = "clientid") -> None:
        self._store = store
        self._identity = identity
        self._tally = Tally()
        self._told = False

    def client(self, message: Message) -> str:
        """Who sent it, as EMQX knows it."""
        if self._identity == "username":
            return message.username or ""
        if self._identity == "address":
            if message.peerhost is not None:
                return message.peerhost
            if message.clientid is not None and not self._told:
                self._told = True
                log.warning(
                    "CLIENT_IDENTITY is address, and the rules in EMQX do not send it: run"
                    " emqx-gpt emqx apply; client ids count until then"
                )
        return message.clientid or ""

    @contextlib.asynccontextmanager
    async def counted(self, job: Job, now: int) -> AsyncIterator[None]:
        """A request counts once, however often it is tried, and not if the model was never asked.

        Raises BudgetError.
        """
        wanted = self._wanted(job, now)
        if wanted and await retry_while_busy(self._store.reserve, wanted) is not None:
            raise BudgetError(TOO_MANY, "limit")
        try:
            yield
        finally:
            if not job.log.attempts:
                await self._give_back(wanted)

    def _wanted(self, job: Job, now: int) -> list[Reservation]:
        flow, claimed = job.flow, job.claimed
        if claimed.attempts or claimed.claims > 1:
            return []  # it was counted; a worker that died with it had reserved for it
        wanted = []
        for name, limit, usual, who in (
            ("limit", flow.limit, LIMIT, claimed.conversation),
            ("client", flow.client_limit, CLIENT_LIMIT, self.client(claimed.message)),
        ):
            key = f"{name}:{flow.name}:{who}"
            if limit is not None:
                wanted.append(Reservation(key, window(now, limit.per), 1, limit.count))
            elif not self._tally.take(key, usual, now):
                raise BudgetError(TOO_MANY, "limit")
        return wanted

    async def _give_back(self, wanted: list[Reservation]) -> None:
        for one in wanted:
            try:
                await self._store.settle(one.key, one.window, -one.amount)
            except StoreError as error:  # an answer is worth more than its count
                log.warning("%s could not be settled: %s", one.key, error)
