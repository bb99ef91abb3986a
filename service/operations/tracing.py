"""Spans of each request, sent to an OpenTelemetry collector. Imported only where one is named.

    process TOPIC            stored to ended; continues the trace that came with the message
      queue                  it waited
      chat MODEL             one call to a model
      execute_tool NAME      one tool call
      publish TOPIC          reply stored until EMQX has it

The names are those of OpenTelemetry's conventions for messaging and generative AI. A request
without a trace gets one whose id is the request's. Ids of its first span are made of the
request, so that processes that come one after the other, over restarts, write one trace. Prompts,
payloads, arguments and answers are in no span.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from opentelemetry.trace.span import TraceFlags, TraceState

from service.domain import Claimed, Publish, State, Usage
from service.flows import Catalogue, Flow, Provider
from service.llm import providers
from service.llm.attempts import ModelCall
from service.mqtt import traceparent
from service.mqtt.traceparent import Properties
from service.operations.otlp import Attributes, Otlp, SpanContext, SpanKind
from service.operations.spans import Spans, Untraced

SYSTEM = "mqtt"
NAMES = {
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
"""Providers whose name in the conventions is another than ours."""
log = logging.getLogger("emqx-gpt.tracing")
_ID = re.compile(r"[0-9a-f]{32}")


class Tracing(Untraced):
    """One process's. `catalogue` has the providers with their addresses."""

    def __init__(self, endpoint: str, catalogue: Catalogue) -> None:
        self.otlp = Otlp(endpoint)
        self._catalogue = catalogue

    def server(self, name: str) -> tuple[str, str, int]:
        """A provider's name in the conventions, its host and port."""
        provider = self._catalogue.providers.get(name)
        return (name, "", 0) if provider is None else _server(provider)

    def of(self, claimed: Claimed, flow: Flow | None) -> Spans:
        return Traced(self, claimed, flow)

    async def close(self) -> None:
        await self.otlp.close()


