"""What servers count and in which words, and what it costs."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain import Usage
from service.flows import ModelRef, parse
from service.flows.tables import Price
from service.llm.prices import GenaiPrices, Prices, cost_of
from service.llm.usage import usage_of

COUNTED: list[tuple[str, dict[str, Any], Usage]] = [
    ("nothing", {}, Usage()),
    ("null", {"usage": None}, Usage()),
    ("plain", {"usage": {"prompt_tokens": 9, "completion_tokens": 4}}, Usage(9, 4)),
    (
        "OpenAI",
        {
            "service_tier": "flex",
            "usage": {
                "prompt_tokens": 2000,
                "completion_tokens": 300,
                "total_tokens": 2300,
                "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 200},
            },
        },
        Usage(2000, 300, 1024, tier="flex"),
    ),
    (
        "OpenAI Responses",
        {
            "service_tier": "default",
            "usage": {
                "input_tokens": 2000,
                "output_tokens": 300,
                "total_tokens": 2300,
                "input_tokens_details": {"cached_tokens": 1024, "cache_write_tokens": 500},
            },
        },
        Usage(2000, 300, 1024, 500, "default"),
    ),
    (
        "DeepSeek",
        {
            "usage": {
                "prompt_tokens": 100,
                "completion_tokens": 7,
                "prompt_cache_hit_tokens": 64,
                "prompt_cache_miss_tokens": 36,
            }
        },
        Usage(100, 7, 64),
    ),
    (
        "Anthropic",
        {
            "usage": {
                "input_tokens": 20,
                "output_tokens": 5,
                "cache_read_input_tokens": 1000,
                "cache_creation_input_tokens": 200,
            }
        },
        Usage(1220, 5, 1000, 200),
    ),
    (
        "Anthropic behind LiteLLM",
        {
            "usage": {
                "prompt_tokens": 1220,
                "completion_tokens": 5,
                "total_tokens": 1225,
                "prompt_tokens_details": {"cached_tokens": 1000},
                "cache_read_input_tokens": 1000,
                "cache_creation_input_tokens": 200,
            }
        },
        Usage(1220, 5, 1000, 200),
    ),
    (
        "Kimi",
        {"usage": {"prompt_tokens": 50, "completion_tokens": 5, "cached_tokens": 40}},
        Usage(50, 5, 40),
    ),
    (
        "Gemini: reasoning only in the total",
        {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115}},
        Usage(10, 105),
    ),
    (
        "OpenRouter says what it bills",
        {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "cost": 0.00042}},
        Usage(10, 5, cost=0.00042),
    ),
    (
        "nonsense",
        {
            "service_tier": 7,
            "usage": {
                "prompt_tokens": "9",
                "completion_tokens": -4,
                "total_tokens": True,
                "prompt_tokens_details": [1],
                "cost": float("nan"),
            },
        },
        Usage(),
    ),
]


@pytest.mark.parametrize(
    ("answer", "usage"), [row[1:] for row in COUNTED], ids=[r[0] for r in COUNTED]
)
def test_what_was_counted(answer: dict[str, Any], usage: Usage) -> None:
    assert usage_of(answer) == usage


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["prompt_tokens", "total_tokens", "prompt_tokens_details", "cached_tokens"]
            ),
            inner,
        )
    ),
)


@given(ANYTHING)
def test_no_usage_is_worse_than_none(raw: Any) -> None:
    usage = usage_of({"usage": raw})
    assert 0 <= usage.cached_tokens + usage.cache_write_tokens <= usage.prompt_tokens
    assert usage.completion_tokens >= 0


MODEL = ModelRef("openai", "m")
FULL = Price(input=1.0, output=10.0, cached=0.1, cache_write=1.25, tiers={"priority": 2.0})
COSTS = [
    (Price(input=1.0, output=10.0), Usage(1_000_000, 100_000), 2.0),
    (Price(input=1.0, output=10.0), Usage(1_000_000, 0, 500_000), 1.0),
    (FULL, Usage(1_000_000, 0, 500_000), 0.55),
    (FULL, Usage(1_000_000, 0, 500_000, 400_000), 0.1 + 0.05 + 0.5),
    (FULL, Usage(1_000_000, 0, tier="flex"), 0.5),
    (FULL, Usage(1_000_000, 0, tier="priority"), 2.0),
    (FULL, Usage(1_000_000, 0, tier="default"), 1.0),
    (Price(input=1.0, output=1.0, tiers={"flex": 0.7}), Usage(1_000_000, 0, tier="flex"), 0.7),
    (Price(input=0.0, output=0.0), Usage(1_000_000, 10), 0.0),
]


@pytest.mark.parametrize(("price", "usage", "dollars"), COSTS)
def test_what_it_costs(price: Price, usage: Usage, dollars: float) -> None:
    assert cost_of(price, usage) == pytest.approx(dollars)
    assert Prices({"m": price}, {}).billed(MODEL, usage).cost == pytest.approx(dollars)


def test_whose_price_counts() -> None:
    own = Prices({"m": FULL}, {})
    assert own.billed(MODEL, Usage(1_000_000, 0, cost=7.0)).cost == 1.0
    assert own.billed(ModelRef("other", "m"), Usage(1_000_000, 0)).cost == 1.0
    none = Prices({}, {})
    assert none.billed(MODEL, Usage(10, 0, cost=7.0)).cost == 7.0
    assert none.billed(MODEL, Usage(10, 0)).cost is None
    both = Prices({"m": FULL, "other/m": Price(input=3.0, output=3.0)}, {})
    assert both.billed(ModelRef("other", "m"), Usage(1_000_000, 0)).cost == 3.0


def test_the_list_prices_what_it_knows() -> None:
    urls = {"openai": None, "local": "http://127.0.0.1:11434/v1"}
    listed = Prices({}, urls, GenaiPrices())
    usage = Usage(1000, 100, 500)
    cost = listed.billed(ModelRef("openai", "gpt-4o-mini"), usage).cost
    assert cost is not None
    assert 0 < cost < 0.01
    assert listed.billed(ModelRef("local", "gpt-4o-mini"), usage).cost is None
    assert listed.billed(ModelRef("openai", "no-such-model"), usage).cost is None
    assert listed.billed(ModelRef("openai", "gpt-4o-mini"), Usage()).cost is None


def test_costs_add_up() -> None:
    total = Usage(1, 2, 1, 0, "flex", 0.5) + Usage(3, 4, cost=None) + Usage(0, 0, cost=0.25)
    assert total == Usage(4, 6, 1, 0, "flex", 0.75)
    assert (Usage() + Usage()).cost is None


KEYS = '[flows.f]\nrequest = "a"\nreply = "b"\n'


def test_prices_in_the_file() -> None:
    text = '[prices]\n"m" = { input = 1, output = 2.5, cached = 0.1, tiers = { flex = 0.5 } }\n'
    flows, faults = parse(f'price_list = "genai-prices"\n{KEYS}{text}')
    assert flows is not None, faults
    assert flows.price_list == "genai-prices"
    assert flows.prices["m"] == Price(input=1, output=2.5, cached=0.1, tiers={"flex": 0.5})


def test_the_list_has_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    flows, faults = parse(f'price_list = "genai-prices"\n{KEYS}')
    assert flows is None
    assert "emqx-gpt[prices]" in str(faults[0])
    assert faults[0].line == 1


@pytest.mark.parametrize(
    "text",
    [
        'price_list = "other"',
        "price_list = 7",
        '[prices]\n"m" = { input = 1, output = 2, tiers = { flex = "half" } }',
        '[prices]\n"m" = { input = 1, output = 2, tiers = { flex = -1 } }',
        '[prices]\n"m" = { input = 1, output = 2, cached = -1 }',
        '[prices]\n"m" = { input = 1, output = 2, cache_read = 1 }',
    ],
)
def test_prices_that_are_refused(text: str) -> None:
    flows, faults = parse(f"{text}\n{KEYS}" if text.startswith("price_list") else f"{KEYS}{text}")
    assert flows is None
    assert faults
