"""Counters for Prometheus; the names are part of the interface (docs/operations.md)."""

from __future__ import annotations

import logging

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from service.domain import State, Usage
from service.errors import StoreError
from service.inbox import Inbox

STAGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)


log = logging.getLogger("emqx-gpt.metrics")


class Metrics:
    """One process's metrics in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        self.registry = registry
        self.accepted = Counter("emqx_gpt_accepted", "Messages stored", ["flow"], registry=registry)
        self.duplicates = Counter(
            "emqx_gpt_duplicates", "Messages that were stored before", registry=registry
        )
        self.refused = Counter(
            "emqx_gpt_refused", "Webhook calls not taken", ["code"], registry=registry
        )
        self.refused_for_good = 0  # of these, without probes, what EMQX does not send again
        self.ended = Counter(
            "emqx_gpt_ended", "Requests ended", ["flow", "state", "error"], registry=registry
        )
        self.model_calls = Counter(
            "emqx_gpt_model_calls", "Model calls", ["model", "result"], registry=registry
        )
        self.tokens = Counter(
            "emqx_gpt_tokens", "Tokens used", ["model", "kind"], registry=registry
        )
        self.cost = Counter(
            "emqx_gpt_cost_dollars", "Cost of model calls, US dollars", ["model"], registry=registry
        )
        self.publishes = Counter(
            "emqx_gpt_publishes", "Messages given to EMQX", ["result"], registry=registry
        )
        stage = Histogram(
            "emqx_gpt_stage_seconds",
            "Time of a stage: webhook, model, total (accepted to end)",
            ["stage"],
            buckets=STAGES,
            registry=registry,
        )
        self.webhook_stage = stage.labels("webhook")
        self.model_stage = stage.labels("model")
        self.total_stage = stage.labels("total")
        self.backlog = Gauge("emqx_gpt_backlog", "Requests waiting", registry=registry)
        self.backlog_age = Gauge(
            "emqx_gpt_backlog_age_seconds", "Age of the oldest waiting request", registry=registry
        )
        self.given_up = Gauge(
            "emqx_gpt_given_up",
            "Messages that EMQX lost on their way to the webhook, since this process started",
            registry=registry,
        )
        self.in_flight = Gauge("emqx_gpt_in_flight", "Model calls in flight", registry=registry)

    def called(self, model: str, result: str, seconds: float, usage: Usage) -> None:
        """A model was called."""
        self.model_calls.labels(model, result).inc()
        self.tokens.labels(model, "prompt").inc(usage.prompt_tokens)
        self.tokens.labels(model, "completion").inc(usage.completion_tokens)
        if usage.cached_tokens:
            self.tokens.labels(model, "cached").inc(usage.cached_tokens)
        if usage.cache_write_tokens:
            self.tokens.labels(model, "cache_write").inc(usage.cache_write_tokens)
        if usage.cost is not None:
            self.cost.labels(model).inc(usage.cost)
        self.model_stage.observe(seconds)

    def published(self, result: str) -> None:
        """A message was given to EMQX, or could not be."""
        self.publishes.labels(result).inc()

    def ended_in(self, flow: str, state: State, code: str | None, seconds: float) -> None:
        """A request ended, `seconds` after it was accepted."""
        self.ended.labels(flow, str(state), code or "").inc()
        self.total_stage.observe(seconds)

    async def exposition(self, store: Inbox, now: int) -> bytes:
        """Prometheus' text, gauges as of now (epoch ms)."""
        try:
            stats = await store.stats()
        except StoreError as error:  # what else there is to see matters most just then
            log.debug("no figures of the backlog: %s", error.message)
        else:
            self.backlog.set(stats.open)
            oldest = stats.oldest_at
            self.backlog_age.set(0.0 if oldest is None else max(0.0, (now - oldest) / 1000))
        return self.text()

    def text(self) -> bytes:
        """The same, the backlog as it was last seen."""
        return generate_latest(self.registry)