class Traced(Spans):
    """One request's spans."""

    def __init__(self, tracing: Tracing, claimed: Claimed, flow: Flow | None) -> None:
        super().__init__(claimed.message.user_properties)
        self._tracing = tracing
        self._claimed = claimed
        self._flow = flow
        self.heard = self._call
        self._tools: dict[str, int] = {}
        pattern = flow.pattern(claimed.message.topic) if flow is not None else None
        self._template = pattern.text if pattern is not None else ""
        up = self.upstream
        self._parent = None
        if up is not None:
            self._parent = SpanContext(
                int(up.trace, 16),
                int(up.span, 16),
                is_remote=True,
                trace_flags=TraceFlags(int(up.flags, 16)),
                trace_state=TraceState.from_header([up.state]) if up.state else TraceState(),
            )
        trace = self._parent.trace_id if self._parent is not None else _trace_of(claimed.id)
        self._sampled = tracing.otlp.sampled(self._parent, trace, self._name)
        flags = TraceFlags.SAMPLED if self._sampled else TraceFlags.DEFAULT
        state = self._parent.trace_state if self._parent is not None else TraceState()
        self._me = SpanContext(trace, _span_of(claimed), False, TraceFlags(flags), state)
        self._reply = 0

    @property
    def _name(self) -> str:
        return f"process {self._template}".rstrip()

    @property
    def trace(self) -> str:
        return f"{self._me.trace_id:032x}"

    def given(self) -> Properties:
        if not self._reply:
            self._reply = self._tracing.otlp.new_span()
        return self._properties(self._reply)

    def of_tool(self, call_id: str) -> Properties:
        span = self._tools[call_id] = self._tracing.otlp.new_span()
        return self._properties(span)

    def begun(self, at: int) -> None:
        claimed = self._claimed
        attributes: Attributes = {"emqx_gpt.wait.reason": "queue"}
        since = claimed.accepted_at
        if claimed.attempts:
            last = claimed.attempts[-1]
            since = last.at + last.took_ms
            attributes = {"emqx_gpt.wait.reason": "retry", "emqx_gpt.wait.code": last.result}
        self._emit("queue", SpanKind.INTERNAL, since, at, attributes)

    def _call(self, call: ModelCall) -> None:
        ref = call.model
        name, host, port = self._tracing.server(ref.provider)
        attributes: Attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": name,
            "gen_ai.request.model": ref.model,
            "gen_ai.request.stream": call.stream,
            "emqx_gpt.provider": ref.provider,
        }
        if self._claimed.conversation:
            attributes["gen_ai.conversation.id"] = _text(self._claimed.conversation)
        if call.max_tokens is not None:
            attributes["gen_ai.request.max_tokens"] = call.max_tokens
        if host:
            attributes |= {"server.address": host, "server.port": port}
        if call.answered_by:
            attributes["gen_ai.response.model"] = _text(call.answered_by)
        attributes |= _usage(call.usage)
        error = None if call.result == "ok" else call.result
        self._emit(
            f"chat {ref.model}", SpanKind.CLIENT, call.began, call.ended, attributes, error=error
        )

    def tool(
        self, call: Mapping[str, str], known: bool, began: int, ended: int, failed: bool
    ) -> None:
        name = call["name"] if known else "unknown"  # a model may have made it up
        attributes: Attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": call["call_id"],
        }
        self._emit(
            f"execute_tool {name}",
            SpanKind.INTERNAL,
            began,
            ended,
            attributes,
            span=self._tools.pop(call["call_id"], 0),
            error="tool_error" if failed else None,
        )

    def published(
        self, outbox: Sequence[Publish], began: int, ended: int, error: str | None
    ) -> None:
        reply = outbox[0]
        flow = self._flow
        template = flow.reply.text if flow is not None and flow.reply is not None else ""
        attributes: Attributes = {
            "messaging.system": SYSTEM,
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.destination.name": _text(reply.topic),
            "messaging.batch.message_count": len(outbox),
            "messaging.message.body.size": len(reply.payload),
        }
        if template:
            attributes["messaging.destination.template"] = template
        name = f"publish {template}".rstrip()
        span = self._span_in(reply)
        self._emit(name, SpanKind.PRODUCER, began, ended, attributes, span=span, error=error)

    def ended(self, at: int, state: State, code: str | None, usage: Usage) -> None:
        claimed = self._claimed
        attributes: Attributes = {
            "messaging.system": SYSTEM,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": _text(claimed.message.topic),
            "messaging.message.id": _text(claimed.message.id),
            "messaging.message.body.size": len(claimed.message.payload),
            "emqx_gpt.request.id": claimed.id,
            "emqx_gpt.state": str(state),
        }
        if self._template:
            attributes["messaging.destination.template"] = self._template
        if self._flow is not None:
            attributes["emqx_gpt.flow"] = self._flow.name
        if claimed.conversation:
            attributes["gen_ai.conversation.id"] = _text(claimed.conversation)
        attributes |= _usage(usage)
        if code is not None:
            attributes["emqx_gpt.code"] = code
        failed = state in (State.FAILED, State.EXPIRED)
        self._emit(
            self._name,
            SpanKind.CONSUMER,
            claimed.accepted_at,
            at,
            attributes,
            span=self._me.span_id,
            root=True,
            error=(code or str(state)) if failed else None,
        )

    def _span_in(self, reply: Publish) -> int:
        """The span that a stored reply says to come from, maybe by a process before this one."""
        said = traceparent.read(reply.user_properties)
        own = said is not None and said.trace == self.trace
        if said is None or not own or (self.upstream and said.span == self.upstream.span):
            return 0
        return int(said.span, 16)

    def _properties(self, span: int) -> Properties:
        me = self._me
        state = me.trace_state.to_header()
        return traceparent.Context(
            self.trace, f"{span:016x}", f"{int(me.trace_flags):02x}", state
        ).properties()

    def _emit(
        self,
        name: str,
        kind: SpanKind,
        began: int,
        ended: int,
        attributes: Attributes,
        *,
        span: int = 0,
        root: bool = False,
        error: str | None = None,
    ) -> None:
        """A span that is over, below the request's own, or that one itself (`root`)."""
        if not self._sampled:
            return
        try:
            self._tracing.otlp.emit(
                name,
                kind,
                began,
                ended,
                attributes,
                trace=self._me.trace_id,
                span=span,
                parent=self._parent if root else self._me,
                error=error,
            )
        except Exception:  # no request fails because nobody can watch it
            log.exception("a span could not be recorded")


def _trace_of(id: str) -> int:
    if _ID.fullmatch(id) and id.strip("0"):
        return int(id, 16)
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=16).digest(), "big") or 1


def _span_of(claimed: Claimed) -> int:
    """The same in each process; another one when a dead letter is asked again."""
    text = f"{claimed.id}/{claimed.deadline}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") or 1


def _usage(usage: Usage) -> Attributes:
    found: Attributes = {}
    if usage.total_tokens:
        found["gen_ai.usage.input_tokens"] = usage.prompt_tokens
        found["gen_ai.usage.output_tokens"] = usage.completion_tokens
    if usage.cached_tokens:
        found["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
    if usage.cost is not None:
        found["emqx_gpt.cost_dollars"] = usage.cost
    return found


def _text(text: str) -> str:
    """What protobuf takes, and not without end: lone surrogates it does not."""
    return text[:500].encode("utf-8", "replace").decode()


@lru_cache(maxsize=100)
def _server(provider: Provider) -> tuple[str, str, int]:
    """Its name in the conventions, and where it is."""
    url = provider.base_url or providers.KINDS["openai"].address
    kind = providers.find(provider.kind, url).kind
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    name = NAMES.get(kind, kind if kind != providers.GENERIC.kind else provider.name)
    return name, parts.hostname or "", port
