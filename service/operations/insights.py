"""The one read-model: what the API, the CLI and the metrics say of the inbox and its health."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from service.domain import Claimed, State
from service.emqx.publish_api import Emqx
from service.errors import BrokerError, Conflict, NotFound, StoreError
from service.flows import Flows
from service.inbox import Row, Store
from service.operations.metrics import Metrics

READY_CACHE = 2.0  # seconds a look at the broker counts, so that probes cost it little

log = logging.getLogger("emqx-gpt.requests")


def when(ms: int | None) -> str | None:
    """Epoch ms → ISO 8601 in UTC; None stays None. Times out of range are clamped."""
    if ms is None:
        return None
    seconds = min(max(ms / 1000, 0), 253402300799)
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def shown(row: Row, *, whole: bool) -> dict[str, Any]:
    """A request as people and programs see it; `whole` with payload, reply and attempts."""
    clientid = row.message.clientid
    document: dict[str, Any] = {
        "id": row.id,
        "seq": row.seq,
        "flow": row.flow or None,
        "conversation": row.conversation or None,
        "state": str(row.state),
        "outcome": str(row.outcome) if row.outcome else None,
        "topic": _clean(row.message.topic),
        "clientid": _clean(clientid) if clientid is not None else None,
        "accepted_at": when(row.accepted_at),
        "deadline": when(row.deadline),
        "answered_at": when(row.answered_at),
        "ended_at": when(row.ended_at),
        "tries": row.tries,
        "delivered": row.delivered,
        "model": row.model,
        "error": None,
    }
    if row.error_code:
        document["error"] = {"code": row.error_code, "message": row.error_message or ""}
    if whole:
        document["payload"] = row.message.payload.decode("utf-8", "replace")
        document["reply"] = _clean(row.reply) if row.reply is not None else None
        document["usage"] = {
            "prompt_tokens": row.usage.prompt_tokens,
            "completion_tokens": row.usage.completion_tokens,
            "total_tokens": row.usage.total_tokens,
        }
        document["attempts"] = [
            {
                "at": when(attempt.at),
                "took_ms": attempt.took_ms,
                "model": attempt.model,
                "result": attempt.result,
                "message": attempt.message,
            }
            for attempt in row.attempts
        ]
    return document


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


class Paused(Protocol):
    """A provider that may not be called now. `ok`: it only asked to wait."""

    @property
    def provider(self) -> str: ...

    @property
    def code(self) -> str: ...

    @property
    def message(self) -> str: ...

    @property
    def ok(self) -> bool: ...


class CircuitBreakers(Protocol):
    """Which providers may be called."""

    def states(self) -> Sequence[Paused]: ...


class Publisher(Protocol):
    """Who publishes: `outage` while the broker takes nothing."""

    @property
    def outage(self) -> BrokerError | None: ...


class Insights:
    """Reads for people. Live parts (gates, publisher) are None where only the CLI reads."""

    def __init__(
        self,
        store: Store,
        flows: Flows,
        *,
        now: Callable[[], int],
        gates: CircuitBreakers | None = None,
        publisher: Publisher | None = None,
        emqx: Emqx | None = None,
        metrics: Metrics | None = None,
        in_flight: Callable[[], int] = lambda: 0,
    ) -> None:
        self._store = store
        self._flows = flows
        self._now = now
        self._gates = gates
        self._publisher = publisher
        self._emqx = emqx
        self._metrics = metrics
        self._in_flight = in_flight
        self._broker: tuple[float, BrokerError | None] | None = None

    async def requests(
        self,
        *,
        state: State | None = None,
        flow: str | None = None,
        conversation: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> dict[str, Any]:
        """A page of the inbox, newest first; `next` is the `before` of the page after it."""
        rows = await self._store.requests(
            state=state, flow=flow, conversation=conversation, limit=limit, before=before
        )
        more = rows[-1].seq if len(rows) == limit else None
        return {"requests": [shown(row, whole=False) for row in rows], "next": more}

    async def request(self, id: str) -> dict[str, Any]:
        """One request, whole. Raises NotFound."""
        return shown(await self._row(id), whole=True)

    async def answered(self, id: str) -> State | None:
        """How it ends, once its reply is stored or it has ended; None before. Raises NotFound."""
        row = await self._row(id)
        if row.state.ended:
            return row.state
        return row.outcome if row.state is State.ANSWERED else None

    async def retry(self, id: str) -> dict[str, Any]:
        """A dead letter goes to the end of the queue. Raises NotFound, Conflict."""
        row = await self._row(id)
        flow = self._flows.flows.get(row.flow or "")
        seconds = flow.deadline if flow else 900.0
        if not await self._store.retry(id, deadline=self._now() + int(seconds * 1000)):
            state = (await self._row(id)).state
            raise Conflict(f"it is {state}; only failed and expired requests are retried")
        return await self.request(id)

    async def conversation(self, flow: str, conversation: str) -> dict[str, Any]:
        """A conversation's memory. Raises NotFound for an unknown flow."""
        self._known(flow)
        memory = await self._store.memory(flow, conversation, limit=1000)
        turns = [{"user": t.user, "assistant": t.assistant, "at": when(t.at)} for t in memory.turns]
        return {"flow": flow, "conversation": conversation, "turns": turns}

    async def forget(self, flow: str, conversation: str) -> dict[str, Any]:
        """Forget a conversation's memory."""
        self._known(flow)
        return {"forgotten": await self._store.forget(flow, conversation)}

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        """Able to take and answer? Each part named, with what is wrong."""
        parts: dict[str, Any] = {"database": {"ok": True}}
        try:
            await self._store.ping()
        except StoreError as error:
            parts["database"] = {"ok": False, "code": error.code, "message": error.message}
        outage = await self._outage()
        parts["broker"] = {"ok": True}
        if outage is not None:
            parts["broker"] = {"ok": False, "code": outage.code, "message": outage.message}
        closed = sorted(self._gates.states() if self._gates else [], key=lambda one: one.ok)
        parts["model"] = {"ok": all(one.ok for one in closed)}
        if closed:
            parts["model"] |= {"code": closed[0].code, "message": closed[0].message}
            parts["model"]["providers"] = [one.provider for one in closed]
        return all(part["ok"] for part in parts.values()), parts

    async def metrics(self) -> bytes:
        """Prometheus' text, gauges as of now."""
        if self._metrics is None:
            return b""
        try:
            stats = await self._store.stats()
        except StoreError as error:  # what else there is to see matters most just then
            log.debug("no figures of the backlog: %s", error.message)
        else:
            self._metrics.backlog.set(stats.open)
            oldest = stats.oldest_at
            age = 0.0 if oldest is None else max(0.0, (self._now() - oldest) / 1000)
            self._metrics.backlog_age.set(age)
        self._metrics.in_flight.set(self._in_flight())
        return self._metrics.text()

    def ended(self, claimed: Claimed, state: State, error: str | None) -> None:
        """A request has ended: one log line, and the counters."""
        took = max(0, self._now() - claimed.accepted_at) / 1000
        flow = claimed.flow or ""
        if self._metrics is not None:
            known = flow if flow in self._flows.flows else ""
            self._metrics.ended.labels(known, str(state), error or "").inc()
            self._metrics.stage.labels("total").observe(took)
        level = logging.WARNING if state in (State.FAILED, State.EXPIRED) else logging.INFO
        log.log(
            level,
            "request %s %s flow=%s took=%.3fs%s",
            claimed.id,
            state,
            flow or "-",
            took,
            f" error={error}" if error else "",
        )

    async def _row(self, id: str) -> Row:
        row = await self._store.request(id)
        if row is None:
            raise NotFound(f"no request {id!r}; ended ones are removed after RETENTION")
        return row

    def _known(self, flow: str) -> None:
        if flow not in self._flows.flows:
            raise NotFound(f"no flow {flow!r}; there are: {', '.join(self._flows.flows)}")

    async def _outage(self) -> BrokerError | None:
        if self._publisher is not None and self._publisher.outage is not None:
            return self._publisher.outage
        if self._emqx is None:
            return None
        if self._broker is None or time.monotonic() - self._broker[0] > READY_CACHE:
            error = None
            try:
                await self._emqx.ping()
            except BrokerError as failure:
                error = failure
            self._broker = (time.monotonic(), error)
        return self._broker[1]
