"""Everything that the demo starts: stand-in broker, offline model, the service with its flows."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import SecretStr

from service.bootstrap import Service, edition_of
from service.demo.offline_model.model import MODEL, OfflineModel
from service.demo.standin.broker import StandIn
from service.demo.words import ENGLISH, Words
from service.emqx import resource_names
from service.emqx.apply import apply
from service.emqx.config_file import render_filled
from service.emqx.management_api import EmqxAdmin
from service.emqx.resources import build, target
from service.errors import ConfigError, EmqxGptError, Fault
from service.flows import DEFAULT_PROVIDER, Flow, Flows, ModelRef
from service.server import bind, make_server
from service.settings import Settings, environment
from service.web.app import create_app

HOST = "127.0.0.1"
PORTS = {"MQTT": 1883, "WebSocket": 8083, "REST": 18083}
TRIES = 5  # to start on ports that were free
BATCH = 2.0  # seconds that messages are collected at most
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - what people write for "all addresses"


def configured(settings: Settings) -> bool:
    """Whether the settings name a model's server: a key, or an address of one's own."""
    return settings.openai_api_key is not None or "api.openai.com" not in settings.openai_base_url


def sped_up(flows: Flows) -> Flows:
    """The flows with a clock that runs fast: nobody waits a minute for a batch here."""

    def changed(flow: Flow) -> Flow:
        if flow.collect is None or flow.collect.every <= BATCH:
            return flow
        return replace(flow, collect=replace(flow.collect, every=BATCH))

    return replace(
        flows, flows=MappingProxyType({name: changed(flow) for name, flow in flows.flows.items()})
    )


def played_model(kind: str) -> str:
    """The name of the offline model; where it plays OpenAI's servers, one of those that need it."""
    return "gpt-5.6" if kind == "openai" else MODEL


def with_offline(flows: Flows, *, all_providers: bool = False, kind: str = MODEL) -> Flows:
    """The flows with the offline model for each model of the default provider, or for all."""
    offline = ModelRef(DEFAULT_PROVIDER, played_model(kind))

    def played(model: ModelRef) -> ModelRef:
        return offline if all_providers or model.provider == DEFAULT_PROVIDER else model

    def changed(flow: Flow) -> Flow:
        first, *rest = dict.fromkeys(map(played, flow.models))
        history = flow.history
        if history is not None and isinstance(history.summarize, ModelRef):
            history = replace(history, summarize=played(history.summarize))
        return replace(flow, model=first, fallback=tuple(rest), history=history)

    return replace(
        flows, flows=MappingProxyType({name: changed(flow) for name, flow in flows.flows.items()})
    )


