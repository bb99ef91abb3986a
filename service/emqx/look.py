"""What the broker has and can, and how that differs from what is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.emqx import resource_names
from service.emqx.management_api import EmqxAdmin, Version
from service.emqx.plan import Actual, Do, Plan, plan
from service.emqx.resources import Desired, Kind
from service.errors import BrokerError

OLDEST, FALLBACK = Version(5, 4), Version(5, 9)


async def check_version(admin: EmqxAdmin) -> Version:
    """The broker's version. Raises BrokerError, broker_too_old before 5.4."""
    version = await admin.version()
    if version < OLDEST:
        raise BrokerError(
            f"EMQX {version.text} is too old: connectors and actions exist since 5.4",
            code="broker_too_old",
        )
    return version


async def suited(admin: EmqxAdmin, desired: Desired) -> Desired:
    """`desired` as this broker can have it. Raises BrokerError."""
    version = await check_version(admin)
    return desired.with_fallback() if version >= FALLBACK else desired


async def read(admin: EmqxAdmin, prefix: str) -> Actual:
    """What the broker has now. Raises BrokerError, broker_namespace for a key of a namespace."""
    ids = [resource_names.action_id(prefix), resource_names.action_id(prefix, ordered=True)]
    ids.append(resource_names.recent_id(prefix))
    wanted: list[tuple[Kind, str]] = [("connector", ident) for ident in ids]
    wanted += [("action", ident) for ident in ids]
    wanted += [("action", resource_names.again_id(ident)) for ident in ids]
    found = {key: body for key in wanted if (body := await admin.get(*key)) is not None}
    rules = await admin.rules()
    for body in (*found.values(), *rules):
        refuse_namespace(body)
    return Actual(found, tuple(rules))


def refuse_namespace(body: Mapping[str, Any]) -> None:
    """EMQX 6.1 and later: rules of a namespace can't reply to everybody."""
    if namespace := body.get("namespace"):
        raise BrokerError(
            f"the API key belongs to EMQX's namespace {namespace!r}: there the reply rule reaches "
            "nobody; use a key without a namespace, which serves namespaced clients too",
            code="broker_namespace",
        )


async def compare(admin: EmqxAdmin, desired: Desired, *, force: bool = False) -> Plan:
    """The plan for a broker that speaks our language. Raises BrokerError."""
    desired = await suited(admin, desired)
    return plan(desired, await read(admin, desired.prefix), force=force)


async def waiting_messages(admin: EmqxAdmin, todo: Plan) -> int:
    """How many messages wait in actions that `todo` would restart: their buffer is memory."""
    restarts = {step.ident for step in todo.doing(Do.CHANGE) if step.kind != "rule"}
    made = {step.ident for step in todo.doing(Do.CREATE)}
    waiting = 0.0
    for ident in sorted(restarts - made):
        counters = await admin.metrics("action", ident)
        waiting += counters.get("queuing", 0) + counters.get("inflight", 0)
    return int(waiting)
