"""Wires `doctor`: broker, webhook, model and the service's own API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from service.bootstrap import models_of
from service.emqx.doctor import Doctor
from service.emqx.findings import Finding, fail, ok, skip, warn
from service.emqx.loop import Loop, suitable
from service.emqx.management_api import EmqxAdmin
from service.emqx.publish_api import Emqx
from service.emqx.resources import Desired
from service.errors import ConfigError, ModelError
from service.flows import Flows
from service.llm import model_lists
from service.llm.client import Gpt
from service.settings import Settings, environment


async def examination(
    settings: Settings,
    flows: Flows,
    admin: EmqxAdmin,
    desired: Desired,
    *,
    webhook_url: str | None,
    send: bool,
    flow: str | None,
    tell: Callable[[str], None],
) -> AsyncIterator[Finding]:
    """All findings, as they are made."""
    publisher = Emqx(
        settings.emqx_url,
        settings.emqx_key,
        admin=settings.emqx_admin,
        prefix=desired.prefix,
        tokens=settings.webhook_tokens,
    )
    token = settings.operator_tokens[0] if settings.operator_tokens else ""
    url = (webhook_url or settings.webhook_url).rstrip("/")
    loop = Loop(publisher, suitable(flows, flow), url, token, tell=tell) if send else None

    async def models() -> Sequence[Finding]:
        return await ask_models(settings, flows)

    doctor = Doctor(admin, desired, publisher, url, models, loop)
    try:
        async for finding in doctor.examine():
            yield finding
    finally:
        await publisher.close()


async def ask_models(settings: Settings, flows: Flows) -> list[Finding]:
    """Key and names of the models that the flows use, by each provider's GET /models."""
    try:
        edition = models_of(settings, flows, environment())
    except ConfigError as error:
        return [fail("model's key", str(fault)) for fault in error.faults]
    used = {model for flow in flows.flows.values() for model in flow.all_models}
    gpt = Gpt(edition, concurrency=2)
    findings = []
    try:
        for provider in sorted({model.provider for model in used}):
            wanted = sorted(model.model for model in used if model.provider == provider)
            findings.append(await _ask(gpt, provider, wanted))
    finally:
        await gpt.close()
    return findings


async def _ask(gpt: Gpt, provider: str, wanted: list[str]) -> Finding:
    title = f"model's key and name, provider {provider}"
    try:
        known = await gpt.models(provider)
    except ModelError as error:
        if error.status == 404 and " probably lacks " not in error.message:
            return skip(title, "its server has no list of models (GET /models)")
        if error.code == "model_garbage":
            return warn(title, error.message)
        hint = "OPENAI_API_KEY and OPENAI_BASE_URL, or the provider's entry in flows.toml"
        return fail(title, error.message, hint)
    if missing := [model for model in wanted if not model_lists.listed(model, known)]:
        said = (
            f"it does not list {', '.join(missing)}: shut down, misspelt, or hidden from this key"
        )
        return (warn if not known else fail)(
            title, said, "set model in flows.toml, or OPENAI_MODEL"
        )
    return ok(title, ", ".join(wanted))
