"""Take our resources out of EMQX again, and nobody else's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.emqx import resource_names
from service.emqx.broker_run import ApplyError, Run, RunReport, Tell, retrying
from service.emqx.look import read
from service.emqx.management_api import EmqxAdmin
from service.emqx.plan import Actual, Do, Step, uses
from service.errors import BrokerError, EmqxGptError


async def remove(
    admin: EmqxAdmin, prefix: str = resource_names.PREFIX, *, tell: Tell = lambda _: None
) -> RunReport:
    """Delete what is ours under `prefix`: rules, action, connector. Raises ApplyError.

    Nothing is deleted while somebody else's rule or action still uses what would go.
    """
    run = Run(tell)
    try:
        run.steps = ours(prefix, await read(admin, prefix))
        for item in list(run.steps):
            await run.carry_out(item, retrying(admin.delete, item.kind, item.ident))
        if left := ours(prefix, await read(admin, prefix)):
            listed = ", ".join(str(item) for item in left)
            raise BrokerError(f"EMQX still has {listed}", code="broker_differs")
    except EmqxGptError as error:
        raise ApplyError(error, run.report_left()) from error
    return run.report


def ours(prefix: str, actual: Actual) -> list[Step]:
    """What `remove` deletes, in its order. Raises BrokerError, broker_in_use."""
    mine = [
        Step(Do.DELETE, "rule", str(rule["id"]))
        for rule in actual.rules
        if resource_names.is_ours(prefix, str(rule["id"]), str(rule.get("description", "")))
    ]
    rules = {item.ident for item in mine}
    kept = [rule for rule in actual.rules if str(rule["id"]) not in rules]
    marked = [key for key, body in actual.found.items() if _marked(body)]
    actions = [ident for kind, ident in marked if kind == "action"]
    for ident in actions:
        mine.append(Step(Do.DELETE, "action", ident))
        if users := [str(rule["id"]) for rule in kept if ident in uses(rule)]:
            raise BrokerError(
                f"not ours, but it sends to our action: rule {', '.join(users)}; delete it, or "
                "take the action out of it, and run this again",
                code="broker_in_use",
            )
    gone = {resource_names.bare(ident) for ident in actions}
    for kind, ident in marked:
        if kind != "connector":
            continue
        mine.append(Step(Do.DELETE, "connector", ident))
        used_by = [str(name) for name in actual.found[kind, ident].get("actions", ())]
        if foreign := [name for name in used_by if name not in gone]:
            raise BrokerError(
                f"not ours, but it uses our connector: action {', '.join(foreign)}",
                code="broker_in_use",
            )
    return mine


def _marked(resource: Mapping[str, Any]) -> bool:
    return str(resource.get("description", "")).startswith(resource_names.MARK)