@dataclass(slots=True)
class Running:
    """What runs, and where. `notes` are words about ports that were taken."""

    broker: StandIn
    settings: Settings
    flows: Flows
    offline: bool
    token: str
    kind: str = MODEL  # the family of servers that the offline model plays
    notes: list[str] = field(default_factory=list)
    _stop: Callable[[], Any] | None = None
    _service: Service | None = None

    @property
    def address(self) -> str:
        """Where this machine reaches what listens."""
        return reached_at(self.settings.host)

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.settings.port}"

    async def start_service(self) -> None:
        """The service with the present flows; raises EmqxGptError."""
        sock = bind(self.settings.host, self.settings.port)
        service = self._service = Service(self.settings, self.flows)
        server = make_server(create_app(service))
        serving = asyncio.create_task(server.serve(sockets=[sock]))

        async def stop() -> None:
            server.should_exit = True
            await serving

        self._stop = stop
        while not server.started:
            if serving.done():
                await serving
            await asyncio.sleep(0.01)

    async def hurry(self, flow: str) -> bool:
        """Move the clock of a flow with `every` on to its next time. Raises StoreError."""
        return self._service is not None and await self._service.schedule.hurry(flow)

    async def stop_service(self) -> None:
        stop, self._stop = self._stop, None
        if stop is not None:
            await stop()

    async def change_flows(self, flows: Flows) -> None:
        """Other flows from now on, as `serve` takes them; the broker's half follows. Where it
        can't, the flows stay as they were. Raises EmqxGptError."""
        before = self.flows
        self._take(flows)
        try:
            await self._apply(flows)
        except EmqxGptError:
            self._take(before)
            raise

    def _take(self, flows: Flows) -> None:
        if self._service is not None:
            self._service.take(edition_of(self.settings, flows, environment()))
        self.flows = flows

    async def _apply(self, flows: Flows) -> None:
        admin = EmqxAdmin(self.settings.emqx_url, self.settings.emqx_admin, hide=(self.token,))
        try:
            await apply(admin, build(flows, to=target(self.url, self.token)))
        finally:
            await admin.close()

    def environment(self) -> dict[str, str]:
        """What other commands need to work against it."""
        settings = self.settings
        key, secret = settings.emqx_key
        values = {
            "EMQX_URL": settings.emqx_url,
            "EMQX_API_KEY": key,
            "EMQX_API_SECRET": secret,
            "EMQX_PREFIX": settings.emqx_prefix,
            "WEBHOOK_TOKEN": self.token,
            "OPERATOR_TOKEN": next(iter(settings.operator_tokens), ""),
            "DATABASE_URL": settings.database_url.get_secret_value(),
            "FLOWS": str(settings.flows.absolute()),
            "HOST": settings.host,
            "PORT": str(settings.port),
            "PUBLIC_URL": self.url,
            "OPENAI_BASE_URL": settings.openai_base_url,
        }
        if self.offline:  # a real key stays where it is
            values |= {"OPENAI_API_KEY": MODEL, "OPENAI_MODEL": played_model(self.kind)}
        return values


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    flows: Flows,
    host: str = HOST,
    kind: str = MODEL,
    say: Words = ENGLISH,
) -> AsyncIterator[Running]:
    """The whole demo, up; everything is down again afterwards. Raises EmqxGptError."""
    async with contextlib.AsyncExitStack() as stack:
        offline = not configured(settings)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emqx-gpt-demo-")))
        # Secrets of this run only: nothing to configure, nothing to leak.
        key = "demo"
        secret, token, operator = (secrets.token_urlsafe(24) for _ in range(3))
        broker, notes = await _broker(host, {key: secret}, say)
        stack.push_async_callback(broker.stop)
        changes: dict[str, Any] = {
            "host": host,
            "port": _free(notes, "service", host, settings.port, say),
            "emqx_url": f"http://{reached_at(host)}:{broker.rest_port}",
            "emqx_api_key": SecretStr(key),
            "emqx_api_secret": SecretStr(secret),
            "emqx_admin_key": None,
            "emqx_admin_secret": None,
            "emqx_prefix": resource_names.PREFIX,
            "webhook_token": SecretStr(token),
            "operator_token": SecretStr(operator),
            "public_url": None,
            "database_url": SecretStr(f"sqlite:///{folder / 'demo.db'}"),
            "grace": min(settings.grace, 3.0),
        }
        if offline:
            used = {model.model for flow in flows.flows.values() for model in flow.all_models}
            model = OfflineModel(names=sorted(used), kind=kind, language=say.language)
            await model.start()
            stack.push_async_callback(model.stop)
            changes |= {"openai_base_url": model.base_url, "openai_api_key": SecretStr(MODEL)}
        settings = settings.model_copy(update=changes)
        made = Running(broker, settings, flows, offline, token, kind, notes)
        await made.start_service()
        stack.push_async_callback(made.stop_service)
        await broker.load(render_filled(flows, made.url, token))
        yield made


def reached_at(host: str) -> str:
    """An address of this machine at which a listener on `host` is reached."""
    return {"0.0.0.0": HOST, "::": "::1"}.get(host, host)  # noqa: S104


async def _broker(host: str, keys: dict[str, str], say: Words) -> tuple[StandIn, list[str]]:
    """It runs, and what is to be said of its ports. Raises ConfigError."""
    for left in reversed(range(TRIES)):
        notes: list[str] = []
        mqtt, ws, rest = (_free(notes, name, host, port, say) for name, port in PORTS.items())
        broker = StandIn(mqtt, ws, rest, host, keys)
        try:
            await broker.start()
        except OSError as error:  # somebody took one between the look and the start
            if error.errno != errno.EADDRINUSE or not left:
                fault = Fault("demo", str(error.strerror), hint="end what uses it, and start again")
                raise ConfigError(str(fault), (fault,)) from None
        else:
            return broker, notes
    raise AssertionError("unreachable")


def _free(notes: list[str], name: str, host: str, port: int, say: Words) -> int:
    """`port`, or another one with a word about it if it is taken. Raises ConfigError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for tried in (port, 0):
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, tried))
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES) and tried:
                    continue
                hint = "--host takes an address of this machine, or 0.0.0.0 for all of them"
                fault = Fault("--host", f"can't listen on {host}: {error.strerror}", hint=hint)
                raise ConfigError(str(fault), (fault,)) from None
            chosen = int(probe.getsockname()[1])
        if tried == 0 and port != 0:
            said = "Port {port} ({name}) is taken, so it is {chosen} this time."
            notes.append(say(said, port=port, name=name, chosen=chosen))
        return chosen
    raise AssertionError("unreachable")
