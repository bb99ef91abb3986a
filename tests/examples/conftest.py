"""A demo for each test, on ports of its own, and a client beside it that sees all."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from service.demo import running as demo_running
from service.demo.play import Client
from service.demo.running import Running, running, with_offline
from tests.rig import load_flows, make_settings


@pytest.fixture
async def demo(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    monkeypatch.setattr(demo_running, "PORTS", dict.fromkeys(demo_running.PORTS, 0))
    async with running(make_settings(port=0), with_offline(load_flows(None))) as found:
        yield found


@pytest.fixture
async def visitor(demo: Running) -> AsyncIterator[Client]:
    client = Client("127.0.0.1", demo.broker.mqtt_port, "visitor")
    await client.connect()
    try:
        yield client
    finally:
        await client.close()
