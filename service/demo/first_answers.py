"""A first question to each model that the flows use, before anything else starts."""

from __future__ import annotations

from collections.abc import Mapping

from service.bootstrap import models_of
from service.errors import ModelError
from service.flows import Flows, ModelRef
from service.llm.client import Gpt, Question
from service.settings import Settings, environment

PATIENCE = 20.0  # seconds for one answer


async def probe(
    settings: Settings, flows: Flows, environ: Mapping[str, str] | None = None
) -> dict[ModelRef, ModelError | None]:
    """What each first model answers: None where it does. Raises ConfigError for a missing key."""
    edition = models_of(settings, flows, environment() if environ is None else environ)
    gpt = Gpt(edition, concurrency=4)
    found: dict[ModelRef, ModelError | None] = {}
    try:
        for model in dict.fromkeys(flow.model for flow in flows.flows.values()):
            messages = ({"role": "user", "content": "Reply with: OK"},)
            try:
                await gpt.ask(Question(model, messages, timeout=PATIENCE))
                found[model] = None
            except ModelError as error:
                found[model] = error
    finally:
        await gpt.close()
    return found
