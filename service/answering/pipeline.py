"""One request: understand it, ask, call tools, store how it ends. Publishing comes after.

Whatever happens here, the request is either stored with its end or back in the inbox; a
crash in between leaves it under a lease that runs out.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from service import retry
from service.answering import limits, prompt, replies
from service.answering.asking import Asker, Log
from service.answering.ports import Broker, Store
from service.answering.streaming import Stream, stream_for
from service.answering.tools import ROUNDS, ToolBox, as_messages, round_of
from service.clients.gpt import Completion, Question
from service.errors import Blame, MessageError, ModelError
from service.flows import Flow, Flows
from service.hub import Hub
from service.model import Answer, Claimed, Publish, State, Turn, Usage
from service.template import Scope

MAX_CLAIMS = 5  # a request that was claimed more often kills its workers
FORGOTTEN = "OK, our conversation so far is forgotten."

log = logging.getLogger("emqx-gpt.answering")


@dataclass(frozen=True, slots=True)
class _Job:
    """What the steps of one request share."""

    claimed: Claimed
    flow: Flow
    scope: Scope
    captured: Mapping[str, str]
    log: Log


class Pipeline:
    """Answers claimed requests. `now` gives epoch ms."""

    def __init__(
        self,
        flows: Flows,
        store: Store,
        asker: Asker,
        broker: Broker,
        hub: Hub,
        *,
        now: Callable[[], int],
        max_attempts: int,
    ) -> None:
        self._flows = flows
        self._store = store
        self._asker = asker
        self._broker = broker
        self._hub = hub
        self._now = now
        self._max_attempts = max_attempts

    async def answer(self, claimed: Claimed) -> Answer | None:
        """Bring a request to its stored end; None if it went back to the inbox, or the
        lease was lost and somebody else has it."""
        flow = self._flows.flows.get(claimed.flow or "")
        attempts = Log(self._now)
        if flow is None:
            text = f"no flow {claimed.flow!r} here" if claimed.flow else "no flow fits the topic"
            return await self._end(
                claimed, Answer(State.FAILED, error_code="flow_unknown", error_message=text)
            )
        captured = flow.match(claimed.message.topic) or {}
        job = _Job(claimed, flow, Scope(claimed.message, captured), captured, attempts)
        try:
            answer = await self._answer(job)
        except prompt.Ignored as ignored:
            answer = self._told(job, State.IGNORED, ignored.reason, "", tell=False)
        except MessageError as error:
            answer = self._told(job, State.FAILED, error.code, error.message)
        except LostLease:
            return None
        except ModelError as error:
            decided = self._failed(job, error)
            if isinstance(decided, retry.Again):
                await self._again(job, decided, error)
                return None
            answer = decided
        except Exception as fault:
            log.exception("request %s: a fault of this program", claimed.id)
            return await self._faulty(job, fault)
        return await self._end(claimed, replace(answer, attempts=tuple(attempts.attempts)))

    async def _answer(self, job: _Job) -> Answer:
        claimed, flow, now = job.claimed, job.flow, self._now()
        if claimed.claims > MAX_CLAIMS:
            text = f"given up after it was begun {claimed.claims - 1} times and never finished"
            return self._told(job, State.FAILED, "worker_killed", text)
        if now >= claimed.deadline and not claimed.steps:
            text = "it came too late to be asked" if not claimed.tries else "no answer came in time"
            return self._told(job, State.EXPIRED, "expired", text)
        asked = prompt.understand(flow, claimed.message, job.captured)
        job = replace(job, scope=asked.scope)
        turns: list[Turn] = []
        if flow.ordered:
            limit = (flow.history.messages + 1) // 2 if flow.history else 0
            memory = await self._store.memory(flow.name, claimed.conversation, limit=limit)
            if flow.cooldown is not None and (memory.cooldown_until or 0) > now:
                raise prompt.Ignored("cooldown")
            turns = prompt.remembered(flow, memory.turns, now)
        if flow.history is not None and flow.history.resets(asked.scope.text):
            publishes = self._reply(job, FORGOTTEN, "", Usage())
            return Answer(State.DONE, publishes, text=FORGOTTEN, forget=True)
        return await self._ask(job, asked, turns)

    async def _ask(self, job: _Job, asked: prompt.Asked, turns: list[Turn]) -> Answer:
        claimed, flow = job.claimed, job.flow
        messages = list(prompt.compose(flow, asked, turns))
        estimate = sum(prompt.estimate(str(message["content"])) for message in messages)
        wanted = limits.reservations(flow, claimed, estimate, self._now())
        if wanted and claimed.claims == 1:
            over = await self._store.reserve(wanted)
            if over is not None:
                return self._told(job, State.IGNORED, "limit", _over(over))
        for publish in replies.status(flow, claimed, job.scope, "working"):
            self._broker.post(publish)
        stream = stream_for(flow, claimed, job.scope, self._hub, self._broker.post)
        completion = await self._rounds(job, messages, stream)
        if stream is not None:
            stream.flush()
        for reserved in wanted:
            if reserved.key.startswith("tokens:"):
                used = completion.usage.total_tokens - reserved.amount
                await self._store.settle(reserved.key, reserved.window, used)
        text = completion.text
        now = self._now()
        turn = None
        if flow.history is not None:
            tokens = prompt.estimate(asked.text) + prompt.estimate(text)
            turn = Turn(asked.text, text, now, tokens)
        return Answer(
            State.DONE,
            self._reply(job, text, completion.model, completion.usage, completion.truncated),
            text=text,
            model=completion.model,
            usage=completion.usage,
            turn=turn,
            keep_turns=(flow.history.messages + 1) // 2 if flow.history else 0,
            cooldown_until=now + int(flow.cooldown * 1000) if flow.cooldown else None,
        )

    async def _rounds(
        self, job: _Job, messages: list[Mapping[str, Any]], stream: Stream | None
    ) -> Completion:
        """Ask, carry out tool calls, ask again, until there is a sentence for the user."""
        claimed, flow = job.claimed, job.flow
        box = ToolBox(flow, claimed, job.captured, self._broker)
        steps: list[Mapping[str, Any]] = [dict(step) for step in claimed.steps]
        usage = Usage()
        for index, step in enumerate(steps):
            if "results" not in step:
                steps[index] = {**step, "results": await box.run(step, again=True)}
                await self._store.step(claimed, steps)
            messages.extend(as_messages(steps[index]))
        options = prompt.options_of(flow)
        for number in range(len(steps), ROUNDS + 1):
            if flow.tools and number == ROUNDS:
                options = {**options, "tool_choice": "none"}
            completion = await self._once(job, messages, options, stream)
            usage = usage + completion.usage
            if not completion.tool_calls or number == ROUNDS:
                return replace(completion, usage=usage)
            step = round_of(claimed, number, completion.text, completion.tool_calls)
            if not await self._store.step(claimed, [*steps, step]):
                raise LostLease
            steps.append({**step, "results": await box.run(step, again=False)})
            await self._store.step(claimed, steps)
            messages.extend(as_messages(steps[-1]))
        raise AssertionError("the last round has no tools")

    async def _once(
        self,
        job: _Job,
        messages: list[Mapping[str, Any]],
        options: dict[str, Any],
        stream: Stream | None,
    ) -> Completion:
        flow = job.flow
        question = Question(flow.model, tuple(messages), options, flow.max_tokens, flow.timeout)
        left = max(1.0, (job.claimed.deadline - self._now()) / 1000)
        for last in (False, True):
            completion = await self._asker.ask(
                question,
                flow.fallback,
                job.log,
                left=left,
                on_delta=stream.delta if stream else None,
                on_restart=stream.restart if stream else None,
            )
            if flow.schema is None or completion.tool_calls:
                return completion
            fault, text = prompt.check_schema(completion.text, flow.schema)
            if fault is None:
                return replace(completion, text=text)
            if last:
                break
            hint = f"That did not fit the JSON Schema: {fault}. Answer with the JSON alone."
            said = {"role": "assistant", "content": completion.text}
            correction = {"role": "user", "content": hint}
            question = replace(question, messages=(*messages, said, correction))
            if stream is not None:
                stream.restart()
        text = "the model's answer does not fit the flow's schema"
        raise ModelError(text, code="model_schema", blame=Blame.MODEL)

    async def _faulty(self, job: _Job, fault: Exception) -> Answer | None:
        """A fault of ours: tried again like a passing one, and in the end a dead letter."""
        error = ModelError(
            f"a fault of this program ({type(fault).__name__})", code="internal", blame=Blame.PASSING
        )
        if job.claimed.tries + 1 < self._max_attempts:
            delay = retry.outer_delay(job.claimed.tries + 1, random.random())
            await self._again(job, retry.Again(delay), error)
            return None
        # Nothing is told: telling it may be what fails.
        return await self._end(
            job.claimed,
            Answer(State.FAILED, error_code=error.code, error_message=error.message),
        )

    def _failed(self, job: _Job, error: ModelError) -> retry.Again | Answer:
        """Again later, or how it ends."""
        claimed, flow = job.claimed, job.flow
        if flow.on_error is not None:
            # Said at once: a spoken alert that waits for the model's recovery comes too late.
            text = flow.on_error.render(job.scope)
            publishes = replies.reply(
                flow, claimed, job.scope, text, model="", usage=Usage(), error=error.code
            ) + replies.status(flow, claimed, job.scope, "failed", error.code)
            return Answer(
                State.FAILED,
                publishes,
                text=text,
                error_code=error.code,
                error_message=error.message,
            )
        decision = retry.decide(
            error,
            tries=claimed.tries + 1,
            max_attempts=self._max_attempts,
            jitter=random.random(),
            left=(claimed.deadline - self._now()) / 1000,
        )
        if isinstance(decision, retry.Again):
            return decision
        return self._told(job, State.FAILED, decision.code, error.message)

    def _reply(
        self, job: _Job, text: str, model: str, usage: Usage, truncated: bool = False
    ) -> tuple[Publish, ...]:
        flow, claimed, scope = job.flow, job.claimed, job.scope
        sent = replies.reply(
            flow, claimed, scope, text, model=model, usage=usage, truncated=truncated
        )
        return sent + replies.status(flow, claimed, scope, "completed")

    def _told(
        self, job: _Job, state: State, code: str, message: str, *, tell: bool = True
    ) -> Answer:
        """An end without a reply, and the sentence about it."""
        flow, claimed, scope = job.flow, job.claimed, job.scope
        publishes = replies.failure(flow, claimed, scope, code, message) if tell else ()
        publishes += replies.status(flow, claimed, scope, replies.STATUS[state], code)
        return Answer(state, publishes, error_code=code, error_message=message or None)

    async def _again(self, job: _Job, decision: retry.Again, error: ModelError) -> None:
        claimed = job.claimed
        log.log(
            logging.WARNING if decision.counts else logging.DEBUG,
            "request %s flow=%s: %s; again in %.1f s",
            claimed.id,
            claimed.flow,
            error.message,
            decision.delay,
        )
        await self._store.again(
            claimed,
            at=self._now() + int(decision.delay * 1000),
            attempts=tuple(job.log.attempts),
            count=decision.counts,
            error_code=error.code,
            error_message=error.message,
        )

    async def _end(self, claimed: Claimed, answer: Answer) -> Answer | None:
        return answer if await self._store.reply(claimed, answer) else None


class LostLease(Exception):
    """Somebody else has this request now; nothing more is done here."""


def _over(key: str) -> str:
    kind = key.partition(":")[0]
    if kind == "tokens":
        return "this flow has used up its tokens for today"
    return "too many requests, wait a little"
