"""The one way from a model's call to a device: every command goes through `ToolGate.carry_out`.

A call has a few stages: is it allowed, did a person say yes, is it sent, what did the device
answer, did it work. What must not be done twice is stored before it is done, so a process that
takes over goes on from there. A call that has to wait says so, and its request sleeps in the
inbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from service.answering.job import Job, retry_while_busy, under_lease
from service.answering.tool_command import Command, data, said, seal, understood
from service.answering.tool_limits import (
    OverLimit,
    check_bounds,
    check_hours,
    check_way,
    reservations,
)
from service.answering.tool_round import (
    COMMITTED,
    MISMATCH,
    REFUSED,
    UNKNOWN,
    Asleep,
    Done,
    Round,
    Sender,
    Store,
    done_before,
    stage_of,
)
from service.answering.tool_waits import listens_for, question_of
from service.domain import Ear, Publish, Reservation, Wait
from service.emqx.publish_api import Result
from service.errors import BrokerError, MessageError
from service.mcp.offer import OfferedTool
from service.units import show_seconds

CONFIRMED = 60_000  # ms that a yes counts; who said it does not expect anything later
AGAIN = 1.0  # seconds between tries of what may be done now only
POLL = 1000  # ms between two looks at a retained message that has to change


class ToolGate:
    """`now` gives epoch ms."""

    def __init__(self, store: Store, sender: Sender, *, now: Callable[[], int]) -> None:
        self._store = store
        self._sender = sender
        self._now = now

    async def carry_out(self, round: Round) -> list[Done] | Asleep:
        """What the model is told of each call; or until when they have to wait. Raises
        LostLease."""
        calls = round.step["calls"]
        round.kept = [dict(one) for one in round.step.get("stages") or [{} for _ in calls]]
        if any(round.kept):
            known = await self._store.waits_of(round.job.claimed.seq)
            mine = {call["call_id"] for call in calls}
            round.waits = {(one.call_id, one.ear): one for one in known if one.call_id in mine}
            round.ears |= round.waits.keys()
        asking: Asleep | None = None
        found: list[Command | Done | Asleep] = []
        for at in range(len(calls)):  # one question after the other: a yes must be to one thing
            made: Command | Done | Asleep = self._made(round, at)
            # Who was asked once is asked, also where the tool would not ask any more.
            asks = isinstance(made, Command) and (made.tool.confirm or "seal" in made.kept)
            if isinstance(made, Command) and asks and "sending" not in made.kept:
                made = asking or await self._confirmed(round, made)
                asking = made if isinstance(made, Asleep) else None
            found.append(made)
        results = await asyncio.gather(
            *(self._go(round, at, made) for at, made in enumerate(found))
        )
        waiting = [one for one in results if isinstance(one, Asleep)]
        if waiting:
            ears = {ear for one in waiting for ear in one.ears}
            return Asleep(min(one.until for one in waiting), tuple(sorted(ears)))
        return [one for one in results if isinstance(one, Done)]

    async def _go(self, round: Round, at: int, made: Command | Done | Asleep) -> Done | Asleep:
        """One call, as far as it comes now."""
        if "result" in round.kept[at]:
            return done_before(round.kept[at])
        job, call = round.job, round.step["calls"][at]
        began = job.log.now()
        result = await self._act(round, made) if isinstance(made, Command) else made
        if isinstance(result, Done):
            round.kept[at] |= stage_of(result)
            known = any(tool.name == call["name"] for tool in job.flow.tools)
            known = known or call["name"] in job.remote.tools
            failed = result.text.startswith(("error:", "refused:", "unknown:"))
            job.spans.tool(call, known, began, job.log.now(), failed)
        return result

    # Is it a call at all

    def _made(self, round: Round, at: int) -> Command | Done:
        job, call, kept = round.job, round.step["calls"][at], round.kept[at]
        if "result" in kept:
            return done_before(kept)
        made = understood(job, call, kept)
        # Of a server that is away nobody knows its tool; the call's own marks tell.
        once = round.resumed and call.get("once") and not call.get("guarded")
        gone = once and job.remote.meant(call["name"]) and call["name"] not in job.remote.tools
        if isinstance(made, str) and ("sending" in kept or gone):
            text = f"unknown: it may or may not have been done, and can't be looked after: {made}"
            return Done(text, UNKNOWN, unsettled=True)
        return Done(made) if isinstance(made, str) else made

    # Is it wanted

    async def _confirmed(self, round: Round, made: Command) -> Command | Done | Asleep:
        """The call itself, where a person said yes to just this."""
        if self._sender.told_instead(made.call) is not None:
            return made
        kept, now = made.kept, self._now()
        if kept.get("seal", seal(made)) != seal(made):
            text = "refused: the tool changed since the person was asked; nothing was done"
            return Done(text, REFUSED)
        wait = round.waits.get((made.id, Ear.CONFIRM))
        if wait is not None and wait.answered_at is not None:
            if wait.answer != b"yes":
                return Done("refused: the person said no; nothing was done", REFUSED)
            if now > (wait.closed_at or 0) + CONFIRMED:
                return Done("refused: it was confirmed too long ago; nothing was done", REFUSED)
            return made
        over = wait is None or now >= wait.until
        if over and ("asked" in kept or (made.tool.confirm is None and "seal" in kept)):
            return Done("refused: nobody confirmed it in time; nothing was done", REFUSED)
        if wait is not None and made.tool.confirm is None:
            return Asleep(wait.until, ((made.id, Ear.CONFIRM),))
        try:
            question, asked = question_of(round.job, made, self._now())
            if wait is None or now >= wait.until:  # who was never asked has all the time
                wait = asked
                await self._allowed(made)
                await self._has_room(round.job, made)
                kept["seal"] = seal(made)
                await self._keep(round, [wait])
            if "asked" not in kept:  # or an earlier process died just then
                [result] = await self._sender.deliver((question,))  # it is no command
                if isinstance(result, BrokerError):
                    raise result
                kept["asked"] = now
        except (MessageError, BrokerError) as error:
            return Done(f"error: the person can't be asked: {error.message}", REFUSED)
        except OverLimit as refused:
            return Done(str(refused), REFUSED)
        return Asleep(wait.until, ((made.id, Ear.CONFIRM),))

    async def _allowed(self, made: Command) -> None:
        """Raises OverLimit, BrokerError, MessageError."""
        check_hours(made.tool, self._now())
        await check_bounds(made.tool, made.arguments, made.scope, self._sender.retained)

    async def _has_room(self, job: Job, made: Command) -> None:
        """Raises OverLimit where its rate is used up: nobody is asked in vain."""
        for one in await self._reserve(job, made):
            await self._store.settle(one.key, one.window, -one.amount)

    async def _reserve(self, job: Job, made: Command) -> list[Reservation]:
        """What it takes of its rates, taken. Raises OverLimit."""
        tool = made.tool
        wanted = reservations(tool, job.flow.name, job.claimed.conversation, self._now())
        if wanted and (full := await retry_while_busy(self._store.reserve, wanted)) is not None:
            limit = next(one.limit for one in wanted if one.key == full)
            raise OverLimit(f"refused: {tool.name} may be used {limit} times in this time at "
                          "most; nothing was done")  # fmt: skip
        return wanted

    # Do it

    async def _act(self, round: Round, made: Command) -> Done | Asleep:
        told = self._sender.told_instead(made.call)
        if told is not None:
            return Done(told)
        tool, kept = made.tool, made.kept
        try:
            if made.message is None and made.remote is None:
                return Done(await self._look(made))
            doubtful = round.resumed and not tool.guarded  # it was stored before it began
            if "sending" in kept and "sent" not in kept:
                doubtful = True
            if doubtful and (tool.at_most_once or kept.get("seal", seal(made)) != seal(made)):
                kept.setdefault("sending", self._now())
                return await self._after(round, made, interrupted=True)
            if "sent" not in kept:
                if not self._answered(round, made):
                    begun = await self._begin(round, made, doubtful=doubtful)
                    if isinstance(begun, Done):
                        return begun
                kept["sent"] = self._now()
            return await self._after(round, made)
        except OverLimit as refused:
            return Done(str(refused), REFUSED)
        except (MessageError, BrokerError) as error:
            if "sent" in kept:
                text = f"unknown: it was sent, and can't be looked after: {error.message}"
                return Done(text, UNKNOWN, unsettled=tool.at_most_once)
            return Done(f"error: {error.message}", REFUSED if made.message else None)

    def _answered(self, round: Round, made: Command) -> bool:
        """Whether a device answered what an earlier process sent."""
        wait = round.waits.get((made.id, Ear.ANSWER))
        return wait is not None and wait.answered_at is not None

    async def _look(self, made: Command) -> str:
        if made.tool.read is None:
            return "error: the tool does nothing"
        payload = await self._sender.retained(made.tool.read.render_topic(made.scope))
        if payload is None:
            return "nothing is known: there is no retained message"
        return data("retained message", payload)

    async def _begin(self, round: Round, made: Command, *, doubtful: bool) -> Done | None:
        """Send it; None: the broker has it, and somebody may have heard. What is waited for is
        stored before: an answer may be faster than we are."""
        tool, job, kept, now = made.tool, round.job, made.kept, self._now()
        if not doubtful:
            if made.message is not None:
                check_way(job.flow, tool, made.message.topic)
            await self._allowed(made)
            await self._reserve(job, made)
        kept["sending"] = now
        if tool.guarded:
            kept["seal"] = seal(made)
            await self._keep(round, listens_for(job, made, now))
        if made.remote is not None:
            return await self._call_server(job, made, made.remote)
        if made.message is None:
            raise AssertionError("a command is a message")
        result = await self._send(round, made, made.message)
        if isinstance(result, BrokerError):
            if not result.refused:
                return Done(f"error: {result.message}", UNKNOWN, unsettled=tool.at_most_once)
            return Done(f"error: {result.message}", REFUSED)
        if result is not False:
            return None
        if not made.message.retain and not made.message.topic.startswith("$delayed/"):
            return Done("sent, but no device is listening", REFUSED)
        if tool.answer is not None or tool.verify is not None:
            return None
        return Done("sent and kept by the broker, but no device is listening now", COMMITTED)

    async def _send(self, round: Round, made: Command, message: Publish) -> Result:
        """Over outages; but what may be done now only is not done after one. A BrokerError that is
        no refusal: nobody knows."""
        tool = made.tool
        if tool.at_most_once or not (tool.confirm or tool.hours or tool.bounds):
            return await self._sender.send(message, once=tool.at_most_once)
        said = round.waits.get((made.id, Ear.CONFIRM))
        until = round.job.claimed.deadline
        if said is not None and said.closed_at is not None:
            until = said.closed_at + CONFIRMED
        while True:
            result = await self._sender.send(message, once=True)
            if not isinstance(result, BrokerError) or result.refused:
                return result
            await asyncio.sleep(AGAIN)
            if self._now() > until:
                return result
            try:
                await self._allowed(made)
            except (OverLimit, BrokerError):
                return result

    async def _call_server(self, job: Job, made: Command, remote: OfferedTool) -> Done:
        left = (job.claimed.deadline - self._now()) / 1000
        result = await job.remote.servers.call(remote, made.arguments, max(1.0, left))
        if result.unknown:
            return Done(result.text, UNKNOWN, unsettled=True)
        if result.failed:
            # By its own word, which says nothing of how far it came.
            return Done(result.text, REFUSED if result.refused else None)
        return Done(result.text, None if remote.read_only else COMMITTED)

    # What came of it

    async def _after(
        self, round: Round, made: Command, *, interrupted: bool = False
    ) -> Done | Asleep:
        tool, kept, now = made.tool, made.kept, self._now()
        began = int(kept["sending"])
        answer = None
        if tool.answer is not None:
            wait = round.waits.get((made.id, Ear.ANSWER))
            until = began + int(tool.answer_timeout * 1000) if wait is None else wait.until
            if wait is not None and wait.answered_at is not None:
                answer = wait.answer or b""
            elif now < until:
                ears = ((made.id, Ear.ANSWER), (made.id, Ear.VERIFY))
                return Asleep(until, ears if tool.verify is not None else ears[:1])
        if tool.verify is not None:
            return await self._verified(round, made, sure=answer is not None)
        if answer is not None:
            return Done(data("the device answered", answer), COMMITTED)
        if interrupted:
            text = "unknown: interrupted; it may or may not have been done and is not repeated"
            return Done(text, UNKNOWN, unsettled=True)
        if tool.answer is not None:
            text = f"unknown: no answer within {show_seconds(tool.answer_timeout)}; it may or may "
            return Done(text + "not have been done", UNKNOWN, unsettled=tool.at_most_once)
        return Done("done", COMMITTED)

    async def _verified(self, round: Round, made: Command, *, sure: bool) -> Done | Asleep:
        """Told is what really is. `sure`: the device has answered the command."""
        tool, now = made.tool, self._now()
        verify = tool.verify
        if verify is None:
            raise AssertionError("a tool that is verified")
        until = int(made.kept["sending"]) + int(verify.within * 1000)
        if verify.read is not None:
            latest = await self._retained_by_now(verify.read.render_topic(made.scope), until)
            held = latest is not None and verify.expect.holds(said(made, round.job, latest))
            sleep = Asleep(min(until, now + POLL))
        else:
            wait = round.waits.get((made.id, Ear.VERIFY))
            latest = wait.answer if wait is not None else None
            held = wait is not None and wait.answered_at is not None
            sleep = Asleep(until, ((made.id, Ear.VERIFY),))
        if held:
            text = data("done, and checked; the device says", latest or b"")
            return Done(text, COMMITTED)
        if now < until:
            return sleep
        within = show_seconds(verify.within)
        if latest is None and not sure:
            text = f"unknown: the device says nothing within {within}; it may or may not have been"
            return Done(f"{text} done", UNKNOWN, unsettled=tool.at_most_once)
        seen = "the device says nothing" if latest is None else data("the device says", latest)
        text = f"error: it did not work: {verify.expect} does not hold after {within}; {seen}"
        return Done(text, MISMATCH)

    async def _retained_by_now(self, topic: str, until: int) -> bytes | None:
        """What can't be read now may be read soon. Raises BrokerError when the time is over."""
        try:
            return await self._sender.retained(topic)
        except BrokerError:
            if self._now() >= until:
                raise
            return None

    async def _keep(self, round: Round, begun: Sequence[Wait]) -> None:
        job = round.job
        round.ears |= {(wait.call_id, wait.ear) for wait in begun}
        await under_lease(
            self._store.checkpoint, job.claimed, round.steps, job.log.usage, begun=begun
        )
