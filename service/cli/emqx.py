"""`emqx-gpt emqx render / diff / apply / remove / acl / doctor`: the broker's half as code.

Exit codes: 0 fine; 1 a fault in settings or flows, or something doctor found; 2 EMQX differs;
3 EMQX unreachable; 4 wrong API key; 5 the key may not do this; 6 SQL refused; 7 a name is
taken, or ours is in use by others; 8 the webhook refuses the token or is not there; 9 EMQX is
too old; 10 EMQX did not reach the webhook in time; 130 interrupted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.common import HELP

emqx_app = typer.Typer(
    help="The broker's half: connector, action and rules in EMQX.",
    no_args_is_help=True,
    context_settings=HELP,
)
Prefix = Annotated[
    str | None, typer.Option(help="How our resources in EMQX are called; default EMQX_PREFIX.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


@emqx_app.command("render")
def render_command(
    out: Annotated[Path, typer.Option(help="The directory to write to.")] = Path("emqx"),
    filled: Annotated[
        bool, typer.Option("--filled", help="Print it ready to load, token included.")
    ] = False,
    prefix: Prefix = None,
) -> None:
    """Write emqx/ from flows.toml; with --filled print it for curl or `emqx ctl`."""
    from service.cli import emqx_work

    emqx_work.run(emqx_work.render(out=out, filled=filled, prefix=prefix))


@emqx_app.command()
def diff(as_json: AsJson = False, prefix: Prefix = None) -> None:
    """Compare EMQX with flows.toml: exit 0 when in step, 2 when not."""
    from service.cli import emqx_work

    emqx_work.run(emqx_work.diff(as_json=as_json, prefix=prefix))


@emqx_app.command("apply")
def apply_command(
    yes: Yes = False,
    probe: Annotated[bool, typer.Option(help="Try the webhook from here first.")] = True,
    webhook_url: Annotated[
        str | None, typer.Option(help="The service as seen from here, if not PUBLIC_URL.")
    ] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds for EMQX to connect.")] = 30.0,
    force: Annotated[
        bool, typer.Option("--force", help="Put in again what EMQX masks: the token.")
    ] = False,
    prefix: Prefix = None,
) -> None:
    """Bring EMQX in step with flows.toml; asks first."""
    from service.cli import emqx_work

    emqx_work.run(
        emqx_work.apply(
            yes=yes, probe=probe, webhook_url=webhook_url, wait=wait, force=force, prefix=prefix
        )
    )


@emqx_app.command("remove")
def remove_command(yes: Yes = False, prefix: Prefix = None) -> None:
    """Delete what is ours from EMQX, and nothing else; asks first."""
    from service.cli import emqx_work

    emqx_work.run(emqx_work.remove(yes=yes, prefix=prefix))


@emqx_app.command("acl")
def acl_command() -> None:
    """Print what EMQX's access control has to allow devices, for acl.conf."""
    from service.cli import emqx_work

    emqx_work.run(emqx_work.acl())


@emqx_app.command()
def doctor(
    send: Annotated[bool, typer.Option(help="Send a test message: one model call.")] = True,
    flow: Annotated[str | None, typer.Option(help="The flow to send it to.")] = None,
    webhook_url: Annotated[
        str | None, typer.Option(help="The service as seen from here, if not PUBLIC_URL.")
    ] = None,
    as_json: AsJson = False,
    prefix: Prefix = None,
) -> None:
    """Walk the chain from EMQX to the reply; exit 1 where it is broken."""
    from service.cli import emqx_work

    emqx_work.run(
        emqx_work.doctor(
            send=send, flow=flow, webhook_url=webhook_url, as_json=as_json, prefix=prefix
        )
    )
