"""One request: understand it, ask, call tools, store how it ends. Publishing comes after.

Whatever happens here, the request is either stored with its end or back in the inbox; a
crash in between leaves it under a lease that runs out.
"""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from service.answering import limits, prompt
from service.answering import reply as replies
from service.answering.job import Job, LostLease
from service.answering.patience import patiently
from service.answering.ports import Broker, Store
from service.answering.stream import stream_for
from service.answering.tool_loop import Rounds
from service.domain import Answer, Claimed, Publish, State, Turn, Usage
from service.errors import BrokerError, ErrorKind, MessageError, ModelError
from service.flows import Flows
from service.llm import retry
from service.llm.answers import Completion
from service.llm.ask import Asker
from service.llm.attempts import Log
from service.mqtt.templates import Scope
from service.operations.events import Hub

MAX_CLAIMS = 5  # a request that was claimed more often kills its workers
FORGOTTEN = "OK, our conversation so far is forgotten."

log = logging.getLogger("emqx-gpt.answering")


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
        self._rounds = Rounds(store, asker, broker, now=now)
        self._broker = broker
        self._hub = hub
        self._now = now
        self._policy = asker.policy
        self._max_attempts = max_attempts

    async def answer(self, claimed: Claimed) -> Answer | None:
        """Bring a request to its stored end; None if it went back to the inbox, or the
        lease was lost and somebody else has it."""
        flow = self._flows.flows.get(claimed.flow or "")
        attempts = Log(claimed.id, self._now)
        if flow is None:
            text = f"no flow {claimed.flow!r} here" if claimed.flow else "no flow fits the topic"
            return await self._end(
                claimed, Answer(State.FAILED, error_code="flow_unknown", error_message=text)
            )
        captured = flow.match(claimed.message.topic) or {}
        job = Job(claimed, flow, Scope(claimed.message, captured), captured, attempts)
        try:
            answer = await self._tried(job)
        except LostLease:
            return None
        except Exception as fault:
            log.exception("request %s: a fault of this program", claimed.id)
            answer = await self._faulty(job, fault)
        if answer is None:
            return None
        told = replace(answer, attempts=tuple(attempts.attempts), usage=attempts.usage)
        return await self._end(claimed, told)

    async def _tried(self, job: Job) -> Answer | None:
        """How it ends; None: it went back to the inbox."""
        try:
            return await self._answer(job)
        except prompt.Ignored as ignored:
            return self._told(job, State.IGNORED, ignored.reason, "", tell=False)
        except MessageError as error:
            return self._told(job, State.FAILED, error.code, error.message)
        except ModelError as error:
            decided = self._failed(job, error)
            if isinstance(decided, retry.Reschedule):
                await self._again(job, decided, error)
                return None
            return decided

    async def _answer(self, job: Job) -> Answer:
        claimed, flow, now = job.claimed, job.flow, self._now()
        if claimed.claims > MAX_CLAIMS:
            text = f"given up after it was begun {claimed.claims - 1} times and never finished"
            return self._told(job, State.FAILED, "worker_killed", text)
        if now >= claimed.deadline and not claimed.steps:
            tried = claimed.tries or claimed.attempts
            text = "no answer came in time" if tried else "it came too late to be asked"
            return self._told(job, State.EXPIRED, "expired", text)
        asked = prompt.understand(flow, claimed.message, job.captured)
        job.scope = asked.scope
        if claimed.publish:
            replies.reply_topic(flow, claimed, asked.scope)  # better known before it is paid for
        turns: list[Turn] = []
        if flow.ordered:
            if flow.cooldown is not None and (claimed.cooldown_until or 0) > now:
                raise prompt.Ignored("cooldown")
            limit = (flow.history.messages + 1) // 2 if flow.history else 0
            turns = prompt.remembered(flow, claimed.turns[-limit:] if limit else (), now)
        if flow.history is not None and flow.history.resets(asked.scope.text):
            publishes = self._reply(job, FORGOTTEN, "", Usage())
            return Answer(State.DONE, publishes, text=FORGOTTEN, forget=True)
        return await self._ask(job, asked, turns)

    async def _ask(self, job: Job, asked: prompt.Asked, turns: list[Turn]) -> Answer:
        claimed, flow = job.claimed, job.flow
        messages = list(prompt.compose(flow, asked, turns))
        estimate = prompt.estimate_of(messages)
        wanted = limits.reservations(flow, claimed, estimate, self._now())
        allowance = limits.Allowance(self._store, wanted, claimed)
        over = await allowance.take()
        if over is not None:
            return self._told(job, State.IGNORED, "limit", limits.told(over))
        try:
            completion = await self._model(job, messages)
        except BaseException:
            await allowance.settle(job.log.usage.total_tokens if job.log.attempts else None)
            raise
        # Some servers do not count what they stream.
        used = job.log.usage.total_tokens or estimate + prompt.estimate(completion.text)
        await allowance.settle(used)
        text = completion.text
        now = self._now()
        turn = None
        if flow.history is not None:
            tokens = prompt.estimate(asked.text) + prompt.estimate(text)
            turn = Turn(asked.text, text, now, tokens)
        return Answer(
            State.DONE,
            self._reply(job, text, completion.model, job.log.usage, completion.truncated),
            text=text,
            model=completion.model,
            turn=turn,
            keep_turns=(flow.history.messages + 1) // 2 if flow.history else 0,
            cooldown_until=now + int(flow.cooldown * 1000) if flow.cooldown else None,
        )

    async def _model(self, job: Job, messages: list[Mapping[str, Any]]) -> Completion:
        """Ask, and show that and how it goes."""
        claimed, flow = job.claimed, job.flow
        post = functools.partial(self._broker.post, of=claimed.id)
        for publish in replies.status(flow, claimed, job.scope, "working"):
            post(publish)
        stream = stream_for(flow, claimed, job.scope, self._hub, post)
        if stream is None:
            return await self._rounds.run(job, messages, None)
        with stream:
            return await self._rounds.run(job, messages, stream)

    async def _faulty(self, job: Job, fault: Exception) -> Answer | None:
        """A fault of ours: tried again like a passing one, and in the end a dead letter."""
        error = ModelError(
            f"a fault of this program ({type(fault).__name__})",
            code="internal",
            kind=ErrorKind.PASSING,
        )
        if job.claimed.tries + 1 < self._max_attempts:
            delay = self._policy.outer_delay(job.claimed.tries + 1, random.random())
            await self._again(job, retry.Reschedule(delay), error)
            return None
        # Nothing is told: telling it may be what fails.
        return Answer(State.FAILED, error_code=error.code, error_message=error.message)

    def _failed(self, job: Job, error: ModelError) -> retry.Reschedule | Answer:
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
        decision = self._policy.decide(
            error,
            tries=claimed.tries + 1,
            max_attempts=self._max_attempts,
            jitter=random.random(),
            left=(claimed.deadline - self._now()) / 1000,
        )
        if isinstance(decision, retry.Reschedule):
            return decision
        return self._told(job, State.FAILED, decision.code, error.message)

    def _reply(
        self, job: Job, text: str, model: str, usage: Usage, truncated: bool = False
    ) -> tuple[Publish, ...]:
        flow, claimed, scope = job.flow, job.claimed, job.scope
        sent = replies.reply(
            flow, claimed, scope, text, model=model, usage=usage, truncated=truncated
        )
        return sent + replies.status(flow, claimed, scope, "completed")

    def _told(
        self, job: Job, state: State, code: str, message: str, *, tell: bool = True
    ) -> Answer:
        """An end without a reply, and the sentence about it."""
        flow, claimed, scope = job.flow, job.claimed, job.scope
        publishes = replies.failure(flow, claimed, scope, code, message) if tell else ()
        publishes += replies.status(flow, claimed, scope, replies.STATUS[state], code)
        return Answer(state, publishes, error_code=code, error_message=message or None)

    def refused(self, claimed: Claimed, error: BrokerError) -> tuple[Publish, ...]:
        """What its sender is told when the broker refuses the reply."""
        flow = self._flows.flows.get(claimed.flow or "")
        if flow is None:
            return ()
        scope = Scope(claimed.message, flow.match(claimed.message.topic) or {})
        notice = replies.failure(flow, claimed, scope, error.code, error.message)
        return notice + replies.status(flow, claimed, scope, "failed", error.code)

    async def _again(self, job: Job, decision: retry.Reschedule, error: ModelError) -> None:
        claimed = job.claimed
        log.log(
            logging.WARNING if decision.counts else logging.DEBUG,
            "request %s flow=%s: %s; again in %.1f s",
            claimed.id,
            claimed.flow,
            error.message,
            decision.delay,
        )
        at = self._now() + int(decision.delay * 1000)
        await patiently(
            lambda: self._store.again(
                claimed,
                at=at,
                attempts=tuple(job.log.attempts),
                count=decision.counts,
                error_code=error.code,
                error_message=error.message,
            )
        )

    async def _end(self, claimed: Claimed, answer: Answer) -> Answer | None:
        stored = await patiently(lambda: self._store.reply(claimed, answer))
        return answer if stored else None
