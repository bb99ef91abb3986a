"""Requests by the clock: each tick of a flow's `every` becomes one, whatever number of processes
see it. The database decides whose it is; here it is only seen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import orjson

from service.answering.intake import new_id
from service.domain import Entry, Message
from service.errors import StoreError
from service.flows import Catalogue, Flow
from service.inbox import Inbox
from service.inbox.ticks import AHEAD
from service.operations.metrics import Metrics

POLL = 1.0  # seconds
LATE = 60_000  # ms after which a tick was missed

log = logging.getLogger("emqx-gpt.schedule")


@dataclass(slots=True)
class _Scheduled:
    """A schedule, the last tick of it that was seen to, and the next one (ms)."""

    said: str
    last: int
    next: int | None


class Schedule:
    """The schedules of all flows. `now` gives epoch ms."""

    def __init__(
        self, flows: Catalogue, store: Inbox, metrics: Metrics, *, now: Callable[[], int]
    ) -> None:
        self._flows = flows
        self._store = store
        self._metrics = metrics
        self._now = now
        self._known: dict[str, _Scheduled] = {}
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
                self._failing = False
            except StoreError as error:
                if not self._failing:
                    log.error("schedules wait for the database: %s", error.message)
                self._failing = True
            except Exception:
                log.exception("an internal error in a schedule")
            await asyncio.sleep(POLL)

    async def look(self) -> None:
        """See to what is due now. Raises StoreError."""
        for flow in self._flows.flows.values():
            if flow.every is None:
                continue
            now = self._now()
            known = self._known.get(flow.name)
            if known is None or known.said != _said(flow) or known.last > now + AHEAD:
                last = await self._store.schedule(flow.name, _said(flow))
                known = self._known[flow.name] = self._from(flow, last)
            if known.next is not None and known.next <= now:
                await self._due(flow, known, now)

    async def hurry(self, name: str) -> bool:
        """See to a flow's next time as if it had come; False: it has none. Raises StoreError."""
        await self.look()
        flow, known = self._flows.flows[name], self._known[name]
        if known.next is None:
            return False
        entry = _entry(flow, known.next, self._now())
        await self._store.tick(name, known.said, known.next, entry)
        self._known[name] = self._from(flow, known.next)
        self._metrics.accepted.labels(name).inc()
        return True

    def _from(self, flow: Flow, last: int) -> _Scheduled:
        assert flow.every is not None
        return _Scheduled(_said(flow), last, flow.every.after(last, flow.timezone))

    async def _due(self, flow: Flow, known: _Scheduled, now: int) -> None:
        """Of several that were missed only the last one counts."""
        assert flow.every is not None
        at = flow.every.last(known.last, now, flow.timezone)
        if at is None:
            return
        late = now - at > LATE
        entry = None if late and flow.missed == "skip" else _entry(flow, at, now)
        mine = await self._store.tick(flow.name, _said(flow), at, entry)
        self._known[flow.name] = self._from(flow, at)
        if not mine:
            return
        when = datetime.fromtimestamp(at / 1000, ZoneInfo(flow.timezone)).isoformat()
        if entry is None:
            log.warning("flow %s: missed at %s, and not made up for", flow.name, when)
            return
        self._metrics.accepted.labels(flow.name).inc()
        log.info("flow %s: due at %s%s", flow.name, when, ", late" if late else "")


def _said(flow: Flow) -> str:
    """What a schedule is; another one begins anew."""
    return f"{flow.every} {flow.timezone}"


def _entry(flow: Flow, at: int, now: int) -> Entry:
    """The request of a tick. Its message says when it was due, in the flow's time zone."""
    when = datetime.fromtimestamp(at / 1000, ZoneInfo(flow.timezone))
    payload = {
        "at": when.isoformat(),
        "date": when.date().isoformat(),
        "time": when.strftime("%H:%M"),
        "weekday": when.strftime("%A"),
    }
    id = new_id(now)
    message = Message(
        id=id,
        topic=flow.request[0].text,
        payload=orjson.dumps(payload),
        received_at=now,
        flow=flow.name,
    )
    return Entry(
        id=id,
        flow=flow.name,
        dedupe=f"every:{at}",
        conversation=flow.conversation_of(message, {}),
        ordered=flow.ordered,
        message=message,
        accepted_at=now,
        deadline=now + int(flow.deadline * 1000),
    )
