"""Counters for Prometheus; the names are part of the interface (docs/operations.md)."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

STAGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)


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
        self.ended = Counter(
            "emqx_gpt_ended", "Requests ended", ["flow", "state", "error"], registry=registry
        )
        self.model_calls = Counter(
            "emqx_gpt_model_calls", "Model calls", ["model", "result"], registry=registry
        )
        self.tokens = Counter(
            "emqx_gpt_tokens", "Tokens used", ["model", "kind"], registry=registry
        )
        self.publishes = Counter(
            "emqx_gpt_publishes", "Messages given to EMQX", ["result"], registry=registry
        )
        self.stage = Histogram(
            "emqx_gpt_stage_seconds",
            "Time of a stage: webhook, model, total (accepted to end)",
            ["stage"],
            buckets=STAGES,
            registry=registry,
        )
        self.backlog = Gauge("emqx_gpt_backlog", "Requests waiting", registry=registry)
        self.backlog_age = Gauge(
            "emqx_gpt_backlog_age_seconds", "Age of the oldest waiting request", registry=registry
        )
        self.in_flight = Gauge("emqx_gpt_in_flight", "Model calls in flight", registry=registry)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
