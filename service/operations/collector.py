"""Where spans go, if anywhere."""

from __future__ import annotations

import os
from collections.abc import Mapping

from service import safe_text
from service.errors import ConfigError, Fault
from service.flows import Catalogue
from service.operations.spans import Untraced

HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"


def tracing(endpoint: str | None, catalogue: Catalogue, environ: Mapping[str, str]) -> Untraced:
    """Where OTEL_EXPORTER_OTLP_ENDPOINT names a collector, spans go there. Raises ConfigError."""
    if endpoint is None:
        return Untraced()
    for name, value in environ.items():
        if name.startswith("OTEL_"):  # the SDK knows no .env
            os.environ.setdefault(name, value)
    safe_text.hide(secrets(environ.get(HEADERS, "")))
    try:
        from service.operations.tracing import Tracing
    except ImportError as error:
        fault = Fault(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            f"is set, and OpenTelemetry is not installed ({error})",
            hint="pip install 'emqx-gpt[otel]', or leave it unset",
        )
        raise ConfigError("settings can't be used", (fault,)) from None
    return Tracing(endpoint, catalogue)


def secrets(headers: str) -> list[str]:
    """The values of OTEL_EXPORTER_OTLP_HEADERS: name=value,name=value."""
    return [pair.partition("=")[2].strip() for pair in headers.split(",")]
