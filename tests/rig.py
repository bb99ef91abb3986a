"""The whole house on loopback for tests: stand-in broker, scripted model, real uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
from pydantic import SecretStr

from service import flows as flows_module
from service.answering.publisher import STANDARD, PublishPolicy
from service.bootstrap import Service
from service.demo.play import Client
from service.demo.standin.broker import StandIn
from service.emqx.resource_names import bare
from service.emqx.resources import build, target
from service.inbox import epoch_ms
from service.llm.retry import USUAL, RetryPolicy
from service.server import bind, make_server
from service.settings import Settings
from service.web.app import create_app
from tests.fakes.emqx import FaultyRest
from tests.fakes.model import FakeModel

ROOT = Path(__file__).parent.parent
POLICY = USUAL  # of houses that are given none
PATIENCE = 45.0  # seconds for what happens at once on an idle machine; no test waits it out
WEBHOOK, OPERATOR = "webhook-token", "operator-token"
HASTY = PublishPolicy(first_pause=0.05, longest_pause=0.05)
"""Tries again soon while the broker is away."""
OPERATOR_AUTH = {"authorization": f"Bearer {OPERATOR}"}
WEBHOOK_AUTH = {"authorization": f"Bearer {WEBHOOK}"}


def make_settings(**changes: Any) -> Settings:
    """Settings that read neither the environment nor `.env` of whoever runs the tests."""
    names = Settings.model_fields
    for name, value in changes.items():
        assert name in names, name
        if "SecretStr" in str(names[name].annotation) and isinstance(value, str):
            changes[name] = SecretStr(value)
    base = Settings.model_construct()
    defaults = {name: field.default for name, field in names.items()}
    return base.model_copy(update={**defaults, **changes})


class Clock:
    """Epoch ms that a test can move."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return epoch_ms() + self.ahead


