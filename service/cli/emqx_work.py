"""What `emqx-gpt emqx …` does: the commands' work, imported once one of them is called.

Exit codes: 0 fine; 1 a fault in settings or flows, or something doctor found; 2 EMQX differs;
3 EMQX unreachable; 4 wrong API key; 5 the key may not do this; 6 SQL refused; 7 a name is
taken, or ours is in use by others; 8 the webhook refuses the token or is not there; 9 EMQX is
too old; 10 EMQX did not reach the webhook in time; 130 interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Coroutine
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import typer

from service import flows as flows_file
from service import settings as environment
from service.cli.common import console, say, say_error, say_json
from service.cli.emqx_view import show_finding, show_plan
from service.emqx import resource_names
from service.emqx.acl import acl as allowed
from service.emqx.apply import apply as bring_in_step
from service.emqx.apply import connected
from service.emqx.broker_run import ApplyError
from service.emqx.config_file import render as rendered
from service.emqx.config_file import render_filled
from service.emqx.look import compare, read, suited, waiting_messages
from service.emqx.management_api import EmqxAdmin
from service.emqx.remove import ours
from service.emqx.remove import remove as delete_ours
from service.emqx.resources import Desired, build, target
from service.errors import ConfigError, EmqxGptError
from service.flows import Flows
from service.settings import Settings

EXIT = {
    "broker_unreachable": 3,
    "broker_timeout": 3,
    "broker_unavailable": 3,
    "broker_unauthorized": 4,
    "broker_forbidden": 5,
    "sql_refused": 6,
    "broker_name_taken": 7,
    "broker_in_use": 7,
    "broker_namespace": 5,
    "webhook_unreachable": 8,
    "webhook_token": 8,
    "webhook_busy": 8,
    "webhook_strange": 8,
    "broker_too_old": 9,
    "webhook_not_connected": 10,
}


async def render(*, out: Path, filled: bool, prefix: str | None) -> None:
    """Write emqx/ from flows.toml; with --filled print it for curl or `emqx ctl`."""
    loaded, found = _load()
    named = prefix or loaded.emqx_prefix
    if filled:
        text = render_filled(found, loaded.webhook_url, *loaded.webhook_tokens, prefix=named)
        typer.echo(text, nl=False)
        return
    tls = loaded.webhook_url.startswith("https:")
    for name, text in rendered(found, prefix=named, tls=tls).items():
        _write(out / name, text)
        typer.echo(f"wrote {out / name}")


async def diff(*, as_json: bool, prefix: str | None) -> None:
    """Compare EMQX with flows.toml: exit 0 when in step, 2 when not."""
    loaded, found = _load()
    async with _admin(loaded) as admin:
        plan = await compare(admin, _desired(loaded, found, prefix or loaded.emqx_prefix))
    if as_json:
        say_json(plan.as_json(), indent=2)
    else:
        show_plan(console(), plan)
    if not plan.in_step:
        raise typer.Exit(2)


async def apply(
    *, yes: bool, probe: bool, webhook_url: str | None, wait: float, force: bool, prefix: str | None
) -> None:
    """Bring EMQX in step with flows.toml; asks first."""
    loaded, found = _load()
    to = target(loaded.webhook_url, *loaded.webhook_tokens)
    desired = build(found, prefix=prefix or loaded.emqx_prefix, to=to)
    async with _admin(loaded) as admin:
        plan = await compare(admin, desired, force=force)
        plan.refuse_taken()
        if plan.in_step:
            await connected(admin, await suited(admin, desired), wait)
            typer.echo("EMQX is in step, and connected.")
            return
        show_plan(console(), plan)
        if waiting := await waiting_messages(admin, plan):
            say(f"Note: {waiting} messages wait in EMQX, and this may lose them.")
        _confirm(yes, "Carry this out?")
        await bring_in_step(
            admin,
            desired,
            probe_url=webhook_url,
            check_webhook=probe,
            wait=wait,
            force=force,
            tell=say,
        )
    typer.echo("Done: EMQX is in step.")


async def remove(*, yes: bool, prefix: str | None) -> None:
    """Delete what is ours from EMQX, and nothing else; asks first."""
    loaded = environment.load()
    named = resource_names.check_prefix(prefix or loaded.emqx_prefix)
    async with _admin(loaded) as admin:
        steps = ours(named, await read(admin, named))
        if not steps:
            typer.echo("Nothing of ours is there.")
            return
        for step in steps:
            say(f"- delete {step}")
        _confirm(yes, "Delete these?")
        await delete_ours(admin, named, tell=say)


async def acl() -> None:
    """Print what EMQX's access control has to allow devices, for acl.conf."""
    _, found = _load()
    typer.echo(allowed(found), nl=False)


async def doctor(
    *, send: bool, flow: str | None, webhook_url: str | None, as_json: bool, prefix: str | None
) -> None:
    """Walk the chain from EMQX to the reply; exit 1 where it is broken."""
    from service.cli.emqx_doctor import examination  # and with it all that asks models

    loaded, found = _load()
    if flow is not None and flow not in found.flows:
        raise ConfigError(f"there is no flow {flow!r}; there are: {', '.join(found.flows)}")
    seen = []
    async with _admin(loaded) as admin:
        desired = _desired(loaded, found, prefix or loaded.emqx_prefix)
        async for finding in examination(
            loaded,
            found,
            admin,
            desired,
            webhook_url=webhook_url,
            send=send,
            flow=flow,
            tell=lambda said: say(f"     {said}", err=True),
        ):
            seen.append(finding)
            if not as_json:
                show_finding(console(), finding)
    if as_json:
        say_json([asdict(one) for one in seen], indent=2)
    if any(one.level == "fail" for one in seen):
        raise typer.Exit(1)


def _load() -> tuple[Settings, Flows]:
    loaded = environment.load()
    return loaded, flows_file.load(loaded.flows, model=loaded.openai_model)


def _admin(loaded: Settings) -> EmqxAdmin:
    key = loaded.emqx_admin
    if not all(key):
        raise ConfigError(
            "EMQX_API_KEY and EMQX_API_SECRET (or EMQX_ADMIN_KEY, EMQX_ADMIN_SECRET) are not set: "
            "make a key in EMQX's dashboard under System, API Keys"
        )
    return EmqxAdmin(loaded.emqx_url, key, hide=loaded.webhook_tokens)


def _desired(loaded: Settings, found: Flows, prefix: str) -> Desired:
    """With no token here everything else can still be compared."""
    if tokens := loaded.webhook_tokens:
        return build(found, prefix=prefix, to=target(loaded.webhook_url, *tokens))
    url = target(loaded.webhook_url, "-").url
    desired = build(found, prefix=prefix, tls=url.startswith("https:"))
    connectors = {ident: {**body, "url": url} for ident, body in desired.connectors.items()}
    return replace(desired, connectors=connectors)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8", newline="\n")
    except OSError as error:
        raise ConfigError(f"can't write {path}: {error.strerror}") from None


def _confirm(yes: bool, question: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("nobody to ask here: say --yes")
    if not typer.confirm(question):
        typer.echo("Nothing was changed.")
        raise typer.Exit(1)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Errors become one line, what is done and what not, and an exit code of their own."""
    try:
        asyncio.run(work)
    except EmqxGptError as error:
        say_error(error)
        if isinstance(error, ApplyError):
            for title, lines in (
                ("done", error.report.done),
                ("not done", error.report.not_done),
            ):
                print(f"  {title}: {', '.join(lines) or 'nothing'}", file=sys.stderr)
        raise typer.Exit(EXIT.get(error.code, 1)) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            sys.stdout.close()
        raise typer.Exit(0) from None
