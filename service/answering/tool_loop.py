"""Ask, carry out tool calls, ask again, until there is a sentence for the user."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from service.answering import budget, prompt, tools
from service.answering.job import Job, under_lease
from service.answering.remote import NoServers, ToolServers, remote_of
from service.answering.stream import Stream
from service.answering.tool_gate import ToolGate
from service.answering.tool_round import Asleep, Round, Sender, Store
from service.errors import BudgetError, ErrorKind, ModelError
from service.llm.answers import Completion
from service.llm.asker import Asker
from service.llm.client import OFF_LOOP, Question

ROUNDS = 6  # of tool calls; then the model has to say something

Messages = list[Mapping[str, Any]]


class Parked(Exception):
    """A tool call waits: the request is to sleep until then. `steps` are all rounds, that one as
    it stands."""

    def __init__(self, asleep: Asleep, steps: list[Mapping[str, Any]]) -> None:
        super().__init__(asleep.until)
        self.asleep = asleep
        self.steps = steps


@dataclass(frozen=True, slots=True)
class LastWord:
    """The model's last word. `code`: the error with which the request ends all the same, since
    one of its tools did not do what it should."""

    completion: Completion
    code: str | None = None


class ToolLoop:
    """The conversation with the model about one request. `now` gives epoch ms, `took` hears of
    each round of tools (seconds)."""

    def __init__(
        self,
        store: Store,
        asker: Asker,
        publisher: Sender,
        *,
        now: Callable[[], int],
        took: Callable[[float], None] = lambda seconds: None,
        servers: ToolServers | None = None,
    ) -> None:
        self._servers = servers or NoServers()
        self._store = store
        self._asker = asker
        self._gate = ToolGate(store, publisher, now=now)
        self._now = now
        self._took = took

    async def run(
        self,
        job: Job,
        messages: Messages,
        stream: Stream | None,
        asking: Callable[[], None] = lambda: None,
    ) -> LastWord:
        """The model's last word, which fits the flow's schema. `asking` hears when the model is
        about to be asked. Raises ModelError, BudgetError, LostLease, and Parked where a tool call
        has to wait."""
        flow = job.flow
        turns = sum(message["role"] == "assistant" for message in messages)
        job = replace(job, remote=await remote_of(flow, self._servers))
        steps = await self._resumed(job, messages)
        asking()
        options = prompt.options_of(flow, job.remote.tools.values())
        corrected = False  # it may correct itself once, where its answer must fit a schema
        while True:
            if "tools" in options and len(steps) >= ROUNDS:
                options = {**options, "tool_choice": "none"}
            question = Question(
                flow.model,
                tuple(messages),
                options,
                flow.max_tokens,
                budget.cap_of(flow),
                flow.timeout,
                turns=turns,
            )
            try:
                completion = await self._asker.ask(
                    question,
                    flow.fallback,
                    job.log,
                    left=max(1.0, (job.claimed.deadline - self._now()) / 1000),
                    on_delta=stream.delta if stream else None,
                    on_restart=stream.restart if stream else None,
                )
            except BudgetError as over:
                over.begun = bool(steps)
                raise
            if completion.dropped:
                messages[:] = question.without_turns(completion.dropped)
                turns -= completion.dropped
            if completion.tool_calls and len(steps) < ROUNDS:
                if stream is not None:  # what it said beside its calls is not the reply
                    stream.restart()
                step = tools.step_of(job, len(steps), completion)
                steps.append(await self._carry_out(job, steps, step))
                messages.extend(tools.as_messages(steps[-1]))
                continue
            if completion.tool_calls and not completion.text.strip():
                text = f"the model came to no answer in {ROUNDS} rounds of tool calls"
                raise ModelError(text, code="model_rounds", kind=ErrorKind.MODEL)
            completion = replace(completion, turns=turns)
            if flow.schema is None:
                return LastWord(completion, tools.code_of(steps))
            check, said = prompt.check_schema, completion.text
            large = len(said) > OFF_LOOP
            fault, text = (
                await asyncio.to_thread(check, said, flow.schema)
                if large
                else check(said, flow.schema)
            )
            if fault is None:
                return LastWord(replace(completion, text=text), tools.code_of(steps))
            if corrected:
                text = "the model's answer does not fit the flow's schema"
                raise ModelError(text, code="model_schema", kind=ErrorKind.MODEL)
            corrected = True
            hint = f"That did not fit the JSON Schema: {fault}. Answer with the JSON alone."
            messages.append({"role": "assistant", "content": completion.text})
            messages.append({"role": "user", "content": hint})
            if stream is not None:
                stream.restart()

    async def _resumed(self, job: Job, messages: Messages) -> list[dict[str, Any]]:
        """The rounds that an earlier process stored; one that it did not finish is finished."""
        steps: list[dict[str, Any]] = []
        for stored in job.claimed.steps:
            step = dict(stored)
            if "results" not in step:
                step = await self._carry_out(job, steps, step, resumed=True)
            steps.append(step)
            messages.extend(tools.as_messages(step))
        return steps

    async def _carry_out(
        self, job: Job, steps: list[dict[str, Any]], step: dict[str, Any], *, resumed: bool = False
    ) -> dict[str, Any]:
        """The round with its results, which follows `steps`. It is stored before it is carried
        out, and again with what came of it."""
        if not resumed:
            await under_lease(self._store.checkpoint, job.claimed, [*steps, step], job.log.usage)
        began = self._now()
        round = Round(job, steps, step, resumed)
        done = await self._gate.carry_out(round)
        if isinstance(done, Asleep):
            raise Parked(done, round.steps)
        took = max(0, self._now() - began)
        self._took(took / 1000)
        since = min([began, *(stage["sending"] for stage in round.kept if "sending" in stage)])
        made = tools.finished(step, done, since, began + took - since)
        await under_lease(
            self._store.checkpoint,
            job.claimed,
            [*steps, made],
            job.log.usage,
            closed=round.closed,
        )
        return made
