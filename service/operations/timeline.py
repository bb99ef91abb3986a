"""What happened to a request and when: what came, what it waited for, what was done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from service.domain import State, Wait
from service.errors import MessageError
from service.flows import Flow
from service.inbox import Row
from service.mqtt.templates import Scope

SAID = 400  # characters of what a device said
ASLEEP = ("device", "person")  # what a request sleeps for
NOTICED = 20  # ms; a shorter wait is none
Event = dict[str, Any]
Stopped = tuple[str, str | None] | None


def timeline(
    row: Row,
    flow: Flow | None,
    before: Row | None,
    waits: Sequence[Wait],
    *,
    now: int,
    stopped: Stopped,
) -> list[Event]:
    """In the order of time; `at` and `until` are epoch ms, None where it is not known.

    `before` is the request before it in its conversation, where it has to wait for that;
    `waits` is what its tool calls wait for, `stopped` says why its flow asks nobody now.
    """
    events = [
        _event("received", row.message.received_at, topic=row.message.topic, qos=row.message.qos),
        _event("stored", row.accepted_at),
        *_waits(row, before, now, stopped),
        *_runs(row),  # a run begins before what it does in the same millisecond
        *(
            _event(
                "attempt",
                attempt.at,
                until=attempt.at + attempt.took_ms,
                provider=attempt.model.partition("/")[0] if "/" in attempt.model else "openai",
                model=attempt.model,
                result=attempt.result,
                message=attempt.message,
            )
            for attempt in row.attempts
        ),
        *_tools(row, flow),
        *_heard(row, waits, now),
    ]
    if row.answered_at is not None:
        events.append(_event("answered", row.answered_at, tokens=row.usage.total_tokens,
                             cost=row.usage.cost))  # fmt: skip
        for publish in row.outbox:
            events.append(
                _event(
                    "published" if row.state.ended else "publishing",
                    row.answered_at,
                    until=row.ended_at,
                    topic=publish.topic,
                    qos=publish.qos,
                    retain=publish.retain,
                    delivered=row.delivered,
                )
            )
    if row.ended_at is not None:
        events.append(_event("ended", row.ended_at, state=str(row.state)))
    return sorted(events, key=lambda event: event["at"] or 0)


def _event(what: str, at: int | None, **more: Any) -> Event:
    return {"what": what, "at": at, **more}


def _waits(row: Row, before: Row | None, now: int, stopped: Stopped) -> Iterator[Event]:
    """From when it could have gone on until it did, and for what."""
    runs = row.trace.get("runs", [])
    begun = [run["begun"] for run in runs]
    since = row.accepted_at
    first = begun[0] if begun else min((a.at for a in row.attempts), default=None)
    end = first or row.answered_at or row.ended_at or now
    if row.ordered and before is not None:
        until = before.ended_at
        if until is None and first is None:
            yield _event("waited", since, until=None, reason="conversation", request=before.id)
            return
        if until is not None and until - since >= NOTICED:
            until = min(until, end)
            yield _event("waited", since, until=until, reason="conversation", request=before.id)
            since = until
    if first is None and row.state is State.QUEUED:
        code = row.error_code
        if row.not_before > now:
            yield _event("waited", since, until=row.not_before, reason="retry", code=code)
        else:
            reason, code = stopped or ("queue", None)
            named = {} if code is None else {"code": code}
            yield _event("waited", since, until=None, reason=reason, **named)
        return
    if end - since >= NOTICED:
        yield _event("waited", since, until=end, reason="queue")
    for run, following in zip(runs, [*begun, None][1:], strict=True):
        if (later := run.get("later")) is not None:
            at, code = later
            last = following
            by = at if last is None else min(at, last)
            went = max((a.at + a.took_ms for a in row.attempts if a.at < by), default=run["begun"])
            if code in ASLEEP:
                yield _event("waited", went, until=last or row.ended_at, reason=code)
            else:
                yield _event("waited", went, until=last, reason="retry", code=code)


def _runs(row: Row) -> Iterator[Event]:
    for number, run in enumerate(row.trace.get("runs", []), 1):
        begun = run["begun"]
        if number == 1:  # the time of a call is reckoned back from its end: it may be off by ms
            begun = min([begun, *(attempt.at for attempt in row.attempts)])
        yield _event("begun", begun, run=number)
        for since, until in run.get("waits", ()):
            yield _event("waited", since, until=until, reason="rate_limit")
        if (first := run.get("first")) is not None:
            yield _event("first_token", first)


def _tools(row: Row, flow: Flow | None) -> Iterator[Event]:
    for number, step in enumerate(row.steps, 1):
        results = step.get("results") or [None] * len(step["calls"])
        at, took = step.get("at"), step.get("took_ms")
        if at is None and row.attempts:  # of a version that noted no time: after its answer
            asked = row.attempts[min(number, len(row.attempts)) - 1]
            at = asked.at + asked.took_ms
        outcomes = step.get("outcomes") or [None] * len(step["calls"])
        for call, result, outcome in zip(step["calls"], results, outcomes, strict=False):
            yield _event(
                "tool",
                at,
                until=None if took is None else at + took,
                round=number,
                name=call["name"],
                arguments=_loaded(call["arguments"]),
                topic=_topic(row, flow, call),
                result=result,
                outcome=outcome,
                settled=step.get("settled", {}).get(call.get("call_id")),
            )


def _heard(row: Row, waits: Sequence[Wait], now: int) -> Iterator[Event]:
    """What devices and people said to its tool calls, or that they did not."""
    over = now if row.ended_at is None else row.ended_at
    for wait in waits:
        about = {"ear": str(wait.ear), "tool": wait.rule.get("tool"), "topic": wait.topic}
        about |= {"by": wait.by, "late": wait.late, "noted": wait.noted or None}
        if wait.answered_at is not None:
            said = (wait.answer or b"").decode("utf-8", "replace")[:SAID]
            yield _event("heard", wait.answered_at, answer=said, **about)
        elif wait.until <= min(over, wait.closed_at or over):
            yield _event("unheard", wait.until, **about)


def _loaded(text: str) -> Any:
    try:
        return orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return text


def _topic(row: Row, flow: Flow | None, call: Any) -> str | None:
    """Where the call went, by the flow as it is now."""
    tool = next((one for one in flow.tools if one.name == call["name"]), None) if flow else None
    arguments = _loaded(call["arguments"])
    if flow is None or tool is None or not isinstance(arguments, dict):
        return None
    scope = Scope(row.message, flow.match(row.message.topic) or {}, arguments)
    pattern = tool.topic or tool.read
    try:
        return pattern.render_topic(scope) if pattern is not None else None
    except MessageError:
        return None
