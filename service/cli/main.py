"""Commands of `emqx-gpt`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from service import __version__
from service.cli.common import HELP, console, fail_clearly, run_async
from service.cli.emqx import emqx_app
from service.cli.requests import (
    AsJson,
    InConversation,
    InState,
    OfFlow,
    Since,
    Until,
    WithError,
    WithText,
    requests_app,
)
from service.errors import ConfigError, Fault

# Imported late: whoever only asks for help waits for no library that answers need.

COMPLETE = "_EMQX_GPT_COMPLETE"

app = typer.Typer(
    name="emqx-gpt",
    help="GPT for devices on MQTT, through EMQX's rule engine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=HELP,
)
app.add_typer(requests_app, name="requests")
app.add_typer(emqx_app, name="emqx")


def main() -> None:
    """Entry point of the command."""
    if COMPLETE in os.environ:  # a shell asks what may come next
        from typer._completion_classes import completion_init

        completion_init()
    app(prog_name="emqx-gpt")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"emqx-gpt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    env: Annotated[
        Path | None,
        typer.Option("--env", help="Settings from this file, before those of the environment."),
    ] = None,
) -> None:
    if env is not None:
        from service import settings

        with fail_clearly():
            settings.use_file(env)


@app.command()
def serve(
    apply: Annotated[
        bool, typer.Option("--apply", help="Also bring EMQX's connector, action and rules in step.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Processes on one PostgreSQL, one port.")
    ] = 1,
) -> None:
    """Run the service: webhook in, replies out. Settings come from the environment."""
    from service import settings
    from service.cli.serving import run_service

    with fail_clearly():
        loaded = settings.load()
    run_async(run_service(loaded, apply=apply, workers=workers))


@app.command()
def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Play, then exit: 0 only if every answer came.")
    ] = False,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets devices in the network join.")
    ] = "127.0.0.1",
    offline: Annotated[
        bool, typer.Option("--offline", help="The offline model, whatever the settings name.")
    ] = False,
    model_kind: Annotated[
        str | None,
        typer.Option(help="The offline model plays these servers: openai, deepseek, ollama, …"),
    ] = None,
    lang: Annotated[
        Literal["en", "zh"] | None,
        typer.Option(help="Language of what is shown; default: that of the terminal."),
    ] = None,
) -> None:
    """Show your flows on this machine: broker stand-in, service, model, and a play."""
    from service import settings
    from service.operations import logs

    with fail_clearly():
        run_demo = _demo()
        loaded = settings.load()
    logs.configure("warning", loaded.log_format)
    from service.demo.words import spoken

    made = run_demo(
        console(),
        loaded,
        once=once,
        host=host,
        offline=offline,
        kind=model_kind,
        language=lang or spoken(os.environ),
    )
    if not run_async(made):
        raise typer.Exit(1)


def _demo() -> Callable[..., Coroutine[Any, Any, bool]]:
    """The demo, which needs more libraries than the service."""
    try:
        from service.demo.run import run
    except ModuleNotFoundError as error:
        text = f"the demo needs {error.name}: pip install 'emqx-gpt[demo]'"
        raise ConfigError(text) from None
    return run


@app.command()
def init(
    name: Annotated[str, typer.Option(help="The flow's name.")] = "first",
    does: Annotated[str | None, typer.Option(help="What it should do, for the model.")] = None,
    request: Annotated[str | None, typer.Option(help="Topic of the messages to answer.")] = None,
    reply: Annotated[str | None, typer.Option(help="Topic of the replies.")] = None,
    memory: Annotated[
        bool | None, typer.Option(help="Whether it remembers a conversation.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Its server, if not OpenAI's, up to and including /v1.")
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(help="A file with the key of its API; - is standard input."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask nothing; options and defaults decide.")
    ] = False,
    env_only: Annotated[
        bool, typer.Option("--env-only", help="Only .env: the model's key, and tokens.")
    ] = False,
    demo: Annotated[bool, typer.Option(help="Play the flow at once, on this machine.")] = True,
) -> None:
    """Write a first flows.toml and .env by a few questions, and play them."""
    from service import settings
    from service.cli.init import Answers, initialise, initialise_env

    answers = Answers(name, does, request, reply, memory, model, base_url, key_file)
    with fail_clearly():
        if env_only:
            initialise_env(answers, console(), ask=not yes)
            return
        initialise(answers, console(), ask=not yes)
        if not demo:
            return
        run_demo = _demo()
        loaded = settings.load()
    if not run_async(run_demo(console(), loaded, once=True, only=name)):
        raise typer.Exit(1)
    typer.echo(
        "\nNext: emqx-gpt demo stays up for you to join in; what you change in flows.toml\n"
        "is live there at once. For a real EMQX: emqx-gpt serve, and emqx-gpt emqx apply."
    )


@app.command()
def ask(
    flow: Annotated[str, typer.Argument(help="The flow to ask.")],
    text: Annotated[str, typer.Argument(help="The question, as a device would publish it.")],
    topic: Annotated[
        str | None, typer.Option(help="The request topic; default: one of the flow's.")
    ] = None,
    conversation: Annotated[
        str | None, typer.Option(help="The conversation to go on with.")
    ] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Publish the reply to the device as well.")
    ] = False,
    url: Annotated[
        str | None, typer.Option(help="The running service; default: HOST and PORT of here.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="For scripts: the reply as JSON.")
    ] = False,
) -> None:
    """Ask a flow of the running service; the reply is shown as it comes."""
    from service.cli import asking

    run_async(
        asking.ask(
            flow,
            text,
            topic=topic,
            conversation=conversation,
            publish=publish,
            url=url,
            as_json=as_json,
        )
    )


@app.command()
def mcp(
    url: Annotated[
        str | None, typer.Option(help="The running service; default: HOST and PORT of here.")
    ] = None,
    http: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, metavar="PORT", help="Serve over HTTP; else by stdin and stdout."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address for --http; 0.0.0.0 lets the network in.")
    ] = "127.0.0.1",
) -> None:
    """Offer the flows of the running service as tools to MCP clients."""
    from service.cli import mcp as command

    run_async(command.serve(url=url, port=http, host=host))


@app.command()
def replay(
    state: InState = None,
    flow: OfFlow = None,
    conversation: InConversation = None,
    error: WithError = None,
    text: WithText = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    file: Annotated[
        Path | None, typer.Option("--flows", help="By this flows file, in place of FLOWS.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Ask this model, in place of the flow's.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Also write a page that shows them side by side.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask stored requests again, without publishing anything, and compare the answers."""
    from service.cli import replaying

    filters = (state, flow, conversation, error, text, since, until)
    run_async(
        replaying.replay(
            filters, limit=limit, file=file, model=model, as_json=as_json, html=html, yes=yes
        )
    )


