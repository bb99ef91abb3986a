"""A stand-in of its own for each test, a webhook beside it, a REST client for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from service.demo.standin.broker import StandIn
from tests.demo.webhook import Webhook


@pytest.fixture
async def webhook() -> AsyncIterator[Webhook]:
    async with Webhook() as found:
        yield found


@pytest.fixture
async def broker() -> AsyncIterator[StandIn]:
    async with StandIn() as found:
        yield found


@pytest.fixture
async def rest(broker: StandIn) -> AsyncIterator[httpx.AsyncClient]:
    url = broker.rest_url + "/api/v5"
    async with httpx.AsyncClient(base_url=url, auth=("key", "secret")) as found:
        yield found
