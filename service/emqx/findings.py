"""What `doctor` says, and how it reads settings and counters. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from service.emqx import resource_names
from service.emqx.compare import milliseconds
from service.emqx.plan import uses
from service.rulesql.reserved import REPLY_TOPIC


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


def settings(
    ident: str, connector: Mapping[str, Any], action: Mapping[str, Any]
) -> Iterator[Finding]:
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
            f"request_ttl of {ident}",
            f"EMQX gives a message up after {ttl / 1000:g} s, and looks for the service every "
            f"{slowest / 1000:g} s: even a short outage loses messages",
            again,
        )
    elif slowest > 5000:
        yield warn(
            f"health checks of {ident}",
            f"after an outage the first message waits up to {slowest / 1000:g} s",
            again,
        )
    else:
        yield ok(
            f"request_ttl and health checks of {ident}",
            "an outage shorter than request_ttl loses nothing",
        )
    if options.get("dispatch_strategy") == "random":
        yield fail(
            f"dispatch_strategy of {ident}",
            "random: one client's messages take any way, and arrive out of order",
            again,
        )
    if _section(action, "parameters").get("body"):
        yield fail(f"body template of {ident}", "it breaks on a quote in a payload", again)


def pool(wanted: Mapping[str, Any], connector: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether flows with order keep it."""
    if wanted.get("pool_type") == "hash" != connector.get("pool_type"):
        said = f"pool_type is {connector.get('pool_type')}: messages can arrive out of order"
        yield warn("order", said, "emqx-gpt emqx apply sets it right")


def open_relays(rules: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """Reply rules as they were before replies were signed, of any prefix."""
    for conf in rules:
        if REPLY_TOPIC in conf.get("from", ()):
            ident = str(conf["id"])
            prefix = ident.removesuffix("_reply")
            named = "" if prefix == resource_names.PREFIX else f" --prefix {prefix}"
            yield fail(
                f"rule {ident}",
                "an older reply rule: a device's last will gets through it, and is published to "
                "any topic",
                f"emqx-gpt emqx apply{named} with this version, or delete the rule",
            )


def status(kind: str, ident: str, resource: Mapping[str, Any], url: str) -> Finding:
    """Whether EMQX says that it is connected."""
    title = f"action {ident} connected"
    if kind == "connector":
        title = f"webhook reachable from EMQX ({ident})"
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
    return fail(title, f"EMQX says {found}{where} for {url}: {reason}", address_hint(url))


def address_hint(url: str) -> str:
    """What to look at when EMQX does not reach the service at `url`."""
    hint = "Is the service running, and is PUBLIC_URL its address as EMQX's machine sees it?"
    if any(name in url for name in ("//127.", "//localhost", "//[::1]")):
        hint += (
            " In a container 127.0.0.1 is the container itself: for an EMQX in Docker on this"
            " machine set HOST=0.0.0.0 and PUBLIC_URL=http://host.docker.internal:8000"
        )
    return hint


def rule(ident: str, conf: Mapping[str, Any] | None, actions: Iterable[str]) -> Finding | None:
    """What keeps a rule from running; None where nothing does. `actions` it must hand on to."""
    again = "emqx-gpt emqx apply puts it right"
    if conf is None:
        return fail(f"rule {ident}", "it is missing", again)
    if str(conf.get("enable", True)).lower() == "false":
        return fail(f"rule {ident}", "it is switched off", again)
    if missing := set(actions) - set(uses(conf)):
        return fail(f"rule {ident}", f"it does not send to {', '.join(missing)}", again)
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
    "failed": (
        "failed: a connection broke while EMQX was sending, or the webhook refused them (its log "
        "has it)"
    ),
}
_RESET = "since EMQX started; what the action …_again brought is counted as well"


def outstanding(counters: Mapping[str, float]) -> float:
    """Messages that an action took and that have no end yet.

    By the counters that are exact: the gauges `queuing` and `inflight` lag by seconds.
    """
    ended = sum(counters.get(name, 0) for name in ("success", "failed", "dropped"))
    return max(0.0, counters.get("matched", 0) - ended)


def action_counters(
    before: Mapping[str, Mapping[str, float]], after: Mapping[str, Mapping[str, float]]
) -> Iterator[Finding]:
    """What the actions' counters tell, read twice a few seconds apart; by id."""
    for ident, counters in after.items():
        title = f"counters of {ident}"
        lost = [f"{counters[name]:g} {why}" for name, why in _LOST.items() if counters.get(name)]
        for said in lost:
            yield warn(title, said, _RESET)
        waiting, earlier = outstanding(counters), outstanding(before.get(ident, {}))
        ended = counters.get("matched", 0) - waiting
        moved = ended > before.get(ident, {}).get("matched", 0) - earlier
        if waiting and earlier and not moved:
            yield fail(
                title,
                f"{waiting:g} messages wait, without any progress",
                "the service is away, answers 503, or does not answer at all: see its log and "
                "/readyz. If it is well, switch the action off and on in EMQX's dashboard",
            )
        elif waiting:
            yield ok(title, f"{waiting:g} messages wait, and they move")
        elif not lost:
            yield ok(title, f"{counters.get('success', 0):g} delivered, nothing lost, none waits")


def _section(conf: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = conf.get(name)
    return found if isinstance(found, Mapping) else {}
