"""Ask with retries and fallback: one durable attempt, over the models of a flow in turn."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace

import tenacity

from service.domain import Usage
from service.errors import ErrorKind, ModelError
from service.flows import ModelRef
from service.llm import retry
from service.llm.answers import Completion
from service.llm.attempts import Log
from service.llm.circuit_breaker import CircuitBreakers
from service.llm.client import Gpt, OnDelta, Question

OnCall = Callable[[str, str, float, Usage], None]
_RANK = (ErrorKind.RATE, ErrorKind.ACCOUNT, ErrorKind.PASSING, ErrorKind.MODEL, ErrorKind.REQUEST)


class Asker:
    """Asks through the gates and applies the inner ring of retries.

    The worker bounds how many requests are in hand, and each has one call at a time.
    `on_call(model, result, seconds, usage)` hears of every call.
    """

    def __init__(self, gpt: Gpt, gates: CircuitBreakers, *, on_call: OnCall) -> None:
        self._gpt = gpt
        self.gates = gates
        self._on_call = on_call

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
        error: ModelError | None = None
        ends = time.monotonic() + left
        calls = len(log.attempts)
        fallen: set[str] = set()
        for model in (question.model, *fallback):
            waiting = self.gates.wait(model.provider)
            if waiting > 0 and model.provider in fallen:
                continue  # paused by what we saw ourselves: that it fails says more
            if waiting > 0:
                error = _worse(error, self._paused(model, waiting))
                continue
            if len(log.attempts) > calls and on_restart is not None:
                on_restart()  # the model before may have begun to speak
            try:
                asked = question if model is question.model else replace(question, model=model)
                return await self._ring(asked, log, ends, on_delta, on_restart)
            except ModelError as failure:
                if failure.kind is ErrorKind.REQUEST:
                    raise
                if failure.kind is ErrorKind.PASSING:
                    fallen.add(model.provider)
                error = _worse(error, failure)
        if error is None:  # a flow always has a model
            raise AssertionError("no model to ask")
        raise error

    def _paused(self, model: ModelRef, waiting: float) -> ModelError:
        last = self.gates.last_error(model.provider)
        code = last.code if last else "model_paused"
        message = last.message if last else f"provider {model.provider} is paused"
        return ModelError(message, code=code, kind=ErrorKind.RATE, retry_after=waiting)

    async def _ring(
        self,
        question: Question,
        log: Log,
        ends: float,
        on_delta: OnDelta | None,
        on_restart: Callable[[], None] | None,
    ) -> Completion:
        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            after = error.retry_after if isinstance(error, ModelError) else None
            return retry.inner_delay(state.attempt_number, after, random.random())

        provider = question.model.provider

        def again(error: BaseException) -> bool:
            return retry.repeat_inside(error) and self.gates.wait(provider) <= 0

        def rounds() -> tenacity.AsyncRetrying:
            return tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception(again),
                stop=tenacity.stop_after_attempt(retry.INNER_ATTEMPTS)
                | tenacity.stop_before_delay(max(0.0, ends - time.monotonic())),
                wait=wait,
                reraise=True,
            )

        failure: ModelError | None = None

        async def attempt() -> Completion:
            nonlocal failure
            if failure is not None and self.gates.wait(provider) > 0:
                raise failure  # others had failures meanwhile; ours counts
            if failure is not None and on_restart is not None:
                on_restart()
            try:
                return await self._once(question, log, ends, on_delta)
            except ModelError as error:
                failure = error
                raise

        return await retry.with_retries(attempt, rounds)

    async def _once(
        self, question: Question, log: Log, ends: float, on_delta: OnDelta | None
    ) -> Completion:
        provider = question.model.provider
        waiting, left = self.gates.wait(provider), ends - time.monotonic()
        if waiting > 0 or left <= 0:
            raise self._paused(question.model, max(waiting, 0.0))
        if left < question.timeout:
            question = replace(question, timeout=left)
        began, clock = log.now(), time.monotonic()
        self.gates.enter(provider)
        try:
            if on_delta is None:
                completion = await self._gpt.complete(question)
            else:
                completion = await self._gpt.stream(question, on_delta)
        except ModelError as error:
            self.gates.failed(provider, error, log.id)
            log.add(began, question.model, error.code, error.message)
            self._on_call(str(question.model), error.code, time.monotonic() - clock, Usage())
            raise
        except BaseException:
            self.gates.left(provider)
            raise
        self.gates.succeeded(provider)
        log.add(began, question.model, "ok")
        log.usage += completion.usage
        self._on_call(str(question.model), "ok", time.monotonic() - clock, completion.usage)
        return completion


def _worse(one: ModelError | None, other: ModelError) -> ModelError:
    """Of two failures the one that leaves more hope: it decides when to try again."""
    if one is None:
        return other
    return min(one, other, key=lambda error: _RANK.index(error.kind))
