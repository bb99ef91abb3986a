"""Counters for Prometheus; the names are part of the interface (docs/metrics.md).

Each label has a bounded set of values: flows, models and providers of flows.toml, our own codes
and states. What a device or a model wrote is never one. What is looked up at each scrape is in
`scrape`.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from service.domain import State, Usage
from service.flows import Flows, ModelRef

STAGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
NO_ERROR = ""
SAVED = frozenset({"unchanged", "cooldown"})
"""Why messages are ignored that would have cost a call."""


@dataclass(slots=True)
class _Model:
    """One model's counters: looking them up by their labels costs more than counting."""

    ok: Counter
    prompt: Counter
    completion: Counter
    cost: Counter | None = None


class Metrics:
    """One process's metrics in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        self.registry = registry
        self._flows: frozenset[str] = frozenset()
        self._models: dict[ModelRef, _Model] = {}
        ProcessCollector(registry=registry)
        self.accepted = Counter("emqx_gpt_accepted", "Messages stored", ["flow"], registry=registry)
        self.kept = Counter(
            "emqx_gpt_kept", "Messages kept for prompts (recent)", ["flow"], registry=registry
        )
        self.saved = Counter(
            "emqx_gpt_calls_saved",
            "Messages that asked no model of their own: kept (recent), collected, unchanged"
            " (on_change), cooldown",
            ["flow", "how"],
            registry=registry,
        )
        self.duplicates = Counter(
            "emqx_gpt_duplicates", "Messages that were stored before", registry=registry
        )
        self.tool_answers = Counter(
            "emqx_gpt_tool_answers",
            "Answers of devices and people to tool calls",
            ["result"],
            registry=registry,
        )
        self.refused = Counter(
            "emqx_gpt_refused", "Webhook calls not taken", ["code"], registry=registry
        )
        self.refused_for_good = 0  # of these, without probes, what EMQX does not send again
        self.ended = Counter(
            "emqx_gpt_ended", "Requests ended", ["flow", "state", "error"], registry=registry
        )
        self.model_calls = Counter(
            "emqx_gpt_model_calls",
            "Model calls by what came of them: ok, or an error's code",
            ["provider", "model", "result"],
            registry=registry,
        )
        self.retries = Counter(
            "emqx_gpt_retries",
            "What was tried again, after an error with this code: at_once, fallback (another "
            "model), shortened (with less memory), later (from the inbox), publish",
            ["how", "code"],
            registry=registry,
        )
        self.tokens = Counter(
            "emqx_gpt_tokens", "Tokens used", ["provider", "model", "kind"], registry=registry
        )
        self.cost = Counter(
            "emqx_gpt_cost_dollars",
            "Cost of model calls, US dollars",
            ["provider", "model"],
            registry=registry,
        )
        self.publishes = Counter(
            "emqx_gpt_publishes", "Messages given to EMQX", ["result"], registry=registry
        )
        self.undelivered = Counter(
            "emqx_gpt_undelivered",
            "Replies that nobody was subscribed to, and that are not tried again",
            ["flow"],
            registry=registry,
        )
        stage = Histogram(
            "emqx_gpt_stage_seconds",
            "Time of a stage: webhook (until 202), queue (stored to begun), model (one call), "
            "first_token (of a call that streams), tools (one round), publish (reply stored until "
            "EMQX has it), total (stored to end)",
            ["stage"],
            buckets=STAGES,
            registry=registry,
        )
        self.webhook_stage = stage.labels("webhook")
        self.queue_stage = stage.labels("queue")
        self.model_stage = stage.labels("model")
        self.first_stage = stage.labels("first_token")
        self.tools_stage = stage.labels("tools")
        self.publish_stage = stage.labels("publish")
        self.total_stage = stage.labels("total")
        self.given_up = Gauge(
            "emqx_gpt_given_up",
            "Messages that EMQX lost on their way to the webhook, since this process started",
            registry=registry,
        )
        self.flows_loaded = Gauge("emqx_gpt_flows_loaded", "Flows in force", registry=registry)
        self.flows_refused = Gauge(
            "emqx_gpt_flows_refused",
            "1: flows.toml as it stands was refused, and the flows from before go on",
            registry=registry,
        )
        self.flows_reloads = Counter(
            "emqx_gpt_flows_reloads",
            "Times that flows.toml was read again: taken, same (nothing was different), refused",
            ["result"],
            registry=registry,
        )
        for result in ("taken", "same", "refused"):
            self.flows_reloads.labels(result)
        self.in_flight = Gauge("emqx_gpt_in_flight", "Model calls in flight", registry=registry)
        self._mcp_calls = Counter(
            "emqx_gpt_mcp_calls",
            "Calls of MCP servers' tools: ok, failed, or unknown (no answer came)",
            ["server", "result"],
            registry=registry,
        )

    def keeps(self, flow: str, count: int) -> None:
        """So many messages of a flow's window are on the disk."""
        self.kept.labels(flow).inc(count)
        self.saved.labels(flow, "kept").inc(count)

    def collected(self, flow: str, count: int) -> None:
        """So many messages ended with a request that was asked about them, too."""
        if count:
            self.saved.labels(flow, "collected").inc(count)
            self.ended.labels(flow, str(State.IGNORED), "collected").inc(count)

    def expect(self, flows: Flows) -> None:
        """Begin at 0 what may come: a counter that begins at 1 has never risen, for Prometheus."""
        for flow in flows.flows.values():
            self.accepted.labels(flow.name)
            if flow.recent is not None:
                self.kept.labels(flow.name)
                self.saved.labels(flow.name, "kept")
            if flow.collect is not None:
                self.saved.labels(flow.name, "collected")
            if flow.on_change is not None:
                self.saved.labels(flow.name, "unchanged")
            if flow.cooldown is not None:
                self.saved.labels(flow.name, "cooldown")
            self.ended.labels(flow.name, str(State.DONE), NO_ERROR)
            self.undelivered.labels(flow.name)
            for model in flow.all_models:
                self._model(model)
        self._flows = frozenset(flows.flows)
        self.flows_loaded.set(len(flows.flows))
        for server in sorted({name for flow in flows.flows.values() for name in flow.tools_from}):
            self._mcp_calls.labels(server, "ok")
        for result in ("answered", "late", "ignored", "nobody"):
            self.tool_answers.labels(result)
        for result in ("delivered", "no_subscriber"):
            self.publishes.labels(result)
        for code in ("unauthorized", "not_json", "too_large", "backlog_full", "store_busy"):
            self.refused.labels(code)
        for code in ("broker_unreachable", "broker_unavailable", "broker_unauthorized"):
            self.retries.labels("publish", code)

    def called(self, model: ModelRef, result: str, seconds: float, usage: Usage) -> None:
        """A model was called."""
        known = self._models.get(model) or self._model(model)
        if result == "ok":
            known.ok.inc()
        else:
            self.model_calls.labels(model.provider, str(model), result).inc()
        known.prompt.inc(usage.prompt_tokens)
        known.completion.inc(usage.completion_tokens)
        if usage.cached_tokens:
            self.tokens.labels(model.provider, str(model), "cached").inc(usage.cached_tokens)
        if usage.cache_write_tokens:
            self.tokens.labels(model.provider, str(model), "cache_write").inc(
                usage.cache_write_tokens
            )
        if usage.cost is not None:
            if known.cost is None:  # there is none of a model without a price
                known.cost = self.cost.labels(model.provider, str(model))
            known.cost.inc(usage.cost)
        self.model_stage.observe(seconds)

    def _model(self, model: ModelRef) -> _Model:
        at = model.provider, str(model)
        made = self._models[model] = _Model(
            self.model_calls.labels(*at, "ok"),
            self.tokens.labels(*at, "prompt"),
            self.tokens.labels(*at, "completion"),
        )
        return made

    def again(self, how: str, code: str) -> None:
        """Something is tried again, after this error."""
        self.retries.labels(how, code).inc()

    def mcp_called(self, server: str, result: str) -> None:
        """A tool of an MCP server was called: ok, failed or unknown."""
        self._mcp_calls.labels(server, result).inc()

    def nobody(self, flow: str) -> None:
        """Nobody came for a reply, and it is not tried again."""
        self.undelivered.labels(flow if flow in self._flows else "").inc()

    def published(self, result: str) -> None:
        """A message was given to EMQX, or could not be."""
        self.publishes.labels(result).inc()

    def ended_in(self, flow: str, state: State, code: str | None, seconds: float) -> None:
        """A request ended, `seconds` after it was accepted."""
        self.ended.labels(flow, str(state), code or NO_ERROR).inc()
        self.total_stage.observe(seconds)
        if state is State.IGNORED and code in SAVED:
            self.saved.labels(flow, code).inc()

    def text(self) -> bytes:
        """Prometheus' text; what is looked up, as it was last seen."""
        return generate_latest(self.registry)
