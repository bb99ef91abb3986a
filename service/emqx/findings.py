"""What `doctor` says, and how it reads settings and counters. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from service.emqx.compare import milliseconds
from service.emqx.plan import uses


class Level(StrEnum):
    """How bad it is. SKIP: could not be looked at, `detail` says why."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """One link of the chain: what was looked at, what was found, what to do about it."""

    level: Level
    title: str
    detail: str = ""
    hint: str = ""


def ok(title: str, detail: str = "") -> Finding:
    return Finding(Level.OK, title, detail)


def warn(title: str, detail: str, hint: str = "") -> Finding:
    return Finding(Level.WARN, title, detail, hint)


def fail(title: str, detail: str, hint: str = "") -> Finding:
    return Finding(Level.FAIL, title, detail, hint)


def skip(title: str, detail: str, hint: str = "") -> Finding:
    return Finding(Level.SKIP, title, detail, hint)


def settings(connector: Mapping[str, Any], action: Mapping[str, Any]) -> Iterator[Finding]:
    """Settings that lose or reorder messages."""
    options = _section(action, "resource_opts")
    ttl = milliseconds(options.get("request_ttl", "45s"))
    checks = [
        milliseconds(_section(resource, "resource_opts").get("health_check_interval", "15s"))
        for resource in (connector, action)
    ]
    slowest = max(check for check in checks if isinstance(check, float))
    again = "emqx-gpt emqx apply sets it right"
    if isinstance(ttl, float) and ttl < 60_000 + slowest:
        yield fail(
            "request_ttl",
            f"EMQX gives a message up after {ttl / 1000:g} s, and looks for the service every "
            f"{slowest / 1000:g} s: even a short outage loses messages",
            again,
        )
    elif slowest > 5000:
        yield warn(
            "health checks",
            f"after an outage the first message waits up to {slowest / 1000:g} s",
            again,
        )
    else:
        yield ok(
            "request_ttl and health checks", "an outage shorter than request_ttl loses nothing"
        )
    if str(options.get("inflight_window")) != "1":
        yield warn(
            "inflight_window",
            f"{options.get('inflight_window')}: after any hiccup messages arrive out of order",
            again,
        )
    if _section(action, "parameters").get("body"):
        yield fail("body template", "it breaks on a quote in a payload", again)


def status(kind: str, resource: Mapping[str, Any], url: str) -> Finding:
    """Whether EMQX says that it is connected."""
    title = f"{kind} connected" if kind == "action" else "webhook reachable from EMQX"
    if str(resource.get("enable", True)).lower() == "false":
        return fail(title, f"the {kind} is switched off", "switch it on, or: emqx-gpt emqx apply")
    found = str(resource.get("status", "unknown"))
    if found == "connected":
        return ok(title, url)
    reason = resource.get("status_reason") or resource.get("error") or "no reason given"
    nodes = resource.get("node_status")
    bad = [
        str(node.get("node"))
        for node in (nodes if isinstance(nodes, list) else [])
        if isinstance(node, Mapping) and node.get("status") != "connected"
    ]
    where = f" on {', '.join(bad)}" if len(bad) > 1 or found == "inconsistent" else ""
    hint = "is the service running, and is PUBLIC_URL its address as EMQX's machine sees it?"
    if any(name in url for name in ("//127.", "//localhost", "//[::1]")):
        hint += " In a container 127.0.0.1 is the container itself"
    return fail(title, f"EMQX says {found}{where} for {url}: {reason}", hint)


def rule(ident: str, conf: Mapping[str, Any] | None, action: str | None) -> Finding | None:
    """What keeps a rule from running; None where nothing does. `action` it must hand on to."""
    again = "emqx-gpt emqx apply puts it right"
    if conf is None:
        return fail(f"rule {ident}", "it is missing", again)
    if str(conf.get("enable", True)).lower() == "false":
        return fail(f"rule {ident}", "it is switched off", again)
    if action is not None and action not in uses(conf):
        return fail(f"rule {ident}", f"it does not send to {action}", again)
    return None


def rule_counters(ident: str, counters: Mapping[str, float]) -> Iterator[Finding]:
    """What a rule's counters tell; nothing said means nothing wrong."""
    if raised := counters.get("failed.exception", 0):
        yield warn(
            f"rule {ident}",
            f"it raised on {raised:g} messages, which never reached the service",
            "a payload that is no JSON, or a comparison of the wrong type: guard `where`, as in "
            "is_num(payload.x) and payload.x > 40 (emqx-gpt check)",
        )
    if away := counters.get("actions.failed.out_of_service", 0):
        yield warn(f"rule {ident}", f"{away:g} messages found the action switched off or down")


_LOST = {
    "dropped.expired": "expired: the service was away or too slow for longer than request_ttl",
    "dropped.queue_full": "dropped because the buffer was full",
    "dropped.resource_stopped": "dropped while the action was switched off",
    "dropped.resource_not_found": "dropped because the action was missing",
    "dropped.other": "dropped for other reasons; EMQX's log names them",
    "failed": "refused by the webhook with a status after which EMQX drops them (its log has it)",
    "late_reply": "answered by the webhook only after request_ttl",
}


def action_counters(before: Mapping[str, float], after: Mapping[str, float]) -> Iterator[Finding]:
    """What an action's counters tell, read twice a few seconds apart."""
    title = "action counters"
    lost = [f"{after[name]:g} {why}" for name, why in _LOST.items() if after.get(name)]
    for said in lost:
        yield warn(title, f"{said}, since the counters began", "they are reset when EMQX restarts")
    moved = after.get("success", 0) > before.get("success", 0)
    waiting, flying = after.get("queuing", 0), after.get("inflight", 0)
    if (waiting or flying) and not moved and (before.get("queuing") or before.get("inflight")):
        yield fail(
            title,
            f"{waiting:g} messages queue and {flying:g} are in flight, without any progress",
            "the service is away, answers 503, or does not answer at all: see its log and /readyz",
        )
    elif waiting:
        yield ok(title, f"{waiting:g} messages queue, and they move")
    elif not lost:
        yield ok(title, f"{after.get('success', 0):g} delivered, nothing lost, nothing waiting")


def _section(conf: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = conf.get(name)
    return found if isinstance(found, Mapping) else {}
