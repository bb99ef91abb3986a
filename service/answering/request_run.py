"""One request's life in this process, from its claim to its end. Read `RequestRunner.run` first.

Where a request is (`State`), and which call takes it on:

    queued ──claim──▶ answering ──save_ending──▶ answered ──finish──▶ done, failed, expired, ignored
       ▲               │    ▲
       ├──reschedule───┤    │       (tried again later; or its process died or was ended)
                       │    │
                       └──park──▶ waiting ──claim──▶ answering

- `answered` means that its ending is stored, whatever it is, and not yet published; where nothing
  is to be published, `save_ending` is the end.
- A request that waits for a device or a person is claimed again when they answer or their time
  is over. What they say comes by a rule of its own: `tool_answers` hears it.
- Some end without a life here: a duplicate that is found late, a message of another's batch, and
  what no flow is for, at its deadline.
- Where the order of a conversation counts (`Flow.ordered`), its next message begins at the end.
- What goes wrong for now with EMQX is repeated by the publisher; a BrokerError that comes back
  from it is a refusal that would be repeated for ever.
- The worker keeps the lease. Where it is lost, it cancels the task that runs here.

Whatever happens, the request is stored with its end, or back in the inbox, or under a lease
that runs out, after which another process takes it up where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from service.answering import prompt, sentences
from service.answering import reply as replies
from service.answering.final_answer import final_answer, said_instead
from service.answering.job import InHand, Job, LostLease, about, retry_while_busy, under_lease
from service.answering.prompt_data import tables_of
from service.answering.publisher import Publisher
from service.answering.recent import Recents
from service.answering.redelivery import Redelivery
from service.answering.remote import ToolServers
from service.answering.request_limits import Limits
from service.answering.stream import Stream, stream_for
from service.answering.summaries import Summaries
from service.answering.tool_loop import Parked, ToolLoop
from service.domain import Claimed, Ending, Publish, State, Turn, Usage
from service.emqx.publish_api import Result, of_all
from service.errors import BrokerError, BudgetError, ErrorKind, MessageError, ModelError, StoreError
from service.flows import Catalogue, Flow, change
from service.inbox import Inbox
from service.llm import retry
from service.llm.asker import Asker
from service.llm.attempts import Log
from service.llm.client import OFF_LOOP
from service.mqtt.templates import Scope
from service.operations.events import Hub
from service.operations.metrics import Metrics
from service.operations.spans import Spans, Untraced

MAX_REASONING = 20_000  # characters that are kept of what a model thought
MAX_CLAIMS = 5  # in a row without a step forward; more: it is what ends the processes

log = logging.getLogger("emqx-gpt.answering")
ends = logging.getLogger("emqx-gpt.requests")


class RequestRunner:
    """Runs requests, many side by side; they share what is in here. `now` gives epoch ms."""

    def __init__(
        self,
        flows: Catalogue,
        store: Inbox,
        asker: Asker,
        publisher: Publisher,
        hub: Hub,
        metrics: Metrics,
        in_hand: InHand,
        redelivery: Redelivery,
        limits: Limits,
        *,
        recents: Recents,
        summaries: Summaries,
        now: Callable[[], int],
        max_attempts: int,
        poison: frozenset[str] = frozenset(),
        keep_prompts: bool = False,
        tracing: Untraced | None = None,
        servers: ToolServers | None = None,
    ) -> None:
        self._tracing = tracing or Untraced()
        self._keep_prompts = keep_prompts
        self._flows = flows
        self._store = store
        took = metrics.tools_stage.observe
        self._tool_loop = ToolLoop(store, asker, publisher, now=now, took=took, servers=servers)
        self._policy = asker.policy
        self._publisher = publisher
        self._hub = hub
        self._metrics = metrics
        self._in_hand = in_hand
        self._redelivery = redelivery
        self._limits = limits
        self._recents = recents
        self._summaries = summaries
        self._now = now
        self._max_attempts = max_attempts
        self._poison = poison

    async def run(self, claimed: Claimed) -> None:
        """The whole life: answered, stored, published, ended. Each step may be the last one of
        this process; what was stored before it is not done again. It ends by the flows that were
        in force when it began."""
        with self._flows.pinned():
            spans = self._tracing.of(claimed, self._flow_of(claimed))
            try:
                if claimed.state is State.ANSWERED:  # an earlier process did not publish it
                    ended = claimed.outcome or State.DONE
                    ending = Ending(ended, claimed.outbox, error_code=claimed.error_code)
                else:
                    made = await self._answer(claimed, spans)
                    if made is None:
                        return  # back in the inbox, for later
                    ending = made
                    await under_lease(self._store.save_ending, claimed, ending)
                    if (together := ending.trace.get("collected", 1)) > 1:
                        self._metrics.collected(claimed.flow or "", together - 1)
                    self._in_hand.free_place(claimed)  # others may ask the model
                state, code = ending.outcome, ending.error_code
                if ending.outbox:
                    state, code = await self._publish(claimed, ending, spans)
                self._log_end(claimed, state, code, claimed.usage + ending.usage, spans)
                if ending.turn is not None:
                    self._summarize(claimed, ending, ending.turn)
            except LostLease:
                log.debug("request %s: another process has it", claimed.id)
            except StoreError as error:
                # Its lease runs out, and whoever claims it then goes on from what was stored.
                text = "request %s: not stored: %s"
                log.error(text, claimed.id, error.message, extra=about(claimed))
            except Exception:
                log.exception("request %s: an internal error", claimed.id, extra=about(claimed))
            finally:
                self._in_hand.let_go(claimed)

    async def _publish(
        self, claimed: Claimed, ending: Ending, spans: Spans
    ) -> tuple[State, str | None]:
        """Publish what is to be told, and store the end: the state and the error code of it."""
        began = self._now()
        results = await self._publisher.deliver(ending.outbox, after=claimed.id)
        pieces = len(results) - self._has_light(claimed, ending.outbox, spans)
        became = of_all(results[:pieces])
        self._note_published(ending, began, became, spans)
        state, code = ending.outcome, ending.error_code
        said = state is State.DONE or (state is State.FAILED and ending.text is not None)
        if isinstance(became, BrokerError) and said:
            # EMQX takes no such reply, whenever it is sent: its sender is told why.
            await self._publisher.deliver(self._refusal(claimed, became, spans))
            if state is State.DONE:
                state, code = State.FAILED, became.code
                await under_lease(
                    self._store.finish,
                    claimed,
                    delivered=False,
                    outcome=state,
                    error_code=code,
                    error_message=became.message,
                )
                return state, code
        delivered = False if isinstance(became, BrokerError) else became
        hold = None  # when it is published again
        nobody = became is False and state is not State.IGNORED
        if nobody:
            hold = self._redelivery.window(self._flow_of(claimed), ending.outbox)
        await under_lease(self._store.finish, claimed, delivered=delivered, held=hold)
        if nobody and hold is None:
            self._metrics.nobody(claimed.flow or "")
        return state, code

    def _has_light(self, claimed: Claimed, outbox: Sequence[Publish], spans: Spans) -> bool:
        """Whether the last of these is a status, which nobody misses, and no piece of a reply."""
        flow = self._flow_of(claimed)
        job = self._job(claimed, spans) if flow is not None and flow.status is not None else None
        light = replies.status(job, "") if job is not None else ()
        return any(one.topic == outbox[-1].topic for one in light)

    # How it is answered

    def _job(self, claimed: Claimed, spans: Spans) -> Job | None:
        """None: there is no such flow, or not any more."""
        flow = self._flow_of(claimed)
        if flow is None:
            return None
        message = flow.readable(claimed.message)
        if message is not claimed.message:
            claimed = replace(claimed, message=message)
        captured = flow.match(message.topic) or {}
        calls = Log(f"{claimed.flow}/{claimed.conversation}", self._now, flow.name, spans.heard)
        return Job(claimed, flow, captured, Scope(message, captured), calls, spans)

    async def _answer(self, claimed: Claimed, spans: Spans) -> Ending | None:
        """What to store; None: it went back to the inbox. Raises LostLease."""
        job = self._job(claimed, spans)
        if job is None:
            text = f"no flow {claimed.flow!r} here" if claimed.flow else "no flow fits the topic"
            return Ending(State.FAILED, error_code="flow_unknown", error_message=text)
        spans.begun(self._now())
        if claimed.claims == 1 and not claimed.trace:  # later ones waited for a retry, too
            self._metrics.queue_stage.observe(max(0, self._now() - claimed.accepted_at) / 1000)
        try:
            ending = self._end_before_asking(job)
            if ending is None:
                job, asked = await self._understand(job)
                ending = await self._end_without_model(job)
            if ending is None:
                turns = prompt.remembered(job.flow, claimed.turns, self._now())
                messages = list(prompt.compose(job.flow, asked, turns))
                job.log.prompted(messages, keep=self._keep_prompts)
                async with self._limits.counted(job, self._now()):
                    with self._begin_stream(job) as stream:
                        asking = partial(self._tell_progress, job, "working")
                        said = await self._tool_loop.run(job, messages, stream, asking)
                made = job, asked, turns, said, self._now()
                if len(said.completion.text) > OFF_LOOP:
                    ending = await asyncio.to_thread(final_answer, *made)
                else:
                    ending = final_answer(*made)
        except LostLease:
            raise
        except Exception as why:
            ending = await self._ending_after(job, why)
        return None if ending is None else self._with_its_calls(job, ending)

    def _end_before_asking(self, job: Job) -> Ending | None:
        """How it ends if it was given up or its time is over. Who began with tools is asked to
        the end: a command may be out."""
        claimed = job.claimed
        if claimed.id in self._poison or claimed.claims > MAX_CLAIMS:
            text = f"given up after it was begun {claimed.claims - 1} times and never finished"
            return replies.without_reply(job, State.FAILED, "worker_killed", text)
        if self._now() >= claimed.deadline and not claimed.steps:
            tried = claimed.tries or claimed.attempts
            text = "no answer came in time" if tried else "it came too late to be asked"
            return replies.without_reply(job, State.EXPIRED, "expired", text)
        return None

    async def _understand(self, job: Job) -> tuple[Job, prompt.Asked]:
        """What it asks, and the job with all that templates may read. Raises Ignored and
        MessageError."""
        claimed, flow, tables = job.claimed, job.flow, {}
        if flow.recent is not None or flow.collect is not None:
            tables = await tables_of(self._store, self._recents, claimed, flow, job.captured)
        if "collected" in tables:
            count = tables["collected"].values["count"]  # a payload may have a field of that name
            job.log.collected = int(getattr(count, "text", count))
        asked = prompt.understand(flow, claimed.message, job.captured, tables)
        return replace(job, scope=asked.scope), asked

    async def _end_without_model(self, job: Job) -> Ending | None:
        """How it ends without the model. Raises Ignored, or MessageError for a topic that
        can't be made: better known before the answer is paid for."""
        claimed, flow = job.claimed, job.flow
        if claimed.publish:
            replies.reply_topic(job)
        if flow.cooldown is not None and (claimed.cooldown_until or 0) > self._now():
            raise prompt.Ignored("cooldown")
        if flow.history is not None and flow.history.resets(job.scope.text):
            text = sentences.sentence(flow, "forgotten", job.scope.text) or ""
            return Ending(State.DONE, replies.answered(job, text), text=text, forget=True)
        if flow.on_change is not None:
            last = await retry_while_busy(self._store.last_value, flow.name, claimed.conversation)
            if not change.changed(flow, last, change.value_of(flow, job.scope)):
                raise prompt.Ignored("unchanged")
        return None

    def _with_its_calls(self, job: Job, ending: Ending) -> Ending:
        """With what is kept of the models that were called."""
        calls = job.log
        if (first := calls.first_after()) is not None:
            self._metrics.first_stage.observe(first / 1000)
        return replace(
            ending,
            attempts=tuple(calls.attempts),
            usage=calls.usage,
            trace=calls.trace(),
            batch=job.flow.batch,
            reasoning="\n\n".join(calls.reasoning)[-MAX_REASONING:] or None,
        )

    def _tell_progress(self, job: Job, state: str) -> None:
        for publish in replies.status(job, state):
            self._publisher.post(publish, of=job.claimed.id)

    def _begin_stream(self, job: Job) -> contextlib.AbstractContextManager[Stream | None]:
        """The stream for the reply's pieces, if anyone wants them."""
        stream = None
        if job.flow.stream is not None or self._hub.wanted(job.claimed.id):
            stream = stream_for(job, self._hub, self._publisher)
        return stream or contextlib.nullcontext()

    def _refusal(self, claimed: Claimed, error: BrokerError, spans: Spans) -> tuple[Publish, ...]:
        """What its sender is told when the broker refuses the reply."""
        job = self._job(claimed, spans)
        if job is None:
            return ()
        notice = replies.failure(job, error.code, error.message)
        return notice + replies.status(job, "failed", error.code)

    # When it fails

    async def _ending_after(self, job: Job, why: Exception) -> Ending | None:
        """How it ends, and what is told; None: it went back to the inbox."""
        try:
            match why:
                case prompt.Ignored():
                    return replies.without_reply(job, State.IGNORED, why.reason, say=False)
                case BudgetError():
                    # A command may be out: then it is a failure, which somebody looks at.
                    state = State.FAILED if why.begun else State.IGNORED
                    code, text = "limit", why.message
                    return replies.without_reply(job, state, code, text, about=why.about)
                case MessageError():
                    return replies.without_reply(job, State.FAILED, why.code, why.message)
                case ModelError():
                    return await self._retry_or_fail(job, why)
                case Parked():
                    await self._park(job, why)
                    return None
                case _:
                    raise why
        except LostLease:
            raise
        except Exception as fault:
            log.exception("request %s: an internal error", job.claimed.id, extra=about(job.claimed))
            return await self._after_internal_error(job, fault)

    async def _retry_or_fail(self, job: Job, error: ModelError) -> Ending | None:
        """How it ends; None: again later."""
        claimed, flow = job.claimed, job.flow
        if flow.on_error is not None:
            # Not tried again: an alert that waits until the model is well comes too late.
            return said_instead(job, flow.on_error.render(job.scope), error)
        decision = self._policy.decide(
            error,
            tries=claimed.tries + 1,
            max_attempts=self._max_attempts,
            jitter=random.random(),
            left=(claimed.deadline - self._now()) / 1000,
        )
        if isinstance(decision, retry.Later):
            await self._reschedule(job, decision, error)
            return None
        return replies.without_reply(job, State.FAILED, decision.code, error.message)

    async def _after_internal_error(self, job: Job, fault: Exception) -> Ending | None:
        """Tried again like a passing error of the model, and in the end a dead letter."""
        error = ModelError(
            f"an internal error ({type(fault).__name__})", code="internal", kind=ErrorKind.PASSING
        )
        tries = job.claimed.tries + 1
        if tries < self._max_attempts:
            later = retry.Later(self._policy.outer_delay(tries, random.random()))
            await self._reschedule(job, later, error)
            return None
        # Nothing is told: telling it may be what fails.
        return Ending(State.FAILED, error_code=error.code, error_message=error.message)

    async def _park(self, job: Job, parked: Parked) -> None:
        """It sleeps, in nobody's hands."""
        claimed, asleep = job.claimed, parked.asleep
        if parked.steps != list(claimed.steps):  # else it only looked whether it is so by now
            self._tell_progress(job, "waiting")
        ears = {str(ear) for _, ear in asleep.ears}
        reason = "person" if "confirm" in ears else "device"
        await under_lease(
            self._store.park,
            claimed,
            until=asleep.until,
            waiting_for=asleep.ears,
            steps=parked.steps,
            attempts=tuple(job.log.attempts),
            usage=job.log.usage,
            trace=job.log.trace((asleep.until, reason)),
        )

    async def _reschedule(self, job: Job, later: retry.Later, error: ModelError) -> None:
        claimed = job.claimed
        at = self._now() + int(later.delay * 1000)
        await under_lease(
            self._store.reschedule,
            claimed,
            at=at,
            attempts=tuple(job.log.attempts),
            count=later.counts,
            error_code=error.code,
            error_message=error.message,
            usage=job.log.usage,
            trace=job.log.trace((at, error.code)),
        )
        if later.counts:  # else it only waits for a limit, and no try is used up
            self._metrics.again("later", error.code)
        log.log(
            logging.WARNING if later.counts else logging.DEBUG,
            "request %s flow=%s: %s; again in %.1f s",
            claimed.id,
            claimed.flow,
            error.ours,
            later.delay,
            extra=about(claimed, code=error.code),
        )

    def _note_published(self, ending: Ending, began: int, result: Result, spans: Spans) -> None:
        now = self._now()
        self._metrics.publish_stage.observe(max(0, now - began) / 1000)
        error = result.code if isinstance(result, BrokerError) else None
        spans.published(ending.outbox, began, now, error)

    def _summarize(self, claimed: Claimed, ending: Ending, turn: Turn) -> None:
        flow = self._flow_of(claimed)
        if flow is not None and flow.history is not None and flow.history.summarize is not None:
            turns = (*claimed.turns, turn)
            self._summaries.follow(flow, claimed.conversation, turns, crowded=ending.crowded)

    def _log_end(
        self, claimed: Claimed, state: State, code: str | None, usage: Usage, spans: Spans
    ) -> None:
        """One log line, the counters, and its span."""
        spans.ended(self._now(), state, code, usage)
        seconds = max(0, self._now() - claimed.accepted_at) / 1000
        flow = claimed.flow or ""
        self._metrics.ended_in(self._flow_label(claimed), state, code, seconds)
        ends.log(
            logging.WARNING if state in (State.FAILED, State.EXPIRED) else logging.INFO,
            "request %s %s flow=%s took=%.3fs%s%s%s",
            claimed.id,
            state,
            flow or "-",
            seconds,
            f" tokens={usage.total_tokens}" if usage.total_tokens else "",
            f" cost=${usage.cost:.6f}" if usage.cost is not None else "",
            f" error={code}" if code else "",
            extra=about(
                claimed,
                state=str(state),
                code=code,
                seconds=seconds,
                tokens=usage.total_tokens,
                cost=usage.cost,
                trace_id=spans.trace,
            ),
        )

    def _flow_of(self, claimed: Claimed) -> Flow | None:
        return self._flows.flows.get(claimed.flow or "")

    def _flow_label(self, claimed: Claimed) -> str:
        """Its flow as a label of metrics; "" if there is no such flow."""
        return claimed.flow if claimed.flow and claimed.flow in self._flows.flows else ""
