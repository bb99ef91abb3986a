"""`emqx-gpt demo`: starts everything, plays the flows, and stays for people to join in."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console

from service import flows as flows_file
from service.demo.demo_env import env_file
from service.demo.first_answers import probe
from service.demo.household import Household, household
from service.demo.join import join_lines
from service.demo.mqtt_client import Client, client
from service.demo.offline_model.families import FAMILIES
from service.demo.offline_model.model import MODEL
from service.demo.play import Onlooker, play
from service.demo.running import (
    EVERYWHERE,
    HOST,
    Running,
    configured,
    running,
    sped_up,
    with_offline,
)
from service.demo.samples import CLIENT
from service.demo.scenes import SCENES
from service.demo.screen import Screen
from service.demo.words import Words, words_of
from service.errors import ConfigError, EmqxGptError, Fault
from service.flows import DEFAULT_PROVIDER, Flows
from service.settings import LOOPBACK, Settings

FLOWS = Path(__file__).parent / "flows.toml"  # those of the project, for who has no file
OFFLINE_PATIENCE, REAL_PATIENCE = 15.0, 90.0  # seconds for one answer
LOOK = 0.5  # seconds between two looks at the flows file


async def run(
    console: Console,
    settings: Settings,
    *,
    once: bool,
    host: str = HOST,
    offline: bool = False,
    kind: str | None = None,
    only: str | None = None,
    language: str = "en",
) -> bool:
    """Start all, play, and unless `once` stay until Ctrl-C. True if every answer came.

    `kind`: the family of servers that the offline model plays. `only`: the one flow to play.
    `language`: one of `words.LANGUAGES`.
    Raises EmqxGptError before anything is started.
    """
    if kind is not None and kind not in FAMILIES:
        fault = Fault("--model-kind", f"{kind!r} is not known", hint=", ".join(FAMILIES))
        raise ConfigError(str(fault), (fault,))
    offline = offline or kind is not None
    settings = _with_flows(settings)
    load = functools.partial(_load, settings, offline, kind or MODEL)
    stopped = asyncio.Event()
    _end_with_reader(console, stopped)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    # While the service starts or ends nobody answers the stand-in: no news in a demo.
    logging.getLogger("service.demo.standin.action").setLevel(logging.ERROR)
    # What becomes of a request is on the screen; how a server wants to be asked is no trouble.
    for name in ("emqx-gpt.requests", "emqx-gpt.model"):
        logging.getLogger(name).setLevel(logging.ERROR)
    found, say = load(), words_of(language)
    if offline:
        settings = settings.model_copy(
            update={"openai_api_key": None, "openai_base_url": "https://api.openai.com/v1"}
        )
    await _probed(console, settings, found, say)
    async with contextlib.AsyncExitStack() as stack:
        demo = await stack.enter_async_context(running(settings, found, host, kind or MODEL, say))
        screen = Screen(console, found, say)
        path = stack.enter_context(env_file(demo.environment(), Path.cwd()))
        onlooker, mqtt, old = await stack.enter_async_context(_clients(screen, demo))
        stubborn = {(name, tool) for name, scene in SCENES.items() for tool in scene.stubborn}
        devices = await stack.enter_async_context(
            household(demo.address, demo.broker.mqtt_port, found, stubborn)
        )
        _welcome(screen, demo)
        playing = asyncio.create_task(
            play(
                onlooker,
                mqtt,
                old,
                [flow for name, flow in found.flows.items() if only in (None, name)],
                demo.hurry,
                patience=OFFLINE_PATIENCE if demo.offline else REAL_PATIENCE,
            )
        )
        waiting = asyncio.create_task(stopped.wait())
        await asyncio.wait({playing, waiting}, return_when=asyncio.FIRST_COMPLETED)
        missing = await playing if playing.done() else []
        if playing.done():
            _verdict(screen, missing)
            if not once:
                _farewell(screen, demo, path)
                watching = asyncio.create_task(_follow(screen, demo, devices, load))
                await waiting
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        for task in (playing, waiting):
            task.cancel()
        await asyncio.gather(playing, waiting, return_exceptions=True)
        screen.line(say("Stopping …"), style="dim")
    return not missing and (not once or not stopped.is_set())


def _end_with_reader(console: Console, stopped: asyncio.Event) -> None:
    """Whoever reads the screen (head, less) may go away: then the demo ends, in order."""

    def gone() -> None:
        console.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        stopped.set()

    console.on_broken_pipe = gone  # type: ignore[method-assign]


def _with_flows(settings: Settings) -> Settings:
    """Where there is no flows.toml and none is named, those that come with the package."""
    default = Settings.model_fields["flows"].default
    if settings.flows != default or settings.flows.exists() or not FLOWS.exists():
        return settings
    return settings.model_copy(update={"flows": FLOWS})


def _load(settings: Settings, offline: bool, kind: str) -> Flows:
    found = sped_up(flows_file.load(settings.flows, model=settings.openai_model))
    if offline or not configured(settings):
        return with_offline(found, all_providers=offline, kind=kind)
    return found


async def _probed(console: Console, settings: Settings, flows: Flows, say: Words) -> None:
    """Ask each configured model something first. Raises ConfigError, with the way on."""
    used = {flow.model for flow in flows.flows.values()}
    if not configured(settings) and all(each.provider == DEFAULT_PROVIDER for each in used):
        return
    names = ", ".join(sorted(str(each) for each in used))
    console.print(
        say("Asking {names} for a first answer …", names=names), markup=False, style="dim"
    )
    failed = {model: error for model, error in (await probe(settings, flows)).items() if error}
    if not failed:
        return
    faults = [Fault(str(model), error.message) for model, error in failed.items()]
    hint = f"{_command()} demo --offline (with make: make demo ARGS=--offline)"
    faults.append(Fault("demo", "to go on without it", hint=hint))
    raise ConfigError(str(faults[0]), tuple(faults))


@contextlib.asynccontextmanager
async def _clients(screen: Screen, demo: Running) -> AsyncIterator[tuple[Onlooker, Client, Client]]:
    """One client that shows all that passes, and two that play: with MQTT 5, and with 3.1.1."""
    async with (
        client(demo.address, demo.broker.mqtt_port, "emqx-gpt-onlooker", v5=True) as seeing,
        client(demo.address, demo.broker.mqtt_port, v5=True) as speaking,
        client(demo.address, demo.broker.mqtt_port, f"{CLIENT}-311") as old,
    ):
        onlooker = Onlooker(screen, seeing)
        await seeing.subscribe(["#"])
        watching = asyncio.create_task(onlooker.watch())
        try:
            yield onlooker, speaking, old
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _follow(
    screen: Screen, demo: Running, devices: Household, load: Callable[[], Flows]
) -> None:
    """Take a changed flows file at once; a broken one is told, and the flows from before stay."""
    path, seen = demo.settings.flows, _stamp(demo.settings.flows)
    refused = False
    while True:
        await asyncio.sleep(LOOK)
        if (stamp := _stamp(path)) == seen:
            continue
        if stamp is None:  # an editor may be putting the new file in its place
            await asyncio.sleep(LOOK)
            stamp = _stamp(path)
        seen = stamp
        try:
            found = load()
            if refused and found == demo.flows:
                screen.line()
                screen.line(
                    screen.say("{path} is mended: the flows are as before.", path=path),
                    style="green",
                )
            await _changed(screen, demo, devices, found)
            refused = False
        except EmqxGptError as error:
            refused = True
            screen.line()
            said = "{path} is not taken, the flows from before stay:"
            screen.line(screen.say(said, path=path), style="red")
            faults = error.faults if isinstance(error, ConfigError) and error.faults else (error,)
            for fault in faults:
                screen.line(str(fault), indent=2)


async def _changed(screen: Screen, demo: Running, devices: Household, found: Flows) -> None:
    before = demo.flows
    if found == before:
        return
    await demo.change_flows(found)
    screen.flows = found
    await devices.follow(found)
    changed = [name for name, flow in found.flows.items() if flow != before.flows.get(name)]
    gone = [name for name in before.flows if name not in found.flows]
    screen.line()
    path = demo.settings.flows
    screen.line(screen.say("{path} has changed and is live.", path=path), style="green")
    if gone:
        screen.line(screen.say("gone: {names}", names=", ".join(gone)), indent=2)
    if changed:
        some = Flows({name: found.flows[name] for name in changed}, {}, {})
        for line in join_lines(some, demo.address, demo.broker.mqtt_port, screen.say):
            screen.raw(line)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _command() -> str:
    """This command as it is called from here."""
    script = Path(sys.argv[0])
    ours = Path(sys.prefix) / "bin" / "emqx-gpt"
    if script.name == "emqx-gpt" and os.sep not in sys.argv[0]:
        return "emqx-gpt"
    with contextlib.suppress(ValueError):
        return str(ours.relative_to(Path.cwd()))
    return "emqx-gpt"


def _welcome(screen: Screen, demo: Running) -> None:
    shown, say = _address(demo), screen.say
    broker = demo.broker
    screen.raw("[bold]emqx-gpt demo[/]", markup=True)
    screen.line()
    _row(screen, "page", _page(demo))
    _row(screen, "broker", f"mqtt://{shown}:{broker.mqtt_port}")
    _row(screen, "", f"ws://{shown}:{broker.ws_port}/mqtt")
    _row(screen, "service", f"http://{shown}:{demo.settings.port}")
    if demo.kind != MODEL:
        said = "offline, and plays {kind}: its refusals, the shapes of its answers and errors"
        text = say(said, kind=demo.kind)
    elif demo.offline:
        text = say(
            "offline: fixed rules, no network. It reads English, German and Chinese, calls your "
            "tools and fills your schemas by their names. For a real one set OPENAI_API_KEY, or "
            "OPENAI_BASE_URL for a server that needs no key."
        )
    else:
        text = say("{url}, asked first: it answers", url=demo.settings.openai_base_url)
    _row(screen, "model", text)
    names = ", ".join(demo.flows.flows)
    if demo.settings.flows == FLOWS:
        names = say("no flows.toml here, so those that come along: {names}", names=names)
    else:
        names = f"{demo.settings.flows}: {names}"
    _row(screen, "flows", names)
    for at, note in enumerate(demo.notes):
        if at == 0:
            screen.line()
        screen.line(note, style="yellow")
    if demo.settings.host not in LOOPBACK:
        screen.line()
        screen.line(
            say(
                "Every device in the network can reach the broker, and it lets everybody in. The "
                "service asks for tokens; they are made for this run and stand in demo.env."
            ),
            style="yellow",
        )


def _row(screen: Screen, name: str, text: str) -> None:
    said = screen.say(name) if name else ""
    screen.hanging(f"  {said}{' ' * (10 - cell_len(said))}", text)


def _page(demo: Running) -> str:
    """Where the play can be watched; with the token of this run, where one is asked for."""
    token = next(iter(demo.settings.operator_tokens), None)
    to = f"login#{token}" if token else ""
    return f"http://{_address(demo)}:{demo.settings.port}/{to}"


def _address(demo: Running) -> str:
    """Where others reach this machine: for a listener on all addresses, the one to the network."""
    host = demo.settings.host
    if host not in EVERYWHERE:
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; the system picks the address
            return str(probe.getsockname()[0])
        except OSError:
            return demo.address


def _verdict(screen: Screen, missing: list[str]) -> None:
    screen.line()
    if missing:
        text = screen.say("Answers that did not come: {names}", names=", ".join(missing))
        screen.line(text, style="red")
    else:
        screen.line(screen.say("Every answer came."), style="green")


def _farewell(screen: Screen, demo: Running, path: Path) -> None:
    shown, port, say = _address(demo), demo.broker.mqtt_port, screen.say
    screen.line()
    text = "Join in: of two lines, run the first in one terminal, the second in another."
    screen.line(say(text))
    screen.line()
    for line in join_lines(demo.flows, shown, port, say):
        screen.raw(line)
    screen.line()
    text = "Or with MQTTX: host mqtt://{host}, port {port}, the rest as it is."
    screen.line(say(text, host=shown, port=port))
    screen.line(say("What you publish and what comes back is shown here too."))
    if any(tool.confirm for flow in demo.flows.flows.values() for tool in flow.tools):
        screen.line(
            say(
                "A tool that asks waits for your yes: publish it too. The lines with -V 5 are the "
                "same over MQTT 5, and show where the question wants its answer."
            )
        )
    screen.line()
    screen.line(say("The other commands work against this demo, in another terminal:"))
    screen.line()
    with contextlib.suppress(ValueError):
        path = path.relative_to(Path.cwd())
    for words in ("requests list", "emqx doctor", "emqx diff", "emqx apply"):
        screen.raw(f"  {_command()} --env {path} {words}")
    screen.line()
    if demo.settings.flows == FLOWS:
        text = say("Write a flows.toml of your own here: {command} init.", command=_command())
    else:
        text = say("Save {path} with a change, and it is live at once.", path=demo.settings.flows)
    screen.line(f"{text} {say('Ctrl-C ends the demo.')}")
