"""Requests that wait for devices and people while their processes are killed.

`python -m tests.chaos.waits` plays 10,000 of them on both databases with 30 kills, and prints the
figures. Exit 1 on a violation: a request lost, a door unlocked twice or without a yes, a command
with other arguments than were asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.inbox import Filter, Inbox
from tests.chaos.postgres import postgresql
from tests.chaos.processes import Replica
from tests.fakes.model import FakeModel, ok, tool_calls
from tests.fakes.model_server import Server, bound, config
from tests.rig import WEBHOOK_AUTH

FLOWS = """
[flows.w]
request = "w/${n}"
reply = "r/${n}"
deadline = "1h"

[[flows.w.tools]]
name = "lamp"
description = "Switch a lamp"
topic = "lamp/${which}/set"
answer = "lamp/${which}/state"
answer_timeout = "6s"
parameters = { required = ["which"], properties = { which = { type = "string" } } }

[[flows.w.tools]]
name = "door"
description = "Unlock a door"
topic = "door/${which}/set"
at_most_once = true
answer = "door/${which}/state"
answer_timeout = "6s"
confirm = { ask = "ask/${which}", answer = "said/${which}", timeout = "12s" }
parameters = { required = ["which"], properties = { which = { type = "string" } } }
"""
LEASE = 3.0


@dataclass
class World:
    """The broker's REST side, the devices and the people behind it."""

    seed: int
    replicas: list[Replica]
    commands: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    asked: Counter[str] = field(default_factory=Counter)
    said_yes: set[str] = field(default_factory=set)
    replies: Counter[str] = field(default_factory=Counter)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    closing: bool = False

    def __post_init__(self) -> None:
        self._http = httpx.AsyncClient(
            timeout=10, headers=WEBHOOK_AUTH, limits=httpx.Limits(max_connections=64)
        )
        self._ids = 0

    def fate(self, topic: str) -> random.Random:
        """What becomes of this topic's number, the same in each run."""
        return random.Random(f"{self.seed} {topic}")

    async def publish(self, request: Request) -> Response:
        body = orjson.loads(await request.body())
        many = body if isinstance(body, list) else [body]
        for message in many:
            self.take(message["topic"], base64.b64decode(message["payload"]))
        results = [{"id": f"{self._ids + at}"} for at in range(len(many))]
        self._ids += len(many)
        return JSONResponse(results if isinstance(body, list) else results[0])

    def take(self, topic: str, payload: bytes) -> None:
        kind, number, *_ = topic.split("/")
        luck = self.fate(f"{kind}/{number}")
        if kind == "r":
            self.replies[number] += 1
        elif kind == "ask":
            self.asked[number] += 1
            word = luck.choices((b"yes", b"no", None), (60, 20, 20))[0]
            if word is not None:
                if word == b"yes":
                    self.said_yes.add(number)
                self.later(luck.uniform(0, 3), f"said/{number}", word)
        else:
            self.commands[f"{kind}/{number}"].append(payload)
            if luck.random() < 0.8:
                self.later(luck.uniform(0, 3), f"{kind}/{number}/state", payload)

    def later(self, pause: float, topic: str, payload: bytes) -> None:
        task = asyncio.create_task(self._later(pause, topic, payload))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _later(self, pause: float, topic: str, payload: bytes) -> None:
        await asyncio.sleep(pause)
        body = {"answers": "call", "topic": topic, "payload": payload.decode()}
        await self.post(body, f"a{topic}{random.random()}")

    async def post(self, body: Mapping[str, Any], ident: str) -> None:
        """As EMQX does: again until it is taken."""
        whole = {"id": ident, "publish_received_at": int(time.time() * 1000), **body}
        while not self.closing:
            for replica in random.sample(self.replicas, len(self.replicas)):
                try:
                    answer = await self._http.post(
                        f"http://127.0.0.1:{replica.port}/webhook", json=whole
                    )
                except httpx.HTTPError:
                    continue
                if answer.status_code == 202:
                    return
                assert answer.status_code == 503, answer.text
            await asyncio.sleep(0.2)

    async def close(self) -> None:
        self.closing = True
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self._http.aclose()


def decided(body: Mapping[str, Any]) -> Any:
    last = body["messages"][-1]
    if last["role"] == "tool":
        return ok("well")
    name, number = last["content"].split()
    return tool_calls([(name, {"which": number})])


