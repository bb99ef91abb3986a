"""What a call cost, in US dollars: from its usage, and the prices that count for it."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Protocol

from service.domain import Usage
from service.flows import Catalogue, Flows, ModelRef
from service.flows.tables import Price

MILLION = 1_000_000
# What OpenAI bills where a flow asks for another service_tier; other tiers have prices of
# their own and are told by `tiers`.
TIERS = {"flex": 0.5, "batch": 0.5}

log = logging.getLogger("emqx-gpt.model")


class PriceList(Protocol):
    """Prices from elsewhere, for models that flows.toml has no price for."""

    def cost(self, model: str, base_url: str | None, usage: Usage) -> float | None: ...


class Billing(Protocol):
    """Who knows what a call cost."""

    def billed(self, model: ModelRef, usage: Usage) -> Usage:
        """The usage with its cost; None where nobody knows."""


class Prices:
    """`own` by `NAME/model` or bare name, `base_urls` by provider."""

    def __init__(
        self,
        own: Mapping[str, Price],
        base_urls: Mapping[str, str | None],
        listed: PriceList | None = None,
    ) -> None:
        self._own = own
        self._base_urls = base_urls
        self._listed = listed

    def billed(self, model: ModelRef, usage: Usage) -> Usage:
        """The usage with its cost: by flows.toml, else as its server said, else by the list;
        None where nobody knows."""
        price = self._own.get(str(model)) or self._own.get(model.model)
        if price is not None:
            return replace(usage, cost=cost_of(price, usage))
        if usage.cost is not None or self._listed is None or not usage.total_tokens:
            return usage
        base_url = self._base_urls.get(model.provider)
        return replace(usage, cost=self._listed.cost(model.model, base_url, usage))


def cost_of(price: Price, usage: Usage) -> float:
    """US dollars."""
    cached = price.input if price.cached is None else price.cached
    write = price.input if price.cache_write is None else price.cache_write
    plain = max(0, usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens)
    total = (
        plain * price.input
        + usage.cached_tokens * cached
        + usage.cache_write_tokens * write
        + usage.completion_tokens * price.output
    )
    factor = price.tiers.get(usage.tier, TIERS.get(usage.tier, 1.0))
    return total * factor / MILLION


class PricesInForce:
    """The prices of the flows in force."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        prepare(catalogue.file)

    def billed(self, model: ModelRef, usage: Usage) -> Usage:
        """As `Prices` does."""
        flows = self._catalogue.file
        if not flows.prices and not flows.price_list:
            return usage
        urls = {name: provider.base_url for name, provider in flows.providers.items()}
        listed = _genai_prices() if flows.price_list else None
        return Prices(flows.prices, urls, listed).billed(model, usage)


def prepare(flows: Flows) -> None:
    """Load the list of prices that these name, if they do; takes a second."""
    if flows.price_list:
        _genai_prices()


class GenaiPrices:
    """The list of the package genai-prices, as it was installed: nothing is fetched."""

    def __init__(self) -> None:
        self._package: Any = importlib.import_module("genai_prices")  # 1 s, so not for all
        self._unknown: set[str] = set()

    def cost(self, model: str, base_url: str | None, usage: Usage) -> float | None:
        """US dollars; None for a model that the list doesn't know."""
        counted = self._package.Usage(
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
        )
        context = {"service_tier": usage.tier} if usage.tier else None
        try:
            found = self._package.calc_price(
                counted, model, provider_api_url=base_url, price_context=context
            )
        except (LookupError, ValueError):
            if model not in self._unknown and len(self._unknown) < 1000:
                self._unknown.add(model)
                log.warning("genai-prices has no price for model %s: add it to [prices]", model)
            return None
        return float(found.total_price)


@cache
def _genai_prices() -> GenaiPrices:
    return GenaiPrices()
