"""Devices' messages and EMQX's buffer workers, which bring each to a webhook until it is taken."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from service.domain import State
from tests.chaos.wire import Connection, Gone, Lost
from tests.rig import WEBHOOK

WORKERS = 16  # EMQX's buffer workers
CONNECTIONS = 8
WINDOW = 100  # messages of a worker that are out at once (inflight_window)
RESUME = 2.0  # seconds before a worker tries a message again (health_check_interval)
STRAGGLERS = 0.2  # of those it tries again it sends later than younger ones
LATE = (0.5, 2.0)  # seconds by which they are later
_AGAIN = (429, 503)  # what EMQX tries again; any other status than 2xx drops the message
_DONE = frozenset({State.DONE})
_LATE = frozenset({State.DONE, State.EXPIRED, State.FAILED})
_EMPTY = frozenset({State.IGNORED})


@dataclass(eq=False, slots=True)
class Message:
    """One published message, and what became of it at the webhooks."""

    id: str
    received_at: int
    flow: str
    name: str  # of the user, the job: what the topic captures
    text: str
    ends: frozenset[State]
    copies: int = 1  # how often EMQX delivers it
    sent_at: float = 0.0
    taken_at: float = 0.0  # the first 202; 0: none
    accepted: int = 0
    duplicates: int = 0
    refused: list[int] = field(default_factory=list)
    gone: int = 0  # copies that EMQX gave up

    @property
    def conversation(self) -> tuple[str, str]:
        return self.flow, self.name

    @property
    def ordered(self) -> bool:
        return self.flow == "chat"

    @property
    def wanders(self) -> bool:
        """Its client reconnects all the time, each time to another buffer worker."""
        return self.name.endswith(("3", "8"))

    @property
    def reply_topic(self) -> str:
        return f"{self.flow}/{self.name}/say"

    def request(self) -> bytes:
        """As EMQX posts it."""
        body = orjson.dumps(
            {
                "flow": self.flow,
                "id": self.id,
                "clientid": self.name,
                "username": "undefined",
                "topic": f"{self.flow}/{self.name}/ask",
                "payload": self.text,
                "qos": 1,
                "pub_props": {"User-Property": {}},
                "publish_received_at": self.received_at,
                "correlation_base64": "",
            }
        )
        head = (
            "POST /webhook HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json\r\n"
            "connection: keep-alive\r\ncontent-type: application/json\r\nkeep-alive: timeout=5\r\n"
            f"authorization: Bearer {WEBHOOK}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Devices:
    """Makes up messages: numbered in each conversation, some twice, some empty, some urgent."""

    def __init__(self, rng: random.Random, conversations: int) -> None:
        self._rng = rng
        self._users = [f"c{number}" for number in range(conversations)]
        self._counts: dict[tuple[str, str], int] = {}
        self._serial = itertools.count()
        self.messages: list[Message] = []

    def speak(self) -> Message:
        """The next message of somebody."""
        rng = self._rng
        flow = rng.choices(("chat", "job", "door", "brief"), (70, 20, 7, 3))[0]
        name = rng.choice(self._users) if flow == "chat" else f"{flow[0]}{rng.randrange(50)}"
        number = self._counts[flow, name] = self._counts.get((flow, name), 0) + 1
        text, ends = f"{name} #{number}", _LATE if flow == "brief" else _DONE
        if rng.random() < 0.01:  # how MQTT deletes a retained message; rules fire on it too
            text, ends = "", _LATE | _EMPTY if flow == "brief" else _EMPTY
        now = time.time_ns()
        # EMQX's ids sort by time within a node.
        id = f"{now // 1000:016X}F443{next(self._serial) % 2**48:012X}"
        copies = 2 if rng.random() < 0.03 else 1
        made = Message(id, now // 1_000_000, flow, name, text, ends, copies)
        self.messages.append(made)
        return made


class _Worker:
    """One buffer worker: it keeps to a connection (pool_type = hash) and sends in turn, but what
    has to be sent again goes out when its time comes, also after younger messages."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.queue: asyncio.Queue[Message] = asyncio.Queue()
        self.window = asyncio.Semaphore(WINDOW)
        self.retrying = asyncio.Lock()
        self._blocked_until = 0.0

    def block(self) -> None:
        """A message was not taken: nothing is sent for RESUME seconds."""
        self._blocked_until = max(self._blocked_until, time.monotonic() + RESUME)

    async def resumed(self) -> None:
        while (pause := self._blocked_until - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(pause)


class Feed:
    """EMQX's action: messages wait in their worker until a webhook took them."""

    def __init__(self, ports: Sequence[int], rng: random.Random) -> None:
        self._rng = rng
        self.connections = [Connection(ports, rng) for _ in range(CONNECTIONS)]
        self._workers = [_Worker(self.connections[at % CONNECTIONS]) for at in range(WORKERS)]
        self._tasks: list[asyncio.Task[None]] = []
        self._carried: set[asyncio.Task[None]] = set()
        self.answers: dict[int, int] = {}  # by status
        self.gone = 0  # messages that EMQX would have given up
        self.lost = 0  # requests whose connection broke before the answer
        self.slowest: list[tuple[float, float, int]] = []  # (took, at, port) of slow answers

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._work(worker)) for worker in self._workers]

    async def close(self) -> None:
        tasks = (*self._tasks, *self._carried)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in self.connections:
            await connection.close()

    def publish(self, message: Message) -> None:
        """A client keeps to one worker; one that reconnects all the time (every fifth) does not."""
        for copy in range(message.copies):
            at = zlib.crc32(message.name.encode()) % WORKERS
            if message.wanders or copy:
                at = self._rng.randrange(WORKERS)
            self._workers[at].queue.put_nowait(message)

    async def drained(self) -> None:
        """Return when every message was taken or dropped."""
        for worker in self._workers:
            await worker.queue.join()

    @property
    def waiting(self) -> int:
        return sum(worker.queue.qsize() for worker in self._workers) + len(self._carried)

    async def _work(self, worker: _Worker) -> None:
        while True:
            message = await worker.queue.get()
            await worker.window.acquire()
            await worker.resumed()
            carried = asyncio.create_task(self._carry(worker, message))
            self._carried.add(carried)
            carried.add_done_callback(self._carried.discard)
            await asyncio.sleep(0)  # it is sent before the next one

    async def _carry(self, worker: _Worker, message: Message) -> None:
        """Until it is taken, or given up. What failed is tried again one by one."""
        if not await self._offer(worker.connection, message):
            worker.block()
            if self._rng.random() < STRAGGLERS:
                await asyncio.sleep(self._rng.uniform(*LATE))
            async with worker.retrying:
                await worker.resumed()
                while not await self._offer(worker.connection, message):
                    worker.block()
                    await worker.resumed()
        worker.window.release()
        worker.queue.task_done()

    async def _offer(self, connection: Connection, message: Message) -> bool:
        """Whether that was the end of it."""
        message.sent_at = message.sent_at or time.time()
        try:
            answer = await connection.request(message.request())
        except Gone:
            message.gone += 1
            self.gone += 1
            return True
        except Lost:
            self.lost += 1
            return False
        self.answers[answer.status] = self.answers.get(answer.status, 0) + 1
        if answer.took > 1:
            self.slowest.append((answer.took, time.time(), answer.port))
        if answer.status in _AGAIN:
            return False
        if answer.status != 202:
            message.refused.append(answer.status)
            return True
        told = orjson.loads(answer.body)
        message.taken_at = message.taken_at or time.time()
        message.accepted += told["accepted"]
        message.duplicates += told["duplicates"]
        return True
