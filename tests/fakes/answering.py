"""What one request's life works with, in memory: a store, a model, a broker."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from service.domain import Claimed, Ending, Message, Publish, Reservation, State, Usage, Wait
from service.errors import BrokerError, ModelError, StoreBusy
from service.flows import Flow, Flows, parse
from service.llm.answers import Completion
from service.llm.client import Question
from service.llm.retry import USUAL

FLOW = """
[flows.x]
request = "in/${user}"
reply = "out/${user}"
"""


def flows(text: str = FLOW) -> Flows:
    made, faults = parse(text)
    assert made is not None, [str(fault) for fault in faults]
    return made


def flow(text: str = FLOW) -> Flow:
    return flows(text).flows["x"]


def claimed(payload: bytes = b"hi", **fields: Any) -> Claimed:
    known: dict[str, Any] = {
        "seq": 1,
        "fence": 1,
        "id": "r1",
        "flow": "x",
        "conversation": "ada",
        "ordered": False,
        "state": State.ANSWERING,
        "message": Message(id="m1", topic="in/ada", payload=payload, received_at=0),
        "accepted_at": 0,
        "deadline": 60_000,
    }
    return Claimed(**known | fields)


class FakeStore:
    """Keeps what was written. `busy` writes fail first; `lost`: another process has the lease."""

    def __init__(self) -> None:
        self.busy = 0
        self.lost = False
        self.answers: list[Ending] = []
        self.ends: list[dict[str, Any]] = []
        self.later: list[dict[str, Any]] = []
        self.steps: list[Sequence[Mapping[str, Any]]] = []
        self.over: str | None = None
        self.settled: list[tuple[str, int]] = []

    def _write(self) -> bool:
        if self.busy:
            self.busy -= 1
            raise StoreBusy("the database is locked")
        return not self.lost

    async def save_ending(self, claimed: Claimed, ending: Ending) -> bool:
        if kept := self._write():
            self.answers.append(ending)
        return kept

    async def finish(self, claimed: Claimed, **end: Any) -> bool:
        if kept := self._write():
            self.ends.append(end)
        return kept

    async def reschedule(self, claimed: Claimed, **later: Any) -> bool:
        if kept := self._write():
            self.later.append(later)
        return kept

    async def checkpoint(
        self, claimed: Claimed, steps: Sequence[Mapping[str, Any]], usage: Usage, **waits: Any
    ) -> bool:
        if kept := self._write():
            self.steps.append(list(steps))
        return kept

    async def waits_of(self, seq: int) -> list[Wait]:
        return []

    async def reserve(self, wanted: Sequence[Reservation]) -> str | None:
        return self.over

    async def settle(self, key: str, window: int, delta: int) -> None:
        self.settled.append((key, delta))


class FakeAsker:
    """Says what the script says, then "well"; notes what it was asked."""

    def __init__(self, *script: Completion | Exception) -> None:
        self.script = deque(script)
        self.policy = USUAL
        self.asked: list[Question] = []

    async def ask(self, question: Question, fallback: Any, log: Any, **more: Any) -> Completion:
        self.asked.append(question)
        said = self.script.popleft() if self.script else Completion("well", "m", Usage(3, 4))
        if isinstance(said, ModelError):
            log.add(log.now(), question.model, said.code, said.message)
        if isinstance(said, Exception):
            raise said
        log.add(log.now(), question.model, "ok")
        log.usage += said.usage
        return said


Behaviour = Callable[[Publish], bool | BrokerError | None]


class FakeEmqx:
    """Takes every message, unless `behave` says otherwise; `away` refuses all calls."""

    def __init__(self) -> None:
        self.calls: list[list[Publish]] = []
        self.behave: Behaviour = lambda message: True
        self.away: BrokerError | None = None
        self.bulk_refused = False  # 400 for a list in which one is refused, naming none
        self.waiting = 0  # calls while it is not `open`
        self.open = asyncio.Event()
        self.open.set()
        self.known: dict[str, bytes] = {}

    @property
    def published(self) -> list[Publish]:
        return [message for call in self.calls for message in call]

    async def publish(self, message: Publish) -> bool | None:
        (result,) = await self._call([message])
        if isinstance(result, BrokerError):
            raise result
        return result

    async def publish_bulk(self, messages: Sequence[Publish]) -> list[bool | BrokerError | None]:
        if self.bulk_refused:
            raise refused()
        return await self._call(list(messages))

    async def _call(self, messages: list[Publish]) -> list[bool | BrokerError | None]:
        self.waiting += 1
        await self.open.wait()
        self.waiting -= 1
        self.calls.append(messages)
        if self.away is not None:
            raise self.away
        return [self.behave(message) for message in messages]

    async def retained(self, topic: str) -> bytes | None:
        return self.known.get(topic)


def refused() -> BrokerError:
    return BrokerError("EMQX refused a message", code="publish_refused", refused=True)


def unavailable() -> BrokerError:
    return BrokerError("EMQX's API answered 503", code="broker_unavailable", status=503)


class FakePublisher:
    """Delivers at once; `refuse` answers for a topic."""

    def __init__(self) -> None:
        self.delivered: list[Publish] = []
        self.progress: list[Publish] = []
        self.refuse: dict[str, BrokerError] = {}
        self.refuse_at: int | None = None  # the how manieth message
        self.nobody = False  # is subscribed
        self.hold: asyncio.Event | None = None

    async def deliver(self, outbox: Sequence[Publish], *, after: str | None = None) -> list[Any]:
        if self.hold is not None:
            await self.hold.wait()
        since = len(self.delivered)
        self.delivered.extend(outbox)
        results: list[Any] = [self.refuse.get(one.topic, not self.nobody) for one in outbox]
        if self.refuse_at is not None and since <= self.refuse_at < len(self.delivered):
            results[self.refuse_at - since] = refused()
        return results

    async def send(self, message: Publish, *, once: bool = False) -> Any:
        return (await self.deliver([message]))[0]

    def told_instead(self, call: Mapping[str, Any]) -> str | None:
        return None

    def post(self, message: Publish, *, of: str) -> None:
        self.progress.append(message)

    async def retained(self, topic: str) -> bytes | None:
        return None


async def until(what: Callable[[], Any]) -> None:
    """Let the other tasks run until this is so; fails after 10 s."""
    ends = asyncio.get_running_loop().time() + 10
    while True:
        if what():
            return
        assert asyncio.get_running_loop().time() < ends, "it did not come about"
        await asyncio.sleep(0.001)
