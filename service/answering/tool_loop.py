"""Ask, carry out tool calls, ask again, until there is a sentence for the user."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from service.answering import prompt
from service.answering.job import Job, LostLease
from service.answering.patience import patiently
from service.answering.ports import Broker, Store
from service.answering.stream import Stream
from service.answering.tools import ROUNDS, ToolBox, as_messages, round_of
from service.errors import ErrorKind, ModelError
from service.llm.answers import Completion
from service.llm.ask import Asker
from service.llm.client import Question

Messages = list[Mapping[str, Any]]


class Rounds:
    """The conversation with the model about one request. `now` gives epoch ms."""

    def __init__(
        self, store: Store, asker: Asker, broker: Broker, *, now: Callable[[], int]
    ) -> None:
        self._store = store
        self._asker = asker
        self._broker = broker
        self._now = now

    async def run(self, job: Job, messages: Messages, stream: Stream | None) -> Completion:
        """The model's last word. Raises ModelError, LostLease."""
        claimed, flow = job.claimed, job.flow
        box = ToolBox(flow, claimed, job.captured, self._broker)
        steps: Messages = [dict(step) for step in claimed.steps]
        for index, step in enumerate(steps):
            if "results" not in step:
                steps[index] = {**step, "results": await box.run(step, again=True)}
                await self._note(job, steps)
            messages.extend(as_messages(steps[index]))
        options = prompt.options_of(flow)
        for number in range(len(steps), ROUNDS + 1):
            if flow.tools and number == ROUNDS:
                options = {**options, "tool_choice": "none"}
            completion = await self._once(job, messages, options, stream)
            if not completion.tool_calls or (number == ROUNDS and completion.text.strip()):
                return completion
            if number == ROUNDS:
                break
            if stream is not None:  # what it said beside its calls is not the reply
                stream.restart()
            step = round_of(claimed, number, completion.text, completion.tool_calls)
            await self._note(job, [*steps, step])
            steps.append({**step, "results": await box.run(step, again=False)})
            await self._note(job, steps)
            messages.extend(as_messages(steps[-1]))
        text = f"the model came to no answer in {ROUNDS} rounds of tool calls"
        raise ModelError(text, code="model_rounds", kind=ErrorKind.MODEL)

    async def _note(self, job: Job, steps: Messages) -> None:
        if not await patiently(lambda: self._store.step(job.claimed, steps)):
            raise LostLease

    async def _once(
        self, job: Job, messages: Messages, options: dict[str, Any], stream: Stream | None
    ) -> Completion:
        """One answer that fits the flow's schema; the model may correct itself once."""
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
        raise ModelError(text, code="model_schema", kind=ErrorKind.MODEL)
