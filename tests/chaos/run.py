"""One run: everything up, traffic and trouble side by side, peace, and the evidence."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import orjson

from service.inbox import Inbox, Row
from tests.chaos.broker import Broker
from tests.chaos.evidence import Call, Evidence
from tests.chaos.front import front
from tests.chaos.plan import Plan
from tests.chaos.postgres import Postgres, postgresql
from tests.chaos.processes import Model, Replica
from tests.chaos.traffic import Devices, Feed
from tests.chaos.troubles import HOUR, Troubles

PAGE = 500
WAITED = "requests that waited for a time of a wrong clock"


async def run(plan: Plan, folder: Path) -> Evidence:
    """Play the plan. All processes and files are gone or in `folder` afterwards."""
    began = time.monotonic()
    evidence = Evidence(plan, figures={WAITED: 0})
    async with contextlib.AsyncExitStack() as stack:
        postgres, url = None, f"sqlite:///{folder / 'inbox.db'}"
        if not plan.sqlite:
            postgres = await stack.enter_async_context(postgresql())
            url = postgres.url
        broker = Broker(random.Random(f"{plan.seed} broker"), plan.hiccups)
        await broker.start()
        stack.push_async_callback(broker.close)
        model = Model(folder)
        stack.push_async_callback(model.close)
        await model.start(plan.seed, plan.model_rate, plan.model_pause, plan.model_slow)
        replicas = [
            Replica(
                number,
                folder,
                plan.lease,
                OPENAI_BASE_URL=model.url,
                EMQX_URL=broker.url,
                DATABASE_URL=url,
            )
            for number in range(plan.replicas)
        ]
        for replica in replicas:
            stack.push_async_callback(replica.close)
            replica.start()
        async with asyncio.timeout(60):
            await asyncio.gather(*(replica.up.wait() for replica in replicas))
        ports = [each.port for each in replicas]
        if plan.front:
            ports = [await stack.enter_async_context(front(ports, folder / "haproxy.log"))]
        feed = Feed(ports, random.Random(f"{plan.seed} feed"))
        feed.start()
        stack.push_async_callback(feed.close)
        await _play(evidence, plan, replicas, broker, feed, postgres)
        evidence.note_processes(replicas)
        for replica, code in zip(
            replicas, await asyncio.gather(*(each.stop() for each in replicas)), strict=True
        ):
            if code != 0:
                evidence.faults.append(f"SIGTERM: service {replica.number} ended with {code}")
        evidence.published = broker.published
        evidence.calls = _calls(model.log)
        evidence.rows = await _rows(url)
        evidence.figures["lost answers of the broker"] = broker.lost_answers
        for replica in replicas:
            evidence.note_log(replica.log)
    evidence.seconds = time.monotonic() - began
    return evidence


async def _play(
    evidence: Evidence,
    plan: Plan,
    replicas: Sequence[Replica],
    broker: Broker,
    feed: Feed,
    postgres: Postgres | None,
) -> None:
    """Trouble until there was enough of it, then peace until every request has ended."""
    devices = Devices(random.Random(f"{plan.seed} devices"), plan.conversations)
    troubles = Troubles(plan, replicas, broker, feed, postgres)
    evidence.messages = devices.messages
    troubles.start()
    try:
        async with asyncio.timeout(plan.limit):
            await _speak(plan, devices, feed, troubles)
    except TimeoutError:
        evidence.faults.append(
            f"only {len(devices.messages)} requests and {troubles.counts['kills']} kills"
            f" in {plan.limit:.0f} s"
        )
    finally:
        await troubles.end()
    peace = time.monotonic()
    try:
        async with asyncio.timeout(plan.patience) as patience:
            await asyncio.gather(*(replica.up.wait() for replica in replicas))
            await feed.drained()
            await _ended(replicas, broker, evidence, plan, patience)
    except TimeoutError:
        evidence.faults.append(
            f"not everything had ended after {time.monotonic() - peace:.0f} s of peace:"
            f" {feed.waiting} wait at the broker"
        )
    evidence.figures["seconds of peace until all had ended"] = round(time.monotonic() - peace, 1)
    evidence.note_troubles(troubles)
    evidence.note_feed(feed, troubles.stopped)


async def _speak(plan: Plan, devices: Devices, feed: Feed, troubles: Troubles) -> None:
    """Messages in bursts, at the plan's rate on average."""
    rng = random.Random(f"{plan.seed} bursts")
    while len(devices.messages) < plan.requests or not troubles.killed.is_set():
        burst = rng.randint(1, 20)
        for _ in range(burst):
            feed.publish(devices.speak())
        await asyncio.sleep(rng.expovariate(plan.rate / burst))


async def _ended(
    replicas: Sequence[Replica],
    broker: Broker,
    evidence: Evidence,
    plan: Plan,
    patience: asyncio.Timeout,
) -> None:
    """Return when the inbox holds no open request. As long as replies come, a slow machine gets
    more time, up to three times as much.

    What a clock noted while it was ahead may not be due yet. It will be, so when nothing moves
    any more, that hour passes.
    """
    now = asyncio.get_running_loop().time
    moved, calls, latest = time.monotonic(), broker.calls, now() + 2 * plan.patience
    while await replicas[0].open_requests(1) != 0:
        if broker.calls != calls:
            moved, calls = time.monotonic(), broker.calls
            patience.reschedule(max(patience.when() or 0, min(latest, now() + plan.patience / 2)))
        elif time.monotonic() - moved > plan.stuck and not replicas[0].control.ahead:
            evidence.figures[WAITED] = await replicas[0].open_requests(10**6)
            for replica in replicas:
                replica.control.ahead = 2 * HOUR
        await asyncio.sleep(0.2)


async def _rows(url: str) -> list[Row]:
    rows: list[Row] = []
    async with Inbox(url) as store:
        async for page in _pages(store):
            rows += page
    return rows


async def _pages(store: Inbox) -> AsyncIterator[list[Row]]:
    before = None
    while page := await store.requests(limit=PAGE, before=before):
        yield page
        before = page[-1].seq


def _calls(log: Path) -> list[Call]:
    calls = []
    for line in log.read_bytes().splitlines():
        fields = orjson.loads(line)
        history = [str(text) for text in fields["history"]]
        calls.append(
            Call(fields["number"], fields["at"], fields["text"], fields["outcome"], history)
        )
    return calls
