"""Carry a plan out in an order that EMQX accepts.

Connectors and actions come first, rules last: no message is taken before it can be delivered.
Every step reads first and then writes only what differs. So a second run completes what a
first one could not, and several replicas that start together do not fight.
"""

from __future__ import annotations

import asyncio

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_delay,
    stop_never,
    wait_random_exponential,
)

from service.emqx.broker_run import PASSING, ApplyError, Run, RunReport, Tell, retrying
from service.emqx.findings import address_hint
from service.emqx.look import read, refuse_namespace, suited
from service.emqx.management_api import EmqxAdmin
from service.emqx.plan import Do, Plan, plan
from service.emqx.probe import probe
from service.emqx.resources import Desired
from service.emqx.sqltest import test_sql
from service.emqx.write import ensure
from service.errors import BrokerError, EmqxGptError

_NOT_YET = PASSING | {"webhook_unreachable", "webhook_busy", "webhook_not_connected"}


async def apply(
    admin: EmqxAdmin,
    desired: Desired,
    *,
    probe_url: str | None = None,
    check_webhook: bool = True,
    wait: float = 30.0,
    force: bool = False,
    tell: Tell = lambda _: None,
) -> RunReport:
    """Make the broker what `desired` says; `desired.target` must be set.

    Token, address and SQL are tried before anything is written. `probe_url` is where the
    webhook is seen from here, if not at PUBLIC_URL; `wait` is how many seconds EMQX gets to
    connect; `force` writes anew what EMQX masks. Raises ApplyError, which says what is done
    and what not.
    """
    if (target := desired.target) is None:
        raise ValueError("placeholders can't be applied")
    run = Run(tell)
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
            await _try_token(probe_url or target.url, target.token)
        for item in todo.pending:
            if item.kind != "rule":
                await run.carry_out(
                    item, retrying(ensure, admin, desired, item.kind, item.ident, force)
                )
        await connected(admin, desired, wait)
        for item in todo.doing(Do.CREATE, Do.CHANGE):
            if item.kind == "rule":
                await run.carry_out(item, retrying(ensure, admin, desired, "rule", item.ident))
        for item in todo.doing(Do.DELETE):
            await run.carry_out(item, retrying(admin.delete, "rule", item.ident))
        if run.report.done:
            _verify(plan(desired, await read(admin, desired.prefix)))
    except EmqxGptError as error:
        raise ApplyError(error, run.report_left()) from error
    return run.report


async def _try_token(url: str, token: str) -> None:
    """Raises BrokerError, as `probe`."""
    try:
        await probe(url, token)
    except BrokerError as error:
        if error.code != "webhook_unreachable":
            raise
        raise BrokerError(
            f"{error.message}; EMQX reaches it: if that is enough, say where it is seen from here "
            "with --webhook-url, or leave this out with --no-probe",
            code=error.code,
        ) from None


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
) -> RunReport:
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