@app.command("test")
def play_examples(
    file: Annotated[Path, typer.Argument(help="The examples.")] = Path("tests.toml"),
    flows: Annotated[
        Path | None, typer.Option("--flows", help="Of this flows file, in place of FLOWS.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Ask this model, in place of the flows'.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Examples with expectations: exit 1 if an answer is not as expected. Nothing is published."""
    from service.cli import examples

    run_async(examples.test(file, flows=flows, model=model, as_json=as_json))


@app.command()
def completion(
    shell: Annotated[str, typer.Argument(help="bash, zsh or fish.")],
) -> None:
    """Print what completes this command in a shell: source it, or keep it where yours looks."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    if shell not in ("bash", "zsh", "fish"):
        with fail_clearly():
            raise ConfigError(f"no completion for {shell!r}: bash, zsh or fish")
    typer.echo(get_completion_script(prog_name="emqx-gpt", complete_var=COMPLETE, shell=shell))


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="The flows file; default: FLOWS")] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print a JSON Schema of flows.toml for editors.")
    ] = False,
) -> None:
    """Check flows and settings: every fault with its line and reason; exit 1 if any."""
    if schema:
        from service.flows.schema import json_schema

        typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
        return
    from service import flows, settings
    from service.emqx.resource_names import check_prefix
    from service.flows.check_mcp import unready
    from service.llm.addresses import doubt

    faults: list[Fault] = []
    path, model, addresses = file or Path("flows.toml"), None, {}
    try:
        loaded = settings.load()
        path, model = file or loaded.flows, loaded.openai_model
        addresses["OPENAI_BASE_URL"] = loaded.openai_base_url
        faults.extend(loaded.weak_tokens())
        check_prefix(loaded.emqx_prefix)
    except ConfigError as error:
        faults.extend(error.faults or (Fault("EMQX_PREFIX", str(error)),))
    found = None
    try:
        environ = settings.environment()
        found, in_file = flows.parse(flows.read(path), str(path), model, environ)
        faults.extend(in_file)
        faults.extend(unready(found, settings.environment()) if found else ())
    except ConfigError as error:
        faults.extend(error.faults)
    for name, provider in (found.providers if found else {}).items():
        if provider.base_url is not None:
            addresses[f"[providers.{name}] base_url"] = provider.base_url
    for where, address in addresses.items():
        if said := doubt(address):
            faults.append(Fault(where, said, warning=True))
    out = console()
    for fault in faults:
        kind = "warning" if fault.warning else "error"
        out.print(f"{kind}: {fault}", markup=False, soft_wrap=True)
    if any(not fault.warning for fault in faults):
        raise typer.Exit(1)
    names = ", ".join(found.flows) if found else ""
    out.print(f"{path}: fine; flows: {names}", markup=False, soft_wrap=True)
