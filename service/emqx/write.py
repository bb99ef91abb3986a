"""One resource made what we want it to be, whatever happens to it at the same time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.emqx.compare import unwanted
from service.emqx.management_api import EmqxAdmin
from service.emqx.plan import Do, step, wanted
from service.emqx.resources import Desired, Kind
from service.emqx.sqltest import sql_refused
from service.errors import BrokerError

# What may be sent back of what EMQX reads back; the rest is status and stamps, or is ours.
_CONFIGURATION: Mapping[Kind, tuple[str, ...]] = {
    "connector": (
        *("url", "headers", "pool_size", "pool_type", "enable_pipelining", "connect_timeout"),
        *("ssl", "resource_opts", "enable", "description", "tags"),
    ),
    "action": (
        *("connector", "parameters", "fallback_actions"),
        *("resource_opts", "enable", "description", "tags"),
    ),
    "rule": ("sql", "actions", "enable", "description", "name"),
}


async def ensure(
    admin: EmqxAdmin, desired: Desired, kind: Kind, ident: str, force: bool = False
) -> None:
    """Create or change it, unless it is right. Raises BrokerError.

    Another replica may be faster: then this one reads again and finds nothing left to do.
    """
    for last in (False, False, True):
        have = await admin.get(kind, ident)
        todo = step(desired, kind, ident, have, force=force)
        want = wanted(desired, kind, ident)
        if todo.do is Do.LEAVE:
            return
        if todo.do is Do.TAKEN:
            raise BrokerError(f"{todo} is somebody else's", code="broker_name_taken")
        try:
            if have is None:
                await admin.create(kind, ident, want)
            else:
                await admin.replace(kind, ident, changed(kind, have, want))
        except BrokerError as error:
            made_meanwhile = have is None and error.code == "broker_refused"
            gone_meanwhile = have is not None and error.code == "broker_not_found"
            vain = last or not (made_meanwhile or gone_meanwhile)
            if vain or (made_meanwhile and await admin.get(kind, ident) is None):
                if kind == "rule" and error.code == "broker_refused":
                    raise sql_refused(ident, error) from None
                raise
        else:
            return


def changed(kind: Kind, have: Mapping[str, Any], want: Mapping[str, Any]) -> dict[str, Any]:
    """What is there, with what we want laid over it: a PUT replaces everything.

    Settings that we don't name stay as somebody set them, but for those that break ours.
    """
    kept = {key: value for key, value in have.items() if key in _CONFIGURATION[kind]}
    merged = _over(kept, want)
    if kind == "action":
        parameters = merged["parameters"]
        for path, _ in unwanted(have):
            *_, group, name = path.split(".")
            inner = parameters if group == "parameters" else dict(parameters[group])
            inner.pop(name)
            if group != "parameters":
                parameters[group] = inner
        if merged["resource_opts"].get("dispatch_strategy") == "random":
            merged["resource_opts"]["dispatch_strategy"] = "per_clientid"
        ours = list(want.get("fallback_actions", ()))
        theirs = have.get("fallback_actions") or []
        if ours or theirs:
            merged["fallback_actions"] = [*theirs, *(one for one in ours if one not in theirs)]
    return merged


def _over(have: Mapping[str, Any], want: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(have)
    for key, value in want.items():
        inner = merged.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        merged[key] = _over(inner, value) if both else value  # type: ignore[arg-type]
    return merged
