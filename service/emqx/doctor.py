"""Walks the chain from broker to reply, and says in plain words where it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from service.emqx import findings
from service.emqx.findings import Finding, fail, ok, skip, warn
from service.emqx.look import check_version, read, suited
from service.emqx.loop import Loop
from service.emqx.management_api import EmqxAdmin
from service.emqx.plan import Actual, Do, Plan, plan, uses
from service.emqx.probe import probe
from service.emqx.publish_api import Emqx
from service.emqx.resources import Desired
from service.errors import BrokerError, EmqxGptError

# The model's side is wired by whoever calls: a finding for each provider or model.
AskModels = Callable[[], Awaitable[Sequence[Finding]]]
_APPLY = "emqx-gpt emqx apply"


@dataclass(frozen=True, slots=True)
class Doctor:
    """What is examined; None leaves a part of the chain out.

    `webhook_url` is where the webhook is seen from here. `pause` is how many seconds lie
    between two looks at the counters.
    """

    admin: EmqxAdmin
    desired: Desired
    publisher: Emqx | None = None
    webhook_url: str | None = None
    models: AskModels | None = None
    loop: Loop | None = None
    pause: float = 2.0

    async def examine(self) -> AsyncIterator[Finding]:
        """Findings, one link after the other; what depends on a broken link is left out."""
        reachable = False
        async for finding in self._broker():
            reachable = finding.level is not findings.Level.FAIL
            yield finding
        chain = reachable
        if reachable:
            try:
                async for finding in self._configured():
                    chain = chain and finding.level is not findings.Level.FAIL
                    yield finding
            except BrokerError as error:
                chain = False
                yield fail("broker's configuration", error.message)
        async for finding in self._webhook():
            chain = chain and finding.level is not findings.Level.FAIL
            yield finding
        answering = True
        if self.models is not None:
            for finding in await self.models():
                answering = answering and finding.level is not findings.Level.FAIL
                yield finding
        async for finding in self._loop(chain, answering):
            yield finding

    async def _broker(self) -> AsyncIterator[Finding]:
        try:
            await self.admin.running()
        except BrokerError as error:
            hint = "is EMQX running, and is EMQX_URL its REST API (port 18083)?"
            yield fail("EMQX reachable", error.message, hint)
            return
        try:
            version = await check_version(self.admin)
        except BrokerError as error:
            hint = {
                "broker_unauthorized": "EMQX_ADMIN_KEY and EMQX_ADMIN_SECRET, or EMQX_API_KEY "
                "and EMQX_API_SECRET; made in EMQX's dashboard: System, API Keys",
                "broker_forbidden": "give it the role administrator, or set EMQX_ADMIN_KEY",
            }.get(error.code, "")
            yield fail("EMQX's API key", error.message, hint)
            return
        yield ok("EMQX reachable, key valid", f"EMQX {version.text} at {self.admin.url}")
        if self.publisher is not None:
            try:
                await self.publisher.ping()
                yield ok("key for publishing valid")
            except BrokerError as error:
                yield fail("key for publishing", error.message, "EMQX_API_KEY, EMQX_API_SECRET")

    async def _configured(self) -> AsyncIterator[Finding]:
        desired = await suited(self.admin, self.desired)
        actual = await read(self.admin, desired.prefix)
        todo = plan(desired, actual)
        for finding in (*self._plan(todo), *findings.open_relays(actual.rules)):
            yield finding
        if todo.doing(Do.TAKEN):
            return
        for ident, connector in desired.connectors.items():
            if (found := actual.get("connector", ident)) is not None:
                url = str(found.get("url", ""))
                yield findings.status("connector", ident, found, url)
                for finding in findings.pool(connector, found):
                    yield finding
        before = {}
        for ident in desired.actions:
            if (action := actual.get("action", ident)) is not None:
                connector = actual.get("connector", f"http:{action.get('connector')}") or {}
                url = str(connector.get("url", ""))
                yield findings.status("action", ident, action, url)
                for finding in findings.settings(ident, connector, action):
                    yield finding
                before[ident] = await self.admin.metrics("action", ident)
        async for finding in self._rules(desired, actual):
            yield finding
        if any(map(findings.outstanding, before.values())):
            await asyncio.sleep(self.pause)
        after = {ident: await self.admin.metrics("action", ident) for ident in before}
        for finding in findings.action_counters(before, after):
            yield finding

    def _plan(self, todo: Plan) -> list[Finding]:
        if taken := todo.doing(Do.TAKEN):
            listed = ", ".join(str(step) for step in taken)
            return [fail("our names", f"{listed}: somebody else's", "rename it, or use --prefix")]
        found = []
        if any(step.kind != "rule" for step in todo.doing(Do.CREATE)):
            missing = [str(step) for step in todo.doing(Do.CREATE) if step.kind != "rule"]
            found.append(fail("connectors and actions", f"missing: {', '.join(missing)}", _APPLY))
        differing = [(step, field.path) for step in todo.doing(Do.CHANGE) for field in step.fields]
        if any(path == "headers.authorization" for _, path in differing):
            found.append(fail("token equal", "EMQX sends another token than ours", _APPLY))
        if any(path.startswith("parameters.headers.") for _, path in differing):
            said = "an action has an authorization header of its own, which goes before ours"
            found.append(fail("token equal", said, _APPLY))
        if todo.pending:
            count = len(todo.pending)
            differ = "resource differs" if count == 1 else "resources differ"
            said = f"{count} {differ} from flows.toml and settings"
            found.append(warn("in step", said, "emqx-gpt emqx diff shows them, apply mends them"))
        else:
            found.append(ok("in step with flows.toml", *todo.notes[:1]))
        return found

    async def _rules(self, desired: Desired, actual: Actual) -> AsyncIterator[Finding]:
        fine = 0
        for ident, wanted in desired.rules.items():
            conf = actual.get("rule", ident)
            if broken := findings.rule(ident, conf, uses(wanted)):
                yield broken
                continue
            fine += 1
            for finding in findings.rule_counters(ident, await self.admin.metrics("rule", ident)):
                yield finding
        if fine:
            yield ok("rules enabled", f"{fine} of {len(desired.rules)}")

    async def _webhook(self) -> AsyncIterator[Finding]:
        title = "webhook here, token equal"
        if self.desired.target is None:
            yield skip(title, "WEBHOOK_TOKEN is not set here")
            return
        url = self.webhook_url or self.desired.target.url
        try:
            await probe(url, self.desired.target.token)
        except BrokerError as error:
            if error.code == "webhook_unreachable":
                hint = "only EMQX has to reach PUBLIC_URL; --webhook-url names it as seen from here"
                yield warn(title, error.message, hint)
            else:
                hint = "restart it with this token, or set its token here"
                yield fail(title, error.message, hint if error.code == "webhook_token" else "")
        else:
            yield ok(title, url)

    async def _loop(self, chain: bool, answering: bool) -> AsyncIterator[Finding]:
        title = "a message through the whole loop"
        if self.loop is None:
            return
        if not chain:
            yield skip(title, "not sent: the chain is broken before it")
            return
        if not answering:
            yield skip(title, "not sent: the model can't answer, as said above")
            return
        try:
            yield await self.loop.run()
        except EmqxGptError as error:
            yield fail(title, error.message)


def healthy(found: Sequence[Finding]) -> bool:
    """Whether nothing failed."""
    return all(finding.level is not findings.Level.FAIL for finding in found)