async def run(
    url: str, folder: Path, *, requests: int, kills: int, replicas: int, seed: int = 1
) -> tuple[dict[str, Any], list[str]]:
    """Figures and violations."""
    luck = random.Random(seed)
    flows = folder / "flows.toml"
    flows.write_text(FLOWS)
    made: list[Replica] = []
    world = World(seed, made)
    app = Starlette(routes=[
        Route("/api/v5/publish", world.publish, methods=["POST"]),
        Route("/api/v5/publish/bulk", world.publish, methods=["POST"]),
    ])  # fmt: skip
    rest = Server(config(app))
    listener = bound(0)
    serving = asyncio.create_task(rest.serve([listener]))
    await rest.up.wait()
    began = time.monotonic()
    most_waiting = 0
    async with FakeModel(record=False) as model:
        model.behave(decided)
        for number in range(replicas):
            env = {
                "DATABASE_URL": url,
                "OPENAI_BASE_URL": model.base_url,
                "EMQX_URL": f"http://127.0.0.1:{listener.getsockname()[1]}",
                "FLOWS": str(flows),
                "LOG_LEVEL": "WARNING",
            }
            replica = Replica(number, folder, LEASE, **env)
            replica.start()
            made.append(replica)
        try:
            async with asyncio.timeout(60):
                await asyncio.gather(*(replica.up.wait() for replica in made))
            gate = asyncio.Semaphore(64)

            async def ask(number: int) -> None:
                async with gate:
                    kind = "door" if number % 2 else "lamp"
                    body = {"flow": "w", "topic": f"w/{number}", "payload": f"{kind} {number}"}
                    await world.post(body, f"m{number}")

            async def kill() -> None:
                for _ in range(kills):
                    await asyncio.sleep(luck.uniform(0.5, 2.5))
                    victim = luck.choice(made)
                    await victim.up.wait()
                    victim.signal(signal.SIGKILL)

            killing = asyncio.create_task(kill())
            await asyncio.gather(*(ask(number) for number in range(requests)))
            async with Inbox(url) as store:
                while True:
                    stats = await store.stats()
                    waiting = sum(n for (_, state), n in stats.counts.items() if state == "waiting")
                    most_waiting = max(most_waiting, waiting)
                    if stats.open == 0 and killing.done():
                        break
                    if time.monotonic() - began > 180 + requests / 10:
                        break
                    await asyncio.sleep(0.5)
                await killing
                seconds = time.monotonic() - began
                figures, faults = await judge(store, world, requests)
            figures["most that waited at once"] = most_waiting
            figures["kills"] = sum(replica.starts - 1 for replica in made)
            figures["seconds"] = round(seconds, 1)
            unasked = [code for replica in made for code in replica.exits]
            faults += [f"a process ended by itself with {code}" for code in unasked]
            return figures, faults
        finally:
            await world.close()
            for replica in made:
                await replica.close()
            rest.leaving.set()
            await serving


async def judge(store: Inbox, world: World, requests: int) -> tuple[dict[str, Any], list[str]]:
    faults: list[str] = []
    ends: Counter[str] = Counter()
    seen: set[str] = set()
    before = None
    while True:
        page = await store.find(Filter(), limit=500, before=before, whole=True)
        for row in page.rows:
            number = row.message.topic.partition("/")[2]
            seen.add(number)
            ends[f"{row.state} {row.error_code or ''}".strip()] += 1
            if not row.state.ended:
                faults.append(f"{row.id} has not ended: {row.state}")
        if page.next is None:
            break
        before = page.next
    lost = requests - len(seen)
    if lost:
        faults.append(f"{lost} requests are lost")
    twice = unasked = 0
    for topic, payloads in world.commands.items():
        kind, _, number = topic.partition("/")
        for payload in payloads:
            if orjson.loads(payload)["which"] != number:
                faults.append(f"{topic} got {payload!r}")
        if kind == "door":
            if len(payloads) > 1:
                twice += 1
                faults.append(f"{topic} was unlocked {len(payloads)} times")
            if number not in world.said_yes:
                unasked += 1
                faults.append(f"{topic} was unlocked without a yes")
        elif len({orjson.loads(payload)["call_id"] for payload in payloads}) > 1:
            faults.append(f"{topic} was switched by several calls")
    figures = {
        "requests": requests,
        "lost": lost,
        "doors unlocked": sum(topic.startswith("door/") for topic in world.commands),
        "of these twice": twice,
        "of these without a yes": unasked,
        "people asked": len(world.asked),
        "ends": dict(ends),
    }
    return figures, faults


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.waits", description=__doc__)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), help="default: both")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    failed = False
    for database in [given.database] if given.database else ["sqlite", "postgresql"]:
        with tempfile.TemporaryDirectory(prefix="waits-", ignore_cleanup_errors=True) as home:
            figures, faults = asyncio.run(
                play(database, Path(home), given.requests, given.kills, given.seed)
            )
        print(f"\n{database}")
        for name, value in figures.items():
            print(f"  {name:<30} {value}")
        print(f"  {'violations':<30} {len(faults)}")
        for fault in faults[:40]:
            print(f"    ! {fault}")
        sys.stdout.flush()
        failed = failed or bool(faults)
    sys.exit(1 if failed else 0)


async def play(
    database: str, folder: Path, requests: int, kills: int, seed: int = 1
) -> tuple[dict[str, Any], list[str]]:
    """On a database of its own: SQLite with one process, PostgreSQL with three."""
    if database == "sqlite":
        url = f"sqlite:///{folder / 'waits.db'}"
        return await run(url, folder, requests=requests, kills=kills, replicas=1, seed=seed)
    async with postgresql() as server:
        return await run(server.url, folder, requests=requests, kills=kills, replicas=3, seed=seed)


if __name__ == "__main__":
    main()
