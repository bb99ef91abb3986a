"""What a request's life tells whoever traces it. Here nobody does: a trace that came along with a
message is handed on as it came. `tracing` records spans, where OTEL_EXPORTER_OTLP_ENDPOINT is set.

Times are epoch ms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from service.domain import Claimed, Publish, State, Usage
from service.flows import Flow
from service.llm.attempts import ModelCall
from service.mqtt import traceparent
from service.mqtt.traceparent import Properties


class Spans:
    """One request's, in this process."""

    heard: Callable[[ModelCall], None] | None = None
    """Hears of each call to a model."""

    def __init__(self, properties: Properties = ()) -> None:
        self.upstream = traceparent.read(properties) if properties else None

    @property
    def trace(self) -> str | None:
        """The id of its trace, for the log; None without one."""
        return self.upstream.trace if self.upstream is not None else None

    def given(self) -> Properties:
        """What the reply carries, for who goes on with it."""
        return self.upstream.properties() if self.upstream is not None else ()

    def of_tool(self, call_id: str) -> Properties:
        """What a tool's command carries."""
        return self.given()

    def begun(self, at: int) -> None:
        """It waited until now, and is asked."""

    def tool(
        self, call: Mapping[str, str], known: bool, began: int, ended: int, failed: bool
    ) -> None:
        """A tool call was carried out; `known`: the flow has such a tool."""

    def published(
        self, outbox: Sequence[Publish], began: int, ended: int, error: str | None
    ) -> None:
        """EMQX has the reply, or refused it."""

    def ended(self, at: int, state: State, code: str | None, usage: Usage) -> None:
        """It has ended."""


NOBODY = Spans()


class Untraced:
    """Nobody traces; `tracing.Tracing` is for where somebody does."""

    def of(self, claimed: Claimed, flow: Flow | None) -> Spans:
        properties = claimed.message.user_properties
        return Spans(properties) if properties else NOBODY

    async def close(self) -> None:
        """Nothing is left to send."""
