"""The one place that wires things: settings and flows in, a service ready to start out."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from service import safe_text
from service.answering.budget import Budgets
from service.answering.client_shares import ShareRefusals
from service.answering.intake import Intake
from service.answering.job import InHand, retry_while_busy
from service.answering.mcp_servers import McpServers
from service.answering.publisher import STANDARD, Publisher, PublishPolicy
from service.answering.recent import Recents
from service.answering.redelivery import Redelivery
from service.answering.replay import Replayer
from service.answering.request_limits import Limits
from service.answering.request_run import RequestRunner
from service.answering.schedule import Schedule
from service.answering.summaries import AT_ONCE, Summaries
from service.answering.tool_answers import ToolAnswers, pins_of
from service.answering.worker import LEASE, Worker
from service.emqx import loss_counters, resources
from service.emqx.management_api import EmqxAdmin
from service.emqx.publish_api import Emqx
from service.errors import ConfigError, Fault, StoreBusy, StoreError
from service.flows import DEFAULT_PROVIDER, Catalogue, Commands, Edition, Flow, Flows
from service.flows.changes import Changes
from service.flows.check_mcp import unready
from service.inbox import Change, Inbox, epoch_ms
from service.llm.asker import Asker
from service.llm.circuit_breaker import CircuitBreakers
from service.llm.client import Gpt
from service.llm.prices import PricesInForce
from service.llm.retry import USUAL, RetryPolicy
from service.operations import collector
from service.operations.actions import Actions
from service.operations.board import Board
from service.operations.bulk import Bulk
from service.operations.controls import Controls
from service.operations.events import Hub
from service.operations.health import Health
from service.operations.insights import Insights
from service.operations.live import Live
from service.operations.losses import LossWatch
from service.operations.metrics import Metrics
from service.operations.scrape import Scrape
from service.operations.stats import Statistics
from service.operations.watchdog import Watchdog
from service.settings import Settings, environment
from service.supervised import Link

SETTLE = 5.0  # seconds; EMQX sends again what it could not bring up to so much later

log = logging.getLogger("emqx-gpt")


class Service:
    """Everything of one process, wired. `start` and `stop` in the event loop.

    `flows` are those to begin with. `environ` holds the keys of other providers, `lease` is in
    seconds, `now` gives epoch ms.
    """

    def __init__(
        self,
        settings: Settings,
        flows: Flows,
        *,
        environ: Mapping[str, str] | None = None,
        lease: float = LEASE,
        settle: float = SETTLE,
        policy: RetryPolicy = USUAL,
        publishing: PublishPolicy = STANDARD,
        now: Callable[[], int] = epoch_ms,
        link: Link | None = None,
    ) -> None:
        safe_text.hide(settings.secrets())
        self.settings = settings
        self.now = now
        self._opened = False
        environ = environment() if environ is None else environ
        catalogue = self.flows = Catalogue(edition_of(settings, flows, environ))
        endpoint = settings.otel_exporter_otlp_endpoint
        self.tracing = collector.tracing(endpoint, catalogue, environ)

        self.metrics = Metrics()
        self.servers = McpServers(catalogue, self.metrics.mcp_called)
        self.hub = Hub()
        self.watchdog = Watchdog()
        wake = asyncio.Event()
        url = settings.database_url.get_secret_value()
        self.store = Inbox(url, now=now, on_change=self._changed, on_wake=wake.set)
        self.breakers = CircuitBreakers(time.monotonic, policy)
        self.gpt = Gpt(
            catalogue,
            concurrency=settings.max_concurrency + AT_ONCE,  # no answer waits for a summary
            max_answer=settings.max_answer,
            granted=self.breakers.granted,
        )
        self.emqx = Emqx(
            settings.emqx_url,
            settings.emqx_key,
            admin=settings.emqx_admin,
            prefix=settings.emqx_prefix,
            tokens=settings.webhook_tokens,
        )
        self.admin = EmqxAdmin(settings.emqx_url, settings.emqx_admin)
        self.losses = LossWatch(
            lambda: loss_counters.read(self.admin, settings.emqx_prefix),
            lambda: self.metrics.refused_for_good,
            lambda: loss_counters.reply_fault(
                self.admin, settings.emqx_prefix, self._reply_tokens()
            ),
        )
        self.metrics.given_up.set_function(lambda: self.losses.lost)
        self.health = Health(
            self.store, self.emqx, self.breakers, self.losses, self.servers.troubles
        )
        self.controls = Controls(self.store, catalogue, now=now, changed=self._controlled)
        self.insights = Insights(self.store, catalogue, now=now, stopped=self._stopped)
        self.statistics = Statistics(self.store, now=now)
        board = Board(self.store, self.health, self.controls, self.losses, self.statistics)
        self.live = Live(self.hub, board, now=now)
        self.actions = Actions(self.store, catalogue, now=now)
        self.bulk = Bulk(self.store, self.actions, now=now)

        limits = Limits(self.store, identity=settings.client_identity)
        self.intake = Intake(
            catalogue,
            self.store,
            now=now,
            max_backlog=settings.max_backlog,
            settle=settle,
            client=limits.client,
        )
        self.tool_answers = ToolAnswers(self.store, lambda: catalogue.latest.pins, now=now)
        self._commands = Commands(flows.flows.values())
        self.publisher = Publisher(
            self.emqx,
            self.metrics,
            self.health,
            policy=publishing,
            is_command=lambda topic: topic in self._commands,
        )
        self.schedule = Schedule(catalogue, self.store, self.metrics, now=now)
        self.recents = Recents(
            catalogue,
            self.store,
            now=now,
            most=settings.max_readings,
            kept=self.metrics.keeps,
        )
        self.intake.refusals = ShareRefusals(self.publisher, now)
        in_hand = InHand(wake)
        self.metrics.in_flight.set_function(in_hand.asking.__len__)
        redelivery = Redelivery(
            self.store, self.publisher, self.health, now=now, given_up=self.metrics.nobody
        )
        prices = PricesInForce(catalogue)
        self.budgets = Budgets(
            self.store,
            catalogue,
            prices,
            tokens=settings.daily_tokens,
            usd=settings.daily_usd,
            now=now,
        )
        self.scrape = Scrape(
            self.metrics,
            catalogue,
            self.store,
            self.breakers,
            self.controls,
            self.budgets.spent,
            now=now,
            troubles=self.servers.troubles,
        )
        asker = Asker(
            self.gpt,
            self.breakers,
            on_call=self.metrics.called,
            on_again=self.metrics.again,
            policy=policy,
            prices=prices,
            budget=self.budgets,
        )
        self.replayer = Replayer(catalogue, asker, now=now, servers=self.servers)
        self.summaries = Summaries(catalogue, self.store, asker, now=now)
        runner = RequestRunner(
            catalogue,
            self.store,
            asker,
            self.publisher,
            self.hub,
            self.metrics,
            in_hand,
            redelivery,
            limits,
            recents=self.recents,
            summaries=self.summaries,
            now=now,
            max_attempts=settings.max_attempts,
            keep_prompts=settings.store_prompts,
            tracing=self.tracing,
            servers=self.servers,
            poison=link.poison if link is not None else frozenset(),
        )
        self.worker = Worker(
            catalogue,
            self.store,
            runner,
            in_hand,
            self.breakers,
            self.intake,
            redelivery,
            owner=f"{socket.gethostname()}:{os.getpid()}",
            concurrency=settings.max_concurrency,
            retention=settings.retention,
            max_memory=settings.max_memory,
            now=now,
            lease=lease,
            link=link,
        )

    def take(self, edition: Edition) -> Changes:
        """These flows from now on; what they changed. What is in hand ends by those it began
        with. Counts, pauses and cooldowns go on: they are kept by the flows' names."""
        changes = Changes.between(self.flows.latest, edition)
        self.flows.exchange(edition)
        self._commands = Commands(edition.flows.flows.values())
        self.metrics.expect(edition.flows)
        self.breakers.forget(changes.providers)
        self.servers.follow()
        self.recents.follow()
        self.controls.tell()  # wakes the worker, too
        return changes

    def _reply_tokens(self) -> tuple[str, ...]:
        """Those that the reply rule should know, where there is one."""
        wanted = any(resources.replies(flow) for flow in self.flows.flows.values())
        return self.settings.webhook_tokens if wanted else ()

    def _stopped(self, flow: Flow) -> tuple[str, str | None] | None:
        """Why this flow asks nobody now, and for which error; None: it does."""
        if (reason := self.controls.stopped(flow)) is not None:
            return reason, None
        if self.breakers.blocked_for(flow.models) <= 0:
            return None
        error = self.breakers.last_error(flow.model)
        return ("rate_limit", None) if error is None else ("circuit", error.code)

    def _controlled(self, providers: frozenset[str]) -> None:
        """Something was paused or resumed."""
        self.breakers.pause(providers)
        flows = self.flows.flows.values()
        self.worker.paused = frozenset(one.name for one in flows if self.controls.stopped(one))
        self.worker.in_hand.wake.set()

    def _changed(self, changes: Sequence[Change]) -> None:
        """The inbox tells what was committed."""
        self.intake.shares.changed(changes)
        self.hub.changed(changes)

    async def open(self) -> None:
        """Open the database; once. Raises StoreUnusable."""
        if not self._opened:
            await self.store.open()
            self._opened = True

    async def start(self) -> None:
        """Open the database and begin to work. Raises StoreUnusable."""
        await self.open()
        if self.settings.database_url.get_secret_value().startswith("sqlite"):
            await self._take_over()
        await self._pause_ordered()
        await retry_while_busy(self.controls.start)
        self.publisher.start()
        self.worker.start()
        self.recents.start()
        self.schedule.start()
        self.watchdog.start()
        self.statistics.start()
        self.losses.start()
        log.info("ready: %d flows, backlog %d", len(self.flows.flows), self.store.backlog)

    async def _take_over(self) -> None:
        """The only process on this file: whoever held a lease is dead, and need not run out."""
        try:
            await self.store.reap(all_leases=True)
        except StoreBusy as error:
            log.error("what was in hand waits for its leases to run out: %s", error.message)

    async def _pause_ordered(self) -> None:
        """What EMQX could not bring while this process was away comes late."""
        try:
            await self.intake.pause_ordered()
        except StoreError as error:
            log.error("conversations may get out of order: %s", error.message)

    async def drain(self) -> None:
        """Take nothing more, finish what is in hand within GRACE, give the rest back. Webhooks
        are still answered, with 503; once."""
        if self.intake.closing:
            return
        self.intake.closing = True
        self.recents.closing = True
        self.health.closing = True
        log.info("shutting down: webhooks are answered 503 from now on")
        await self._pause_ordered()
        await self.schedule.stop()
        await self.worker.stop(self.settings.grace)
        await self.recents.close()
        await self.summaries.close()
        self.hub.close()
        await self.live.close()
        await self.bulk.stop()
        await self.controls.stop()
        await self.statistics.stop()
        await self.publisher.close()

    async def stop(self) -> None:
        """Drain, then close everything."""
        await self.drain()
        self.watchdog.stop()
        await self.budgets.close()
        await self.tracing.close()
        await self.store.close()
        await self.gpt.close()
        await self.servers.close()
        await self.losses.stop()
        await self.admin.close()
        await self.emqx.close()
        log.info("stopped")


