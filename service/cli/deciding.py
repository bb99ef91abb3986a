"""`emqx-gpt requests confirm` and `settle`: what a person says about tool calls."""

from __future__ import annotations

import getpass
import sys

from service.answering.tool_answers import ToolAnswers
from service.cli import local_inbox
from service.cli.common import say
from service.cli.retrying import who
from service.domain import Ear, Wait
from service.errors import BadRequest, EmqxGptError, Forbidden
from service.inbox import Act, Inbox, epoch_ms
from service.operations.insights import found
from service.operations.waiting import is_open
from service.settings import environment


async def confirm(part: str, answer: str, call_id: str | None, pin_env: str | None) -> None:
    """Raises NotFound, Conflict, BadRequest, Forbidden."""
    async with local_inbox.opened() as (insights, _, store):
        id = await local_inbox.whole_id(store, part)
        asked = await _asked(store, id)
        meant = [one for one in asked if call_id in (None, one.call_id)]
        pin = None
        if answer == "yes" and len(meant) == 1 and meant[0].rule.get("pin_env"):
            pin = _pin(meant[0], pin_env)
        names = {str(name) for one in asked if (name := one.rule.get("pin_env"))}
        known = environment()
        pins = {name: known[name] for name in names if name in known}
        tool_answers = ToolAnswers(store, lambda: pins, now=epoch_ms)
        try:
            await tool_answers.decide(id, answer == "yes", call_id=call_id, pin=pin, who=who())
        except EmqxGptError as error:
            await store.desk.note(Act(who(), "confirm", id, error.code))
            raise
        await store.desk.note(Act(who(), "confirm", f"{id} ({answer})", "ok"))
        say(f"{id} {(await insights.request(id))['state']}: {answer}")


async def _asked(store: Inbox, id: str) -> list[Wait]:
    """The open questions of a request. Raises NotFound."""
    row, now = await found(store, id), epoch_ms()
    waits = await store.waits_of(row.seq)
    return [one for one in waits if one.ear is Ear.CONFIRM and is_open(one, row, now)]


def _pin(wait: Wait, pin_env: str | None) -> str:
    """What the person brings: never on the command line, where every process may read it. Raises
    BadRequest, Forbidden."""
    if pin_env is not None:
        if pin := environment().get(pin_env):
            return pin.strip()
        raise BadRequest(f"{pin_env} is not set")
    if not sys.stdin.isatty():
        text = "this yes must bring the PIN: on a terminal, or --pin-env NAME with a variable"
        raise Forbidden(text, code="pin_missing")
    say(str(wait.rule.get("asked") or ""))
    try:
        return getpass.getpass("PIN: ").strip()
    except EOFError:
        raise Forbidden("no PIN was given", code="pin_missing") from None


async def settle(part: str, outcome: str, call_id: str | None) -> None:
    """Raises NotFound, Conflict, BadRequest."""
    async with local_inbox.opened() as (_, actions, store):
        id = await local_inbox.whole_id(store, part)
        try:
            await actions.settle(id, outcome, call_id, who())
        except EmqxGptError as error:
            await store.desk.note(Act(who(), "settle", id, error.code))
            raise
        await store.desk.note(Act(who(), "settle", f"{id} ({outcome})", "ok"))
        say(f"{id} settled: {outcome}")
