"""Carry a plan out in an order that EMQX accepts, and take it back again.

Connectors and actions come first, rules last: no message is taken before it can be delivered.
Every step reads first and then writes only what differs. So a second run completes what a
first one could not, and several replicas that start together do not fight.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    stop_never,
    wait_random_exponential,
)

from service.emqx import names
from service.emqx.findings import address_hint
from service.emqx.management_api import EmqxAdmin, Version
from service.emqx.plan import Actual, Do, Plan, Step, plan, uses
from service.emqx.probe import probe
from service.emqx.resources import Desired, Kind
from service.emqx.sqltest import test_sql
from service.emqx.write import ensure
from service.errors import BrokerError, EmqxGptError

OLDEST, FALLBACK = Version(5, 4), Version(5, 9)
_PASSING = frozenset({"broker_unreachable", "broker_timeout", "broker_unavailable"})
_NOT_YET = _PASSING | {"webhook_unreachable", "webhook_busy", "webhook_not_connected"}
Tell = Callable[[str], None]


@dataclass(slots=True)
class Report:
    """What a run did, in plain words; `not_done` is what an error left undone."""

    done: list[str] = field(default_factory=list)
    not_done: list[str] = field(default_factory=list)


class ApplyError(EmqxGptError):
    """A run that could not go on; `code` is that of its cause."""

    def __init__(self, cause: EmqxGptError, report: Report) -> None:
        super().__init__(cause.message, code=cause.code)
        self.report = report


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
    ids = [names.action_id(prefix), names.action_id(prefix, ordered=True)]
    wanted: list[tuple[Kind, str]] = [("connector", ident) for ident in ids]
    wanted += [("action", ident) for ident in ids]
    wanted += [("action", names.again_id(ident)) for ident in ids]
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


async def apply(
    admin: EmqxAdmin,
    desired: Desired,
    *,
    probe_url: str | None = None,
    check_webhook: bool = True,
    wait: float = 30.0,
    force: bool = False,
    tell: Tell = lambda _: None,
) -> Report:
    """Make the broker what `desired` says; `desired.target` must be set.

    Token, address and SQL are tried before anything is written. `probe_url` is where the
    webhook is seen from here, if not at PUBLIC_URL; `wait` is how many seconds EMQX gets to
    connect; `force` writes anew what EMQX masks. Raises ApplyError, which says what is done
    and what not.
    """
    if (target := desired.target) is None:
        raise ValueError("placeholders can't be applied")
    run = _Run(tell)
    try:
        desired = await suited(admin, desired)
        todo = plan(desired, await read(admin, desired.prefix), force=force)
        todo.refuse_taken()
        run.steps = list(todo.pending)
        for item in run.steps:
            if item.kind == "rule" and item.do is not Do.DELETE:
                await test_sql(admin, desired, item.ident)
        for item in run.steps:
            if item.kind == "connector":
                await _try_address(admin, desired, item.ident)
        if check_webhook and todo.doing(Do.CREATE, Do.CHANGE):
            await probe(probe_url or target.url, target.token)
        for item in todo.pending:
            if item.kind != "rule":
                await run.carry_out(
                    item, _retrying(ensure, admin, desired, item.kind, item.ident, force)
                )
        await connected(admin, desired, wait)
        for item in todo.doing(Do.CREATE, Do.CHANGE):
            if item.kind == "rule":
                await run.carry_out(item, _retrying(ensure, admin, desired, "rule", item.ident))
        for item in todo.doing(Do.DELETE):
            await run.carry_out(item, _retrying(admin.delete, "rule", item.ident))
        if run.report.done:
            _verify(plan(desired, await read(admin, desired.prefix)))
    except EmqxGptError as error:
        raise ApplyError(error, run.report_left()) from error
    return run.report


async def _try_address(admin: EmqxAdmin, desired: Desired, ident: str) -> None:
    """Let EMQX connect once. Raises BrokerError, webhook_not_connected."""
    body = desired.connectors[ident]
    if (why := await admin.try_connector(ident, body)) is not None:
        raise _not_connected(str(body["url"]), f"it says {why}")


def _not_connected(url: str, said: str) -> BrokerError:
    return BrokerError(
        f"EMQX does not reach {url}: {said}. {address_hint(url)}", code="webhook_not_connected"
    )


async def apply_when_ready(
    admin: EmqxAdmin,
    desired: Desired,
    *,
    probe_url: str | None = None,
    give_up: float | None = None,
    tell: Tell = lambda _: None,
) -> Report:
    """For `serve --apply`: wait for broker and webhook with backoff, then apply, unasked.

    Waits for ever, or `give_up` seconds. Raises ApplyError for what waiting can't mend.
    """

    def waiting(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        tell(f"EMQX's half is not up to date yet: {error}")

    return await AsyncRetrying(
        retry=retry_if_exception(lambda e: isinstance(e, ApplyError) and e.code in _NOT_YET),
        wait=wait_random_exponential(multiplier=0.5, max=15),
        stop=stop_never if give_up is None else stop_after_delay(give_up),
        before_sleep=waiting,
        reraise=True,
    )(apply, admin, desired, probe_url=probe_url, tell=tell)


async def remove(
    admin: EmqxAdmin, prefix: str = names.PREFIX, *, tell: Tell = lambda _: None
) -> Report:
    """Delete what is ours under `prefix`: rules, action, connector. Raises ApplyError.

    Nothing is deleted while somebody else's rule or action still uses what would go.
    """
    run = _Run(tell)
    try:
        run.steps = ours(prefix, await read(admin, prefix))
        for item in list(run.steps):
            await run.carry_out(item, _retrying(admin.delete, item.kind, item.ident))
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
        if names.is_ours(prefix, str(rule["id"]), str(rule.get("description", "")))
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
    gone = {names.bare(ident) for ident in actions}
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
    return str(resource.get("description", "")).startswith(names.MARK)


async def connected(admin: EmqxAdmin, desired: Desired, wait: float) -> None:
    """Wait until EMQX reaches the webhook. Raises BrokerError, webhook_not_connected."""
    deadline = asyncio.get_running_loop().time() + wait
    for ident, action_body in desired.actions.items():
        connector_id = f"http:{action_body['connector']}"
        while True:
            connector = await admin.get("connector", connector_id) or {}
            action = await admin.get("action", ident) or {}
            refuse_namespace(connector)
            if connector.get("status") == action.get("status") == "connected":
                break
            if asyncio.get_running_loop().time() > deadline:
                reason = connector.get("status_reason") or action.get("status_reason")
                raise _not_connected(
                    str(desired.connectors[connector_id]["url"]),
                    f"it says {connector.get('status', 'missing')} after {wait:g} s "
                    f"({reason or 'no reason given'})",
                )
            await asyncio.sleep(0.3)


def _verify(after: Plan) -> None:
    if not after.in_step:
        listed = "; ".join(
            f"{item} " + ", ".join(field.path for field in item.fields)
            for item in after.doing(Do.CREATE, Do.CHANGE, Do.DELETE, Do.TAKEN)
        )
        raise BrokerError(
            f"EMQX took it, but reads back otherwise: {listed}", code="broker_differs"
        )


async def _retrying(call: Callable[..., Awaitable[object]], *args: object) -> object:
    return await AsyncRetrying(
        retry=retry_if_exception(lambda e: isinstance(e, BrokerError) and e.code in _PASSING),
        wait=wait_random_exponential(multiplier=0.2, max=2),
        stop=stop_after_attempt(4),
        reraise=True,
    )(call, *args)


class _Run:
    """Keeps account of what is done and tells it as it happens."""

    def __init__(self, tell: Tell) -> None:
        self.steps: list[Step] = []
        self.report = Report()
        self._tell = tell

    async def carry_out(self, item: Step, work: Awaitable[object]) -> None:
        await work
        self.report.done.append(_past(item))
        self._tell(_past(item))
        self.steps.remove(item)

    def report_left(self) -> Report:
        self.report.not_done = [f"{item.do.value} {item}" for item in self.steps]
        return self.report


_PAST = {Do.CREATE: "created", Do.CHANGE: "changed", Do.DELETE: "deleted"}


def _past(item: Step) -> str:
    return f"{_PAST[item.do]} {item}"
