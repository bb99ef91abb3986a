"""`serve` goes along with flows.toml, and with `--apply` EMQX does too."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from service import flows
from service.bootstrap import Service, edition_of
from service.emqx.apply import apply_when_ready
from service.emqx.broker_run import ApplyError
from service.emqx.management_api import EmqxAdmin
from service.emqx.resources import Desired, build, target
from service.errors import ConfigError
from service.flows import Edition
from service.llm import prices
from service.operations.flows_file import FlowsFile
from service.settings import Settings, environment

BRING = "EMQX has to be brought along: run emqx-gpt emqx apply"
BROUGHT = "EMQX is brought along"

log = logging.getLogger("emqx-gpt.serve")


@dataclass(frozen=True, slots=True)
class Prepared:
    """The flows of a text, and what they want of EMQX."""

    edition: Edition
    half: Desired | None


class Following:
    """One process's. `text` is the file at the start. `apply`: EMQX's half goes along, from the
    start on; `quiet`: another process tells the log."""

    def __init__(
        self, settings: Settings, service: Service, text: str, *, apply: bool, quiet: bool
    ) -> None:
        self._settings = settings
        self._service = service
        self._half = half(settings, service.flows.file, apply=apply)
        self._applying = Applying(settings) if apply else None
        self.file = FlowsFile(
            settings.flows,
            text,
            make=self._make,
            take=self._take,
            metrics=service.metrics,
            health=service.health,
            quiet=quiet,
        )
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Following:
        if self._applying is not None and self._half is not None:
            self._applying.begin(self._half)
        self._task = asyncio.create_task(self.file.follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._applying is not None:
            await self._applying.stop()

    def _make(self, text: str) -> Prepared:
        """In a thread. Raises ConfigError."""
        settings = self._settings
        known = environment()
        found = flows.sound(text, str(settings.flows), settings.openai_model, known)
        prices.prepare(found)
        edition = edition_of(settings, found, known)
        return Prepared(edition, half(settings, found, apply=self._applying is not None))

    def _take(self, read: Prepared) -> str:
        changes = self._service.take(read.edition)
        before, self._half = self._half, read.half
        if read.half == before:
            return str(changes) if changes else ""
        if self._applying is not None and read.half is not None:
            self._applying.begin(read.half)
        return f"{changes}; {BRING if self._applying is None else BROUGHT}"


def half(settings: Settings, found: flows.Flows, *, apply: bool) -> Desired | None:
    """What the flows want of EMQX; only to be compared, unless it is to be applied: then it says
    where EMQX posts to. Raises ConfigError if that can't be told to EMQX."""
    prefix = settings.emqx_prefix
    if apply:
        return build(
            found, prefix=prefix, to=target(settings.webhook_url, *settings.webhook_tokens)
        )
    try:
        return build(found, prefix=prefix)
    except ConfigError:
        return None  # whoever made the rules by hand is not bothered


class Applying:
    """Applies beside serving: the probe waits until the webhook answers. Of several halves that
    follow each other the last counts."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._task: asyncio.Task[None] | None = None

    def begin(self, desired: Desired) -> None:
        """This half from now on."""
        self._task = asyncio.create_task(self._after(self._task, desired))

    async def stop(self) -> None:
        await _ended(self._task)

    async def _after(self, before: asyncio.Task[None] | None, desired: Desired) -> None:
        await _ended(before)
        await self._apply(desired)

    async def _apply(self, desired: Desired) -> None:
        settings = self._settings
        host = settings.host
        host = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104
        probe = (
            f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
        )
        hide = tuple(settings.webhook_tokens)
        admin = EmqxAdmin(settings.emqx_url, settings.emqx_admin, hide=hide)
        try:
            await apply_when_ready(admin, desired, probe_url=probe, tell=log.info)
            log.info("EMQX's half is up to date")
        except ApplyError as error:
            log.error("EMQX's half is not up to date: %s; see: emqx-gpt emqx diff", error.message)
        finally:
            await admin.close()


async def _ended(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
