"""Carry a plan out in an order that EMQX accepts, and take it back again.

Connector and action come first, rules last: no message is taken before it can be delivered.
Every step reads first and then writes only what differs. So a second run completes what a
first one could not, and several replicas that start together do not fight.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

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
from service.emqx.management_api import EmqxAdmin
from service.emqx.plan import Actual, Do, Plan, Step, plan, uses
from service.emqx.probe import probe
from service.emqx.resources import Desired
from service.emqx.sqltest import test_sql
from service.emqx.write import ensure
from service.errors import BrokerError, EmqxGptError

OLDEST = (5, 4)
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


async def check_version(admin: EmqxAdmin) -> str:
    """The broker's version. Raises BrokerError, broker_too_old before 5.4."""
    version = await admin.version()
    if (version.major, version.minor) < OLDEST:
        raise BrokerError(
            f"EMQX {version.text} is too old: connectors and actions exist since 5.4",
            code="broker_too_old",
        )
    return version.text


async def read(admin: EmqxAdmin, prefix: str) -> Actual:
    """What the broker has now."""
    ident = names.action_id(prefix)
    return Actual(
        await admin.get("connector", ident),
        await admin.get("action", ident),
        tuple(await admin.rules()),
    )


async def compare(admin: EmqxAdmin, desired: Desired, *, sure: bool = False) -> Plan:
    """The plan for a broker that speaks our language. Raises BrokerError.

    `sure`: for apply, which puts a token in again that it can't compare.
    """
    await check_version(admin)
    return plan(desired, await read(admin, desired.prefix), sure=sure)


async def waiting_messages(admin: EmqxAdmin, todo: Plan) -> int:
    """How many messages wait in an action that `todo` would restart: its buffer is memory."""
    restarts = [item for item in todo.doing(Do.CHANGE) if item.kind != "rule"]
    if not restarts or any(item.kind == "action" for item in todo.doing(Do.CREATE)):
        return 0
    counters = await admin.metrics("action", restarts[0].ident)
    return int(counters.get("queuing", 0) + counters.get("inflight", 0))


async def apply(
    admin: EmqxAdmin,
    desired: Desired,
    *,
    probe_url: str | None = None,
    check_webhook: bool = True,
    wait: float = 30.0,
    tell: Tell = lambda _: None,
) -> Report:
    """Make the broker what `desired` says; `desired.target` must be set.

    `probe_url` is where the webhook is seen from here, if not at PUBLIC_URL; `wait` is how
    many seconds EMQX gets to connect. Raises ApplyError, which says what is done and what not.
    """
    if desired.target is None:
        raise ValueError("placeholders can't be applied")
    run = _Run(tell)
    try:
        todo = await compare(admin, desired, sure=True)
        todo.refuse_taken()
        run.steps = list(todo.pending)
        for item in run.steps:
            if item.kind == "rule" and item.do is not Do.DELETE:
                await test_sql(admin, desired, item.ident)
        for item in todo.pending:
            if item.kind != "rule":
                await run.carry_out(item, _retrying(ensure, admin, desired, item.kind, item.ident))
        if todo.doing(Do.CREATE, Do.CHANGE):
            await connected(admin, desired, wait)
            if check_webhook:
                await probe(probe_url or desired.target.url, desired.target.token)
        for item in todo.doing(Do.CREATE, Do.CHANGE):
            if item.kind == "rule":
                await run.carry_out(item, _retrying(ensure, admin, desired, "rule", item.ident))
        for item in todo.doing(Do.DELETE):
            await run.carry_out(item, _retrying(admin.delete, "rule", item.ident))
        if run.report.done:
            _verify(await compare(admin, desired, sure=True))
    except EmqxGptError as error:
        raise ApplyError(error, run.report_left()) from error
    return run.report


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
    ident = names.action_id(prefix)
    mine = [
        Step(Do.DELETE, "rule", str(rule["id"]))
        for rule in actual.rules
        if names.is_ours(prefix, str(rule["id"]), str(rule.get("description", "")))
    ]
    gone = {item.ident for item in mine}
    users = [str(rule["id"]) for rule in actual.rules if ident in uses(rule)]
    if _marked(actual.action):
        mine.append(Step(Do.DELETE, "action", ident))
        if foreign := [user for user in users if user not in gone]:
            raise BrokerError(
                f"not ours, but it sends to our action: rule {', '.join(foreign)}; delete it, or "
                "take the action out of it, and run this again",
                code="broker_in_use",
            )
    if actual.connector and _marked(actual.connector):
        mine.append(Step(Do.DELETE, "connector", ident))
        used_by = [str(name) for name in actual.connector.get("actions", ())]
        if foreign := [name for name in used_by if name != prefix or not _marked(actual.action)]:
            raise BrokerError(
                f"not ours, but it uses our connector: action {', '.join(foreign)}",
                code="broker_in_use",
            )
    return mine


def _marked(resource: dict[str, object] | None) -> bool:
    return resource is not None and str(resource.get("description", "")).startswith(names.MARK)


async def connected(admin: EmqxAdmin, desired: Desired, wait: float) -> None:
    """Wait until EMQX reaches the webhook. Raises BrokerError, webhook_not_connected."""
    ident = names.action_id(desired.prefix)
    deadline = asyncio.get_running_loop().time() + wait
    while True:
        connector = await admin.get("connector", ident) or {}
        action = await admin.get("action", ident) or {}
        if connector.get("status") == action.get("status") == "connected":
            return
        if asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(0.3)
    reason = connector.get("status_reason") or action.get("status_reason") or "no reason given"
    raise BrokerError(
        f"EMQX does not reach {desired.connector['url']}: it says "
        f"{connector.get('status', 'missing')} after {wait:g} s ({reason})",
        code="webhook_not_connected",
    )


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
