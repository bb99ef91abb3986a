"""`emqx-gpt requests …`: the inbox, dead letters and tool calls that wait included."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from service.cli.common import HELP, run_async
from service.domain import State

requests_app = typer.Typer(
    help="The inbox: what came, how it ended.", no_args_is_help=True, context_settings=HELP
)
STATES = (
    "Only in this state: queued (waits), answering (with the model), waiting (asleep, for a device"
    " or a person), answered (the reply is stored, not yet published), done, failed, expired (too"
    " late), ignored (not meant for us, or over a limit)."
)
Id = Annotated[str, typer.Argument(help="Its id, or the last characters of it.")]
InState = Annotated[State | None, typer.Option("--state", help=STATES)]
OfFlow = Annotated[str | None, typer.Option("--flow", help="Only of this flow.")]
InConversation = Annotated[
    str | None, typer.Option("--conversation", help="Only of this conversation.")
]
WithError = Annotated[str | None, typer.Option("--error", help="Only with this error code.")]
WithText = Annotated[
    str | None, typer.Option("--text", help="Only with this in topic, question or reply.")
]
TIMES = "a length of time (2h, 7d) or a time (2026-11-26T17:00Z)"
Since = Annotated[str | None, typer.Option("--since", help=f"Not before: {TIMES}.")]
Until = Annotated[str | None, typer.Option("--until", help=f"Before: {TIMES}.")]
OfCall = Annotated[
    str | None, typer.Option("--call", help="Of this call (its call_id), where there are several.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts: JSON.")]


class YesNo(StrEnum):
    YES = "yes"
    NO = "no"


class Outcome(StrEnum):
    COMMITTED = "committed"
    REFUSED = "refused"


@requests_app.command("list")
def list_requests(
    state: InState = None,
    flow: OfFlow = None,
    conversation: InConversation = None,
    error: WithError = None,
    text: WithText = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay, and show what comes and how it ends.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Requests, newest first; with --follow newest last. JSON is one object a line."""
    from service.cli import listing, local_inbox

    async def work() -> None:
        wanted = local_inbox.wanted(state, flow, conversation, error, text, since, until)
        async with local_inbox.opened() as (insights, _, _):
            if follow:
                await listing.follow(insights, wanted, limit, as_json=as_json)
            else:
                await listing.once(insights, wanted, limit, as_json=as_json)

    run_async(work())


@requests_app.command()
def show(id: Id, as_json: AsJson = False) -> None:
    """One request: what it waited for, each model call and tool call, and what came of them."""
    from service.cli import local_inbox, waterfall
    from service.cli.common import console, say_json

    async def work() -> None:
        async with local_inbox.opened() as (insights, _, store):
            document = await insights.request(await local_inbox.whole_id(store, id))
        if as_json:
            say_json(document, indent=2)
        else:
            waterfall.draw(console(), document)

    run_async(work())


@requests_app.command()
def retry(
    ids: Annotated[
        list[str] | None, typer.Argument(help="Their ids, or the last characters of them.")
    ] = None,
    state: InState = None,
    flow: OfFlow = None,
    conversation: InConversation = None,
    error: WithError = None,
    text: WithText = None,
    since: Since = None,
    until: Until = None,
    all_of_them: Annotated[
        bool, typer.Option("--all", help="All failed and expired requests.")
    ] = False,
    payload: Annotated[
        str | None, typer.Option(help="Ask this instead of what came; with one id.")
    ] = None,
) -> None:
    """Dead letters go to the end of the queue with a new deadline: by id, by a filter, or all."""
    from service.cli import retrying

    filters = (state, flow, conversation, error, text, since, until)
    run_async(retrying.retry(ids or [], filters, all_of_them=all_of_them, payload=payload))


@requests_app.command()
def confirm(
    id: Id,
    answer: Annotated[YesNo, typer.Argument(help="Whether the tool may do what it asks for.")],
    call: OfCall = None,
    pin_env: Annotated[
        str | None,
        typer.Option(
            "--pin-env",
            help="Name of an environment variable with the PIN; else it is asked for, unseen.",
        ),
    ] = None,
) -> None:
    """Answer what a tool call asks before it acts, instead of the person who was asked."""
    from service.cli import deciding

    run_async(deciding.confirm(id, answer.value, call, pin_env))


@requests_app.command()
def settle(
    id: Id,
    outcome: Annotated[
        Outcome, typer.Argument(help="committed: it was done; refused: it was not.")
    ],
    call: OfCall = None,
) -> None:
    """Say what became of tool calls that must not be repeated; then it can be retried."""
    from service.cli import deciding

    run_async(deciding.settle(id, outcome.value, call))
