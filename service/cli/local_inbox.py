"""The inbox beside the service, for the command line."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from service import flows, settings
from service.domain import State
from service.errors import BadRequest, StoreUnusable
from service.flows import Catalogue, Edition
from service.inbox import Filter, Inbox, database, epoch_ms
from service.operations.actions import Actions
from service.operations.insights import Insights
from service.units import seconds
from service.web.table import moment

SHORT = 8  # characters of an id that are shown
LEAST = 4  # of an id that are enough to look for it


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[tuple[Insights, Actions, Inbox]]:
    """Raises ConfigError, StoreUnusable."""
    loaded = settings.load()
    found = flows.load(loaded.flows, model=loaded.openai_model)
    url = loaded.database_url.get_secret_value()
    _must_be_there(url)
    store = Inbox(url, now=epoch_ms)
    await store.open()
    try:
        known = Catalogue(Edition(found))
        yield Insights(store, known), Actions(store, known, now=epoch_ms), store
    finally:
        await store.close()


def _must_be_there(address: str) -> None:
    """Raises StoreUnusable if SQLite would have to make the file: looking must not make one."""
    if not address.startswith("sqlite"):
        return
    path = Path(database.parse(address).database or "")
    if not path.exists():
        raise StoreUnusable(
            f"there is no database {path} yet, so nothing was ever stored in it: the service makes "
            "it when it starts (emqx-gpt serve). DATABASE_URL names another one; for a running "
            "demo: emqx-gpt --env demo.env requests list"
        )


async def whole_id(store: Inbox, part: str) -> str:
    """The id that a person means. Raises BadRequest if it may be several; an unknown one is
    given back as it is."""
    if len(part) < LEAST or await store.request(part) is not None:
        return part
    found = await store.ids(part)
    if len(found) > 1:
        listed = ", ".join(found[:4])
        raise BadRequest(f"{part!r} may be any of {listed}: give more of it")
    return found[0] if found else part


def wanted(
    state: State | None,
    flow: str | None,
    conversation: str | None,
    error: str | None,
    text: str | None,
    since: str | None,
    until: str | None,
) -> Filter:
    """The filter of these options. Raises BadRequest."""
    times = [None if one is None else _time(name, one) for name, one in _named(since, until)]
    return Filter(state, flow, conversation, error, text, times[0], times[1])


def _named(since: str | None, until: str | None) -> tuple[tuple[str, str | None], ...]:
    return ("--since", since), ("--until", until)


def _time(name: str, text: str) -> int:
    """Epoch ms of "2h" (ago) or of a time. Raises BadRequest."""
    try:
        return epoch_ms() - int(seconds(text) * 1000)
    except ValueError:
        return moment(name, text)