def edition_of(settings: Settings, flows: Flows, environ: Mapping[str, str]) -> Edition:
    """The flows, their servers with their addresses, keys and tokens. Raises ConfigError for one
    that is missing, or the missing package of MCP."""
    edition = models_of(settings, flows, environ)
    if faults := unready(flows, environ):
        raise ConfigError(f"{flows.source} can't be used", tuple(faults))
    used = edition.mcp_servers()
    if used:
        importlib.import_module("service.mcp.servers")  # 1 s, so not for all, nor later
    tokens = {
        name: environ[server.token_env] for name, (server, _) in used.items() if server.token_env
    }
    safe_text.hide(tokens.values())
    return replace(edition, tokens=tokens, pins=pins_of(flows, environ))


def models_of(settings: Settings, flows: Flows, environ: Mapping[str, str]) -> Edition:
    """The flows, their models' servers with their addresses and keys. Raises ConfigError for a
    missing key."""
    key = settings.openai_api_key
    default = replace(flows.providers[DEFAULT_PROVIDER], base_url=settings.openai_base_url)
    providers = {**flows.providers, DEFAULT_PROVIDER: default}
    keys = {DEFAULT_PROVIDER: key.get_secret_value() if key else ""}
    faults = []
    used = {model.provider for flow in flows.flows.values() for model in flow.all_models}
    for name, provider in flows.providers.items():
        if name == DEFAULT_PROVIDER or provider.api_key_env is None:
            continue
        keys[name] = environ.get(provider.api_key_env, "")
        if not keys[name] and name in used:
            hint = f"it is the key of provider {name} in {flows.source}"
            faults.append(Fault(provider.api_key_env, "is not set", hint=hint))
    safe_text.hide(keys.values())
    for name, text in keys.items():
        if not (text.isascii() and text.isprintable()):
            variable = flows.providers[name].api_key_env or "OPENAI_API_KEY"
            fault = "has a character that no key has, as a typographic quote or a line break"
            faults.append(Fault(variable, fault, hint="copy the key once more"))
    if faults:
        raise ConfigError("settings can't be used", tuple(faults))
    return Edition(replace(flows, providers=MappingProxyType(providers)), keys)
