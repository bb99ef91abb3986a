"""Asking models from the command line, as the service does."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

from service.answering.budget import Budgets
from service.answering.mcp_servers import McpServers
from service.answering.replay import Replayer
from service.bootstrap import edition_of
from service.errors import ConfigError
from service.flows import Catalogue, Flows, ModelRef
from service.inbox import Inbox, epoch_ms
from service.llm.asker import Asker
from service.llm.circuit_breaker import CircuitBreakers
from service.llm.client import Gpt
from service.llm.prices import PricesInForce
from service.llm.retry import USUAL
from service.settings import Settings, environment


@contextlib.asynccontextmanager
async def replayer(
    loaded: Settings, flows: Flows, store: Inbox | None, concurrency: int
) -> AsyncIterator[Replayer]:
    """With a store, what it takes counts for the budgets of the day. Raises ConfigError."""
    catalogue = Catalogue(edition_of(loaded, flows, environment()))
    servers = McpServers(catalogue)
    breakers = CircuitBreakers(time.monotonic, USUAL)
    gpt = Gpt(
        catalogue,
        concurrency=concurrency,
        max_answer=loaded.max_answer,
        granted=breakers.granted,
    )
    prices = PricesInForce(catalogue)
    budgets = None
    if store is not None:
        tokens, usd = loaded.daily_tokens, loaded.daily_usd
        budgets = Budgets(store, catalogue, prices, tokens=tokens, usd=usd, now=epoch_ms)
    asker = Asker(
        gpt,
        breakers,
        on_call=lambda *about: None,
        policy=USUAL,
        prices=prices,
        budget=budgets,
    )
    try:
        yield Replayer(catalogue, asker, now=epoch_ms, servers=servers)
    finally:
        await servers.close()
        if budgets is not None:
            await budgets.close()
        await gpt.close()


def model_of(text: str | None, flows: Flows) -> ModelRef | None:
    """Raises ConfigError: a provider that flows.toml does not have."""
    if text is None:
        return None
    model = ModelRef.parse(text)
    if not model.model or model.provider not in flows.providers:
        known = ", ".join(flows.providers)
        raise ConfigError(f"--model {text}: no provider {model.provider!r}; there are: {known}")
    return model
