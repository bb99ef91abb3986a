"""Ask with retries and fallback: one durable attempt, over the models of a flow in turn."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import tenacity

from service.domain import Usage
from service.errors import ErrorKind, ModelError
from service.flows import ModelRef
from service.llm.answers import Completion, size_of
from service.llm.attempts import Log, ModelCall
from service.llm.circuit_breaker import CircuitBreakers
from service.llm.client import Gpt, OnDelta, Question
from service.llm.pace import Start
from service.llm.prices import Billing
from service.llm.retry import RetryPolicy


class CallReservation(Protocol):
    """What is reserved for one call."""

    async def settle(self, usage: Usage | None) -> None:
        """What the call took; None: nobody knows."""


class Budget(Protocol):
    """Asked before each call."""

    async def reserve(self, flow: str, question: Question) -> CallReservation:
        """Raises BudgetError."""


OnCall = Callable[[ModelRef, str, float, Usage], None]
OnAgain = Callable[[str, str], None]
# Of the failures of several models the first of these kinds is told: it decides whether the
# request is tried again, and an answer that was paid for and can't be used is not.
_RANK = (
    *(ErrorKind.ANSWER, ErrorKind.RATE, ErrorKind.ACCOUNT, ErrorKind.PASSING),
    *(ErrorKind.MODEL, ErrorKind.REQUEST),
)


@dataclass(slots=True)
class _ModelRun:
    """One model's turn at a question: its calls until it answers or is given up."""

    question: Question
    log: Log
    ends: float  # monotonic seconds
    on_delta: OnDelta | None
    on_restart: Callable[[], None] | None
    failure: ModelError | None = None


