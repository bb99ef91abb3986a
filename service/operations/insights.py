"""The one read-model: what the API and the CLI show of requests and conversations."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from service.domain import State
from service.errors import NotFound
from service.flows import Catalogue, Flow
from service.inbox import Filter, Inbox, Row, epoch_ms
from service.operations.timeline import Stopped, timeline
from service.operations.waiting import unsettled_of, waits_of

LINE = 400  # bytes or characters of question and reply in a list


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
        "text": row.message.payload[:LINE].decode("utf-8", "replace"),
        "said": None if row.reply is None else _clean(row.reply[:LINE]),
        "clientid": _clean(clientid) if clientid is not None else None,
        "accepted_at": when(row.accepted_at),
        "deadline": when(row.deadline),
        "answered_at": when(row.answered_at),
        "ended_at": when(row.ended_at),
        "tries": row.tries,
        "delivered": row.delivered,
        "held_until": when(row.held_until if row.held_at is not None else None),
        "model": row.model,
        "cost": row.usage.cost,
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
        for name in ("cached_tokens", "cache_write_tokens"):  # most servers have no such thing
            if count := getattr(row.usage, name):
                document["usage"][name] = count
        document["reasoning"] = _clean(row.reasoning) if row.reasoning is not None else None
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


def cleaned(value: Any) -> Any:
    """The same without what no JSON may hold."""
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, dict):
        return {_clean(key): cleaned(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(one) for one in value]
    return value


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


class Insights:
    """Reads for people; changes nothing. `stopped` says why a flow asks nobody now: a reason, and
    the code of the error behind it."""

    def __init__(
        self,
        store: Inbox,
        flows: Catalogue,
        *,
        now: Callable[[], int] = epoch_ms,
        stopped: Callable[[Flow], Stopped] = lambda flow: None,
    ) -> None:
        self._store = store
        self._flows = flows
        self._now = now
        self._stopped = stopped

    async def requests(
        self,
        wanted: Filter,
        *,
        limit: int = 50,
        before: int | None = None,
    ) -> dict[str, Any]:
        """A page of the inbox, newest first; `next` is the `before` of the page after it, and
        `looked_to` how far back this one looked where it did not come to its end."""
        page = await self._store.find(wanted, limit=limit, before=before)
        return {
            "requests": [shown(row, whole=False) for row in page.rows],
            "next": page.next,
            "looked_to": when(page.looked_to),
        }

    async def row(self, id: str) -> Row:
        """One request as it is stored. Raises NotFound."""
        return await found(self._store, id)

    async def request(self, id: str) -> dict[str, Any]:
        """One request, whole. Raises NotFound."""
        row = await found(self._store, id)
        before = None
        if row.ordered and row.flow:
            wanted = Filter(flow=row.flow, conversation=row.conversation)
            page = await self._store.find(wanted, limit=1, before=row.seq)
            before = page.rows[0] if page.rows else None
        flow = self._flows.flows.get(row.flow or "")
        stopped = self._stopped(flow) if flow is not None else ("flow_unknown", None)
        now, waits = self._now(), await self._store.waits_of(row.seq)
        events = timeline(row, flow, before, waits, now=now, stopped=stopped)
        for event in events:
            event["at"] = when(event["at"])
            if "until" in event:
                event["until"] = when(event["until"])
        document = shown(row, whole=True)
        document["waits"] = cleaned(
            [
                one | {name: when(one[name]) for name in ("until", "answered_at", "closed_at")}
                for one in waits_of(row, waits, now)
            ]
        )
        ended = row.state.ended
        document["unsettled"] = cleaned(unsettled_of(row.steps)) if ended else []
        document["prompt_hash"] = row.trace.get("hash")
        document["prompt"] = row.trace.get("prompt")
        document["timeline"] = cleaned(events)
        return document

    async def answered(self, id: str) -> State | None:
        """How it ends, once its reply is stored or it has ended; None before. Raises NotFound."""
        row = await found(self._store, id)
        if row.state.ended:
            return row.state
        return row.outcome if row.state is State.ANSWERED else None

    async def conversations(
        self, *, limit: int, before: int | None, flow: str | None
    ) -> dict[str, Any]:
        """Those with the latest requests first."""
        page = await self._store.conversations(limit, before, flow)
        talks = [
            {
                "flow": one.flow or None,
                "conversation": _clean(one.conversation) or None,
                "requests": one.count,
                "last": shown(one.last, whole=False),
            }
            for one in page.talks
        ]
        return {"conversations": talks, "next": page.next}

    async def talk(
        self, flow: str, conversation: str, *, limit: int, before: int | None
    ) -> dict[str, Any]:
        """A page of a conversation's requests, each whole, newest first."""
        wanted = Filter(flow=flow, conversation=conversation)
        page = await self._store.find(wanted, limit=limit, before=before, whole=True)
        return {"requests": [shown(row, whole=True) for row in page.rows], "next": page.next}

    async def conversation(self, flow: str, conversation: str) -> dict[str, Any]:
        """A conversation's memory. Raises NotFound for an unknown flow."""
        known(self._flows, flow)
        memory = await self._store.memory(flow, conversation, limit=2000)  # all of it
        turns = [
            {"user": t.user, "assistant": t.assistant, "at": when(t.at), "summary": t.summary}
            for t in memory.turns
        ]
        return {"flow": flow, "conversation": conversation, "turns": turns}


async def found(store: Inbox, id: str) -> Row:
    """Raises NotFound."""
    row = await store.request(id)
    if row is None:
        raise NotFound(f"no request {id!r}; ended ones are removed after RETENTION")
    return row


def known(flows: Catalogue, name: str) -> Flow:
    """Raises NotFound that lists what there is."""
    if name not in flows.flows:
        raise NotFound(f"no flow {name!r}; there are: {', '.join(flows.flows)}")
    return flows.flows[name]