class Rig:
    """Everything up, with a few ways to look at it."""

    def __init__(
        self,
        broker: StandIn,
        model: FakeModel,
        service: Service,
        port: int,
        clock: Clock,
        lease: float = 30.0,
        policy: RetryPolicy = USUAL,
        publishing: PublishPolicy = STANDARD,
        settle: float = 0,
    ) -> None:
        self.broker = broker
        self.settle = settle
        self.model = model
        self.service = service
        self.port = port
        self.clock = clock
        self.lease = lease
        self.publishing = publishing
        self.policy = policy
        self.services = [service]
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.AsyncClient(base_url=self.url, headers=OPERATOR_AUTH, timeout=PATIENCE)

    @contextlib.asynccontextmanager
    async def mqtt(self, *topics: str, clientid: str | None = None) -> AsyncIterator[Client]:
        """A real MQTT client, subscribed."""
        client = Client("127.0.0.1", self.broker.mqtt_port)
        if clientid is not None:
            client._paho._client_id = clientid.encode()
        try:
            await client.connect()
            if topics:
                await client.subscribe(topics)
            yield client
        finally:
            await client.close()

    async def mqtt5(
        self, topic: str, payload: str, *, retain: bool = False, **properties: Any
    ) -> None:
        """Publish with MQTT 5 properties, by the stand-in's REST side: it speaks no 5."""
        async with httpx.AsyncClient(auth=("key", "secret")) as http:
            body = {"topic": topic, "payload": payload, "qos": 1, "retain": retain}
            body["properties"] = properties
            answer = await http.post(f"{self.broker.rest_url}/api/v5/publish", json=body)
            assert answer.status_code in (200, 202), answer.text

    async def crash(self, service: Service | None = None) -> None:
        """The service does nothing any more and gives nothing back, as if it was killed.

        Its leases have run out. Its HTTP side goes on to look things up; `replica` is the
        process that comes after.
        """
        service = service or self.service
        await service.worker.halt()
        await service.publisher.close()
        self.clock.ahead += int(self.lease * 1000) + 1

    @contextlib.asynccontextmanager
    async def replica(
        self, flows: str | None = None, environ: Mapping[str, str] | None = None
    ) -> AsyncIterator[Service]:
        """Another process's service on the same database and model, in this event loop."""
        found = self.service.flows.file if flows is None else load_flows(flows)
        made = Service(
            self.service.settings,
            found,
            environ=environ or {},
            lease=self.lease,
            settle=self.settle,
            publishing=self.publishing,
            policy=self.policy,
            now=self.clock,
        )
        await made.start()
        self.services.append(made)
        try:
            yield made
        finally:
            self.services.remove(made)
            await made.stop()

    async def move(self, ms: int, *, holding: bool = False) -> None:
        """The clock jumps, for all services.

        A request in hand loses its lease by that, so none may be, unless the test wants it
        (`holding`); and a claim that began before must have ended, lest its lease is a short one.
        """
        workers = [one.worker for one in self.services if one.worker.claiming]
        if not holding:
            await eventually(lambda: not any(worker.in_hand.running for worker in workers))
        self.clock.ahead += ms
        moved = time.monotonic()
        for worker in workers:
            worker.in_hand.wake.set()
        await eventually(lambda: all(worker.beat > moved for worker in workers))

    async def requests(self, **query: Any) -> list[dict[str, Any]]:
        answer = await self.http.get("/requests", params=query)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["requests"])

    async def request(self, id: str) -> dict[str, Any]:
        answer = await self.http.get(f"/requests/{id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def webhook(self, body: Any, **options: Any) -> httpx.Response:
        content = body if isinstance(body, bytes) else None
        return await self.http.post(
            "/webhook",
            content=content,
            json=None if content is not None else body,
            headers=options.get("headers", WEBHOOK_AUTH),
        )

    async def stored(self, count: int) -> list[dict[str, Any]]:
        """Wait until there are so many requests in the inbox."""

        async def look() -> list[dict[str, Any]] | None:
            found = await self.requests(limit=500)
            return found if len(found) >= count else None

        return list(await eventually(look))

    async def ended(self, count: int = 1, seconds: float = PATIENCE, **query: Any) -> list[Any]:
        """Wait until `count` requests have ended and none is open; return them, newest first."""

        async def look() -> list[Any] | None:
            found = await self.requests(limit=500, **query)
            done = [one for one in found if one["ended_at"] is not None]
            return found if len(done) >= count and len(done) == len(found) else None

        return await eventually(look, seconds)


async def eventually(look: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """The first truthy result of `look`, asked again and again; fails after `seconds`."""
    ends = time.monotonic() + seconds
    while True:
        result = look()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        assert time.monotonic() < ends, "it did not come about"
        await asyncio.sleep(0.02)


async def message(client: Client, seconds: float = PATIENCE) -> tuple[str, bytes]:
    """The next message that arrives at a client."""
    async with asyncio.timeout(seconds):
        return await client.messages.get()


def counter(text: str, name: str, /, **labels: str) -> float:
    """The sum of a metric's lines with these labels; 0 if there is none."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    lines = [line for line in text.splitlines() if line.startswith((name + "{", name + " "))]
    return sum(
        float(line.rpartition(" ")[2]) for line in lines if all(part in line for part in wanted)
    )


@contextlib.asynccontextmanager
async def running(service: Service, port: int = 0) -> AsyncIterator[int]:
    """The service on a real uvicorn in this event loop; yields its port."""
    sock = bind("127.0.0.1", port)
    server = make_server(create_app(service))
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        await eventually(lambda: server.started or serving.done())
        if serving.done():
            await serving
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def rig(
    database: str,
    *,
    flows: str | None = None,
    lease: float = 30.0,
    settle: float = 0,
    rest: FaultyRest | None = None,
    environ: Mapping[str, str] | None = None,
    publishing: PublishPolicy = STANDARD,
    policy: RetryPolicy | None = None,
    **settings: Any,
) -> AsyncIterator[Rig]:
    """The house with these flows (TOML text; default: the shipped file).

    `rest` stands between the service and the broker's REST API, and can fail. `environ` holds
    the keys of other providers. `publishing` is the policy of the publisher (HASTY).
    """
    clock = Clock()
    policy = policy or POLICY
    async with StandIn() as broker, FakeModel() as model:
        found = load_flows(flows)
        if rest is not None:
            rest.target = broker.rest_url
        changes = {
            "openai_api_key": "sk-test",
            "openai_base_url": model.base_url,
            "emqx_url": rest.url if rest is not None else broker.rest_url,
            "emqx_api_key": "key",
            "emqx_api_secret": "secret",
            "webhook_token": WEBHOOK,
            "operator_token": OPERATOR,
            "database_url": database,
            "grace": 2.0,
            **settings,
        }
        service = Service(
            make_settings(**changes),
            found,
            environ=environ or {},
            lease=lease,
            settle=settle,
            policy=policy,
            publishing=publishing,
            now=clock,
        )
        async with running(service) as port:
            made = Rig(broker, model, service, port, clock, lease, policy, publishing, settle)
            await broker.merge(desired(found, made.url))
            try:
                yield made
            finally:
                await made.http.aclose()


def desired(flows: flows_module.Flows, url: str) -> dict[str, Any]:
    """What the rendered HOCON says (tests/emqx/test_render.py), without the time to parse it."""
    made = build(flows, to=target(url, WEBHOOK))
    return {
        "connectors": {"http": {bare(ident): one for ident, one in made.connectors.items()}},
        "actions": {"http": {bare(ident): one for ident, one in made.actions.items()}},
        "rule_engine": {"rules": dict(made.rules)},
    }


def load_flows(text: str | None) -> flows_module.Flows:
    if text is None:
        shipped = flows_module.load(ROOT / "flows.toml")
        # A clock that a test moves must not come past the hour at which one of them asks.
        asked = {name: flow for name, flow in shipped.flows.items() if flow.every is None}
        return replace(shipped, flows=MappingProxyType(asked))
    found, faults = flows_module.parse(text)
    assert found is not None, [str(fault) for fault in faults]
    return found


def command(*args: str) -> list[str]:
    """The command line of emqx-gpt in this environment."""
    return [sys.executable, "-m", "service", *args]


def environment(**values: str) -> dict[str, str]:
    """A clean environment for a child process."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **values}