class Asker:
    """Asks through the breakers and applies the inner ring of retries.

    The worker bounds how many requests are in hand, and each has one call at a time.
    `on_call(model, result, seconds, usage)` hears of every call, `on_again(how, code)` of every
    retry.
    """

    def __init__(
        self,
        gpt: Gpt,
        breakers: CircuitBreakers,
        *,
        on_call: OnCall,
        on_again: OnAgain = lambda how, code: None,
        policy: RetryPolicy,
        prices: Billing | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._gpt = gpt
        self._breakers = breakers
        self._on_call = on_call
        self._on_again = on_again
        self.policy = policy
        self._prices = prices
        self._budget = budget
        self._retrying = tenacity.AsyncRetrying(
            retry=self._again, stop=self._stop, wait=self._wait, reraise=True
        )

    async def ask(
        self,
        question: Question,
        fallback: tuple[ModelRef, ...],
        log: Log,
        *,
        left: float,
        on_delta: OnDelta | None = None,
        on_restart: Callable[[], None] | None = None,
    ) -> Completion:
        """Ask each model in turn until one answers; `left` bounds the whole in seconds.

        Raises the ModelError that says most: what could pass with time beats what can't.
        """
        best: ModelError | None = None
        failure: ModelError | None = None
        ends = time.monotonic() + left
        for model in (question.model, *fallback):
            if failure is not None:
                self._on_again("fallback", failure.code)
            dropped = 0
            while True:
                asked = _shortened(question, model, dropped)
                run = _ModelRun(asked, log, ends, on_delta, on_restart)
                try:
                    completion: Completion = await self._retrying.copy()(self._call, run)
                    return replace(completion, dropped=dropped) if dropped else completion
                except ModelError as error:
                    failure = error
                # The model may have begun to speak before it failed.
                if on_restart is not None:
                    on_restart()
                if failure.code != "model_too_long" or dropped >= question.turns:
                    break
                # Once with the newer half of its memory, once without any.
                dropped = question.turns if dropped else (question.turns + 1) // 2
                self._on_again("shortened", failure.code)
            if best is None or _RANK.index(failure.kind) < _RANK.index(best.kind):
                best = failure
            if time.monotonic() >= ends:
                break
        if best is None:  # a flow always has a model
            raise AssertionError("no model to ask")
        raise best

    async def _call(self, run: _ModelRun) -> Completion:
        question, log = run.question, run.log
        model = question.model
        came = log.now()
        start = await self._breakers.slot(model, run.ends)
        seconds = run.ends - time.monotonic()
        if start is None or seconds <= 0:
            if start is not None:
                self._breakers.abandoned(model, start)
            raise run.failure or self._paused_error(model)
        if run.failure is not None:
            self._on_again("at_once", run.failure.code)
            if run.on_restart is not None:
                run.on_restart()
        if seconds < question.timeout:
            question = replace(question, timeout=seconds)
        reserved = await self._reserve(log, question, start)
        began, clock = log.now(), time.monotonic()
        log.waited(came, began)
        try:
            completion = await self._gpt.ask(question, run.on_delta, run.on_restart)
        except ModelError as error:
            run.failure = error
            self._breakers.failed(model, error, log.who, start)
            log.add(began, model, error.code, error.message)
            usage = self._billed(model, error.usage or Usage())
            log.usage += usage
            self._on_call(model, error.code, time.monotonic() - clock, usage)
            if log.heard is not None:
                log.heard(_record(run, question, began, error.code, usage))
            if reserved is not None:
                known = bool(usage.total_tokens) or error.unasked
                await reserved.settle(usage if known else None)
            raise
        except BaseException:
            self._breakers.abandoned(model, start)
            raise
        self._breakers.succeeded(model, start)
        log.add(began, model, "ok")
        usage = self._billed(model, completion.usage)
        log.usage += usage
        if completion.reasoning:
            log.reasoning.append(completion.reasoning)
        self._on_call(model, "ok", time.monotonic() - clock, usage)
        if log.heard is not None:
            log.heard(_record(run, question, began, "ok", usage, completion.model))
        if reserved is not None:
            await reserved.settle(usage if usage.total_tokens else _guess(question, completion))
        return completion

    async def _reserve(self, log: Log, question: Question, start: Start) -> CallReservation | None:
        if self._budget is None:
            return None
        try:
            return await self._budget.reserve(log.flow, question)
        except BaseException:
            self._breakers.abandoned(question.model, start)
            raise

    def _billed(self, model: ModelRef, usage: Usage) -> Usage:
        return self._prices.billed(model, usage) if self._prices else usage

    def _paused_error(self, model: ModelRef) -> ModelError:
        last = self._breakers.last_error(model)
        waiting = self._breakers.wait(model)
        code = last.code if last else "model_paused"
        message = last.message if last else f"model {model} is paused"
        return ModelError(message, code=code, kind=ErrorKind.RATE, retry_after=waiting)

    # What tenacity asks after each failed call

    def _again(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        run: _ModelRun = state.args[0]
        again = self.policy.repeats(error, state.attempt_number)
        return again and self._breakers.wait(run.question.model) <= 0

    def _stop(self, state: tenacity.RetryCallState) -> bool:
        run: _ModelRun = state.args[0]
        return time.monotonic() + state.upcoming_sleep >= run.ends

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        after = error.retry_after if isinstance(error, ModelError) else None
        return self.policy.inner_delay(state.attempt_number, after, random.random())


def _record(
    run: _ModelRun, question: Question, began: int, result: str, usage: Usage, by: str = ""
) -> ModelCall:
    return ModelCall(
        question.model,
        began,
        run.log.now(),
        result,
        usage,
        question.max_tokens or question.cap,
        run.on_delta is not None,
        by,
    )


def _guess(question: Question, completion: Completion) -> Usage:
    """Where a server counts nothing: a third of the bytes (English ÷4, Chinese ÷2)."""
    asked = sum(size_of(str(message["content"])) for message in question.messages)
    said = size_of(completion.text)
    return Usage(asked // 3 + 1, said // 3 + 1)


def _shortened(question: Question, model: ModelRef, dropped: int) -> Question:
    if model is question.model and not dropped:
        return question
    messages, turns = question.without_turns(dropped), question.turns - dropped
    return replace(question, model=model, messages=messages, turns=turns)
