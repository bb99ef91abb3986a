"""`emqx-gpt demo`: broker stand-in, offline model and the service, all on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from rich.console import Console

from service import flows as flows_module
from service.bootstrap import Service
from service.demo.offline_model.model import OfflineModel
from service.demo.play import play
from service.demo.standin.broker import StandIn
from service.emqx import names, reply_rule
from service.errors import ConfigError, Fault
from service.server import bind, make_server
from service.settings import Settings
from service.web.app import create_app

HOST = "127.0.0.1"
PORTS = {"MQTT": 1883, "WebSocket": 8083, "REST": 18083}
OFFLINE_PATIENCE, REAL_PATIENCE = 15.0, 90.0  # seconds for one answer


@dataclass(slots=True)
class Demo:
    """What runs, and where."""

    broker: StandIn
    service_port: int
    settings: Settings
    flows: flows_module.Flows
    offline: bool


async def run(console: Console, settings: Settings, *, once: bool) -> bool:
    """Start all, play, and unless `once` stay until Ctrl-C. True if every answer came."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with running(console, settings) as demo:
        _welcome(console, demo)
        playing = asyncio.create_task(
            play(
                console,
                HOST,
                demo.broker.mqtt_port,
                demo.flows.flows,
                patience=OFFLINE_PATIENCE if demo.offline else REAL_PATIENCE,
            )
        )
        waiting = asyncio.create_task(stopped.wait())
        await asyncio.wait({playing, waiting}, return_when=asyncio.FIRST_COMPLETED)
        missing = await playing if playing.done() else []
        if playing.done():
            _verdict(console, missing)
            if not once:
                console.print("\nIt stays up for you to join in. [bold]Ctrl-C[/] ends it.")
                await waiting
        for task in (playing, waiting):
            task.cancel()
        await asyncio.gather(playing, waiting, return_exceptions=True)
        console.print("[dim]Stopping …[/]")
    return not missing and (not once or not stopped.is_set())


@contextlib.asynccontextmanager
async def running(console: Console, settings: Settings) -> AsyncIterator[Demo]:
    """The whole demo, up; everything is down again afterwards."""
    async with contextlib.AsyncExitStack() as stack:
        found = flows_module.load(settings.flows, model=settings.openai_model)
        offline = settings.openai_api_key is None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emqx-gpt-demo-")))
        # Secrets of this run only: nothing to configure, nothing to leak.
        key, secret, token = "demo", secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        mqtt, ws, rest = (_free(console, name, port) for name, port in PORTS.items())
        broker = StandIn(mqtt, ws, rest, HOST, {key: secret})
        await broker.start()
        stack.push_async_callback(broker.stop)
        changes: dict[str, Any] = {
            "host": HOST,
            "port": _free(console, "service", settings.port),
            "emqx_url": broker.rest_url,
            "emqx_api_key": SecretStr(key),
            "emqx_api_secret": SecretStr(secret),
            "emqx_admin_key": None,
            "emqx_admin_secret": None,
            "emqx_prefix": names.PREFIX,
            "webhook_token": SecretStr(token),
            "operator_token": None,
            "database_url": SecretStr(f"sqlite:///{folder / 'demo.db'}"),
            "grace": min(settings.grace, 3.0),
        }
        if offline:
            model = OfflineModel()
            await model.start()
            stack.push_async_callback(model.stop)
            changes |= {"openai_base_url": model.base_url, "openai_api_key": SecretStr("offline")}
        settings = settings.model_copy(update=changes)
        sock = bind(HOST, settings.port)
        port = sock.getsockname()[1]
        service = Service(settings, found)
        server = make_server(create_app(service))
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        stack.push_async_callback(_stop, server, serving)
        await _until(lambda: server.started or serving.done())
        if serving.done():
            await serving
        await broker.load(broker_half(Path("emqx"), f"http://{HOST}:{port}", token))
        yield Demo(broker, port, settings, found, offline)


def broker_half(folder: Path, url: str, token: str) -> str:
    """The very files of `emqx/`, placeholders filled in as the README there does it."""
    files = sorted([*folder.glob("*.hocon"), *folder.glob("*.conf")])
    if not files:
        hint = "run the demo in a checkout, or write them with: emqx-gpt emqx render"
        fault = Fault(str(folder), "has no files with the broker's half", hint=hint)
        raise ConfigError(str(fault), (fault,))
    text = "\n".join(path.read_text("utf-8") for path in files)
    key = reply_rule.key(token, names.PREFIX)
    for placeholder, value in (
        ("${WEBHOOK_TOKEN}", f'"{token}"'),
        ("${PUBLIC_URL}", f'"{url}"'),
        (reply_rule.KEY_HOLE, f"'{key}'"),
    ):
        text = text.replace(placeholder, value)
    return text


async def _stop(server: Any, serving: asyncio.Task[None]) -> None:
    server.should_exit = True
    await serving


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)


def _free(console: Console, name: str, port: int) -> int:
    """`port`, or another one with a clear word if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
        else:
            return port
    with socket.socket() as other:
        other.bind((HOST, 0))
        chosen = int(other.getsockname()[1])
    console.print(f"[yellow]Port {port} ({name}) is taken; using {chosen} instead.[/]")
    return chosen


def _welcome(console: Console, demo: Demo) -> None:
    broker, port = demo.broker, demo.service_port
    model = "offline, answers without a key" if demo.offline else demo.settings.openai_base_url
    rows = {
        "broker (MQTT 3.1.1)": f"mqtt://{HOST}:{broker.mqtt_port}",
        "broker (WebSocket)": f"ws://{HOST}:{broker.ws_port}/mqtt",
        "broker (REST)": f"http://{HOST}:{broker.rest_port}/api/v5",
        "service": f"http://{HOST}:{port}",
        "model": model,
    }
    console.print("[bold]emqx-gpt demo[/]: everything runs on this machine\n")
    for name, value in rows.items():
        console.print(f"  {name:<20} {value}", soft_wrap=True)
    at = f"-h {HOST} -p {broker.mqtt_port} -V mqttv311"
    console.print("\nJoin in with mosquitto clients, in two terminals:\n")
    console.print(f"  mosquitto_sub {at} -t 'chatgpt/response/you' -v", soft_wrap=True)
    console.print(
        f"  mosquitto_pub {at} -t 'chatgpt/request/you' -m 'Hello, I am Sam'", soft_wrap=True
    )
    console.print(
        f"\nor with MQTTX: new connection, host mqtt://{HOST}, port {broker.mqtt_port}, "
        "[bold]MQTT version 3.1.1[/];\nsubscribe to chatgpt/response/you, "
        "publish plain text to chatgpt/request/you.",
        soft_wrap=True,
    )
    console.print(f"\nSee what came of each message: curl http://{HOST}:{port}/requests")


def _verdict(console: Console, missing: list[str]) -> None:
    if missing:
        console.print(f"\n[red]Answers that did not come: {', '.join(missing)}[/]")
    else:
        console.print("\n[green]Every answer came.[/]")
