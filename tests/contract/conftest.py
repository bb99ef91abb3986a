"""One configured broker for each test: our flows, a webhook, and nothing left behind."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import pytest

from service.emqx.apply import apply
from service.emqx.management_api import EmqxAdmin
from service.emqx.remove import remove
from service.emqx.resources import Desired, Kind, Target, build, target
from service.flows import parse
from tests.contract import brokers
from tests.contract.brokers import Broker
from tests.contract.devices import Device, device
from tests.contract.webhook import Webhook

T = TypeVar("T")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "broker_name" in metafunc.fixturenames:
        metafunc.parametrize("broker_name", brokers.named(), scope="session")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if "real" not in brokers.named():
        terminalreporter.write_line(
            f"contract suite: on the stand-in; {', '.join(brokers.REAL)} name a real broker"
        )


@pytest.fixture(scope="session")
def broker(broker_name: str) -> Iterator[Broker]:
    with brokers.running(broker_name) as running:
        yield running


@dataclass(frozen=True)
class Setup:
    """A broker with our half in it. Topics begin with `root`."""

    broker: Broker
    webhook: Webhook
    desired: Desired
    root: str
    run_id: str

    def call(self, work: Callable[[EmqxAdmin], Awaitable[T]]) -> T:
        """Something with the management API."""

        async def run() -> T:
            async with EmqxAdmin(self.broker.url, self.broker.key) as admin:
                return await work(admin)

        return asyncio.run(run())

    def apply(self, desired: Desired | None = None, **options: Any) -> list[str]:
        """Our apply; the webhook is probed where it is seen from here. What was done."""
        local = self.webhook.local_url
        wanted = desired or self.desired
        report = self.call(lambda admin: apply(admin, wanted, probe_url=local, **options))
        self.webhook.forget()
        return report.done

    def rest(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """A plain call to the REST API."""
        return httpx.request(
            method, f"{self.broker.url}/api/v5{path}", json=body, auth=self.broker.key, timeout=30
        )

    def load(self, hocon: str) -> httpx.Response:
        """What emqx/README.md does with the filled file."""
        return httpx.put(
            f"{self.broker.url}/api/v5/configs?mode=merge",
            content=hocon.encode(),
            headers={"content-type": "text/plain"},
            auth=self.broker.key,
            timeout=30,
        )

    def with_token(self, token: str | None) -> Desired:
        """The same with another token, or with placeholders."""
        to = None if token is None else target(self.webhook.url, token)
        return build_for(self.run_id, to)

    def metrics(self, kind: Kind, ident: str) -> dict[str, float]:
        return self.call(lambda admin: admin.metrics(kind, ident))

    def rule(self, flow: str) -> str:
        return f"{self.desired.prefix}_{flow}"

    def action(self, flow: str) -> str:
        """The action that a flow's rule hands its messages to."""
        (found,) = self.desired.rules[self.rule(flow)]["actions"]
        return str(found)

    def device(self, name: str, *, version: int = 4) -> AbstractContextManager[Device]:
        """A connected client; `version` 4 is MQTT 3.1.1."""
        return device(self.broker, self.client_id(name), version=version)

    def client_id(self, name: str) -> str:
        return f"emqxgpt-test-{self.run_id}-{name}"

    def named_device(
        self, client_id: str, *, will: tuple[str, str] | None = None
    ) -> AbstractContextManager[Device]:
        """A client that calls itself exactly so."""
        return device(self.broker, client_id, will=will)


FLOWS = """
[flows.chat]
request = "ROOT/chat/${user}/ask"
reply = "ROOT/chat/${user}/say"
history = { messages = 4 }
allow_response_topics = ["ROOT/answers/#"]

[flows.alarm]
request = "ROOT/alarm/${device}"
where = "is_num(payload.temperature) and payload.temperature > 40"
prompt = "${payload.temperature}"
reply = "ROOT/alarms/${device}"

[flows.hot]
request = "ROOT/alarm/${device}"
where = "is_num(payload.temperature) and payload.temperature > 80"
prompt = "${payload.temperature}"
reply = "ROOT/hot/${device}"

[flows.camera]
request = ["ROOT/camera/${camera}", "ROOT/cam/${camera}"]
input = "image"
reply = "ROOT/seen/${camera}"
"""


def build_for(run_id: str, to: Target | None) -> Desired:
    """What `FLOWS` want, under names of this test's own; without `to` with placeholders."""
    flows, faults = parse(FLOWS.replace("ROOT", f"emqxgpt-test/{run_id}"))
    assert flows is not None, faults
    return build(flows, prefix=f"emqxgpt_test_{run_id}", to=to)


@contextmanager
def prepared(broker: Broker) -> Iterator[Setup]:
    """A webhook and names of its own; whatever is applied is removed."""
    run_id = secrets.token_hex(6)
    host = brokers.WEBHOOK_HOST
    bind = "127.0.0.1" if host == "127.0.0.1" else "0.0.0.0"
    with Webhook(f"tok-{run_id}", bind=bind, host=host) as webhook:
        desired = build_for(run_id, target(webhook.url, webhook.token))
        setup = Setup(broker, webhook, desired, f"emqxgpt-test/{run_id}", run_id)
        try:
            yield setup
        finally:
            setup.call(lambda admin: remove(admin, desired.prefix))


@pytest.fixture
def bare(broker: Broker) -> Iterator[Setup]:
    """Nothing applied yet."""
    with prepared(broker) as setup:
        yield setup


@pytest.fixture
def fresh(bare: Setup) -> Setup:
    """Applied, connected, enabled, for this test alone."""
    bare.apply()
    return bare


@pytest.fixture(scope="module")
def shared(broker: Broker) -> Iterator[Setup]:
    with prepared(broker) as setup:
        setup.apply()
        yield setup


@pytest.fixture
def setup(shared: Setup) -> Setup:
    """Applied once for the tests of a module, for those that leave it as it is."""
    shared.webhook.answer = lambda _: 202
    shared.webhook.forget()
    return shared


def eventually(look: Callable[[], bool], timeout: float = 30.0) -> None:
    """Counters and statuses follow what happens by a moment."""
    end = time.monotonic() + timeout
    while not look():
        assert time.monotonic() < end, f"not within {timeout} s"
        time.sleep(0.2)
