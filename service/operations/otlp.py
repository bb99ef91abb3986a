"""The OpenTelemetry SDK as `tracing` needs it: spans that are over, with the ids that they are to
have, sent to a collector (OTLP over HTTP) in the background."""

from __future__ import annotations

import asyncio
import os
import socket
import threading

from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode

from service import __version__

__all__ = ["Attributes", "Otlp", "SpanContext", "SpanKind"]

LAST = 3.0  # seconds that the last spans have to be sent when the process ends

Attributes = dict[str, str | int | float | bool]


class _Ids(IdGenerator):
    """Ids as the next span wants them, else random."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()
        self.trace = self.span = 0

    def new(self) -> int:
        return self._random.generate_span_id()

    def generate_trace_id(self) -> int:
        return self.trace or self._random.generate_trace_id()

    def generate_span_id(self) -> int:
        return self.span or self._random.generate_span_id()


class Otlp:
    """One process's. `endpoint` is OTEL_EXPORTER_OTLP_ENDPOINT; other OTEL_ variables are read by
    the SDK from the environment."""

    def __init__(self, endpoint: str) -> None:
        self._ids = _Ids()
        self._closed = False
        self._provider = TracerProvider(
            id_generator=self._ids, resource=_resource(), shutdown_on_exit=False
        )
        exporter = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("emqx-gpt", __version__)

    def new_span(self) -> int:
        """An id for a span that is told of before it is written."""
        return self._ids.new()

    def sampled(self, parent: SpanContext | None, trace: int, name: str) -> bool:
        """Whether this trace is recorded: as who began it wished, else as OTEL_TRACES_SAMPLER."""
        sampler = self._provider.sampler
        result = sampler.should_sample(_within(parent), trace, name, SpanKind.CONSUMER, {}, ())
        return result.decision is Decision.RECORD_AND_SAMPLE

    def emit(
        self,
        name: str,
        kind: SpanKind,
        began: int,
        ended: int,
        attributes: Attributes,
        *,
        trace: int,
        span: int,
        parent: SpanContext | None,
        error: str | None,
    ) -> None:
        """A span that is over. `span` 0: its id is of no interest. Times in epoch ms."""
        if error is not None:
            attributes["error.type"] = error
        self._ids.trace, self._ids.span = trace, span
        made = self._tracer.start_span(
            name, _within(parent), kind, attributes, start_time=began * 1_000_000
        )
        if error is not None:
            made.set_status(Status(StatusCode.ERROR))
        made.end(max(began, ended) * 1_000_000)

    async def close(self) -> None:
        """Send what is left, for some seconds at most; once."""
        if self._closed:
            return
        self._closed = True
        thread = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        thread.start()
        # A collector that is away is tried again for longer than a process that ends may wait.
        await asyncio.to_thread(thread.join, LAST)


def _within(parent: SpanContext | None) -> Context:
    if parent is None:
        return Context()
    return api.set_span_in_context(NonRecordingSpan(parent), Context())


def _resource() -> Resource:
    found = Resource.create(
        {
            "service.version": __version__,
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        }
    )
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        found = found.merge(Resource({SERVICE_NAME: "emqx-gpt"}))
    return found
