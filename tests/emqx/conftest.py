"""A stand-in, a webhook, and flows for the tests of the broker's half."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest

from service.demo.standin.broker import StandIn
from service.emqx import resources as wanted
from service.emqx.management_api import EmqxAdmin
from service.emqx.resources import Desired
from service.flows import Flows, parse
from tests.contract.webhook import Webhook

TOKEN = "tok-en-1"
FLOWS = """
[flows.chat]
request = "lab/${user}/ask"
reply = "lab/${user}/say"

[flows.alarm]
request = ["sensors/${device}/telemetry", "boilers/${device}"]
where = "is_num(payload.temperature) and payload.temperature > 40"
prompt = "It is hot: ${payload.temperature}"
reply = "alerts/${device}"
deadline = "1h"

[flows.camera]
request = "cameras/${camera}/snapshot"
input = "image"
reply = "cameras/${camera}/said"
"""


def flows_of(text: str) -> Flows:
    flows, faults = parse(text)
    assert flows is not None, faults
    return flows


@pytest.fixture
def flows() -> Flows:
    return flows_of(FLOWS)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook(TOKEN) as running:
        yield running


@pytest.fixture
async def broker() -> AsyncIterator[StandIn]:
    async with StandIn() as running:
        yield running


@pytest.fixture
async def admin(broker: StandIn) -> AsyncIterator[EmqxAdmin]:
    async with EmqxAdmin(broker.rest_url, ("key", "secret")) as client:
        yield client


@pytest.fixture
def build(flows: Flows, webhook: Webhook) -> Callable[..., Desired]:
    """`Desired` for the webhook; other flows, token or prefix on demand."""

    def make(text: str | None = None, *, token: str = TOKEN, prefix: str = "emqx_gpt") -> Desired:
        asked = flows if text is None else flows_of(text)
        return wanted.build(asked, prefix=prefix, to=wanted.target(webhook.url, token))

    return make


async def publish(admin: EmqxAdmin, topic: str, payload: str) -> None:
    async with httpx.AsyncClient(auth=("key", "secret")) as http:
        answer = await http.post(
            f"{admin.url}/api/v5/publish", json={"topic": topic, "payload": payload}
        )
        assert answer.is_success
