"""`emqx-gpt serve`."""

from __future__ import annotations

import gc
import logging

from service import flows
from service import settings as environment
from service.bootstrap import Service
from service.cli.env_file import ENV, TOKENS, add_tokens
from service.cli.following import Following
from service.errors import ConfigError, Fault
from service.operations import logs
from service.server import bind, make_server, serve
from service.settings import LOOPBACK, Settings
from service.supervised import Link
from service.web.app import create_app

log = logging.getLogger("emqx-gpt.serve")


def with_tokens(settings: Settings) -> Settings:
    """The settings, with tokens of our own for those that are not set; on loopback only, where
    every page in a browser could call otherwise. Raises ConfigError."""
    missing = [name for name in TOKENS if not _set(settings, name)]
    if settings.host not in LOOPBACK or not missing:
        return settings
    made = add_tokens(ENV, missing)
    settings = environment.load()
    hidden = [Fault(name, f"the environment has it without a token, which goes before {ENV}",
                    hint="take it out of the environment, or set it")
              for name in missing if not _set(settings, name)]  # fmt: skip
    if hidden:
        raise ConfigError("settings can't be used", tuple(hidden))
    if made:
        log.warning("made %s; in %s, which only you can read", " and ".join(made), ENV.absolute())
        if "WEBHOOK_TOKEN" in made:
            log.warning("EMQX has to know it, or its messages wait: run emqx-gpt emqx apply here")
    return settings


def _set(settings: Settings, name: str) -> bool:
    return bool(getattr(settings, f"{name.lower()}s"))


async def run_service(settings: Settings, *, apply: bool = False, workers: int = 1) -> None:
    """Check everything, then serve until SIGTERM. Raises EmqxGptError before it listens.

    `apply` brings the broker's half up to date once the service answers. `workers` processes
    share one listening socket, where there is a parent that begins the others.
    """
    link = Link.current
    logs.configure(settings.log_level, settings.log_format)
    faults = settings.serving_faults()
    if workers > 1:
        faults.extend(_several(settings, link))
    if faults:
        raise ConfigError("settings can't be used", tuple(faults))
    settings = with_tokens(settings)
    for fault in settings.weak_tokens():
        log.warning("%s", fault)
    text = flows.read(settings.flows)
    found = flows.sound(text, str(settings.flows), settings.openai_model)
    first = link is None or link.number == 0
    service = Service(settings, found, link=link)
    following = Following(settings, service, text, apply=apply and first, quiet=not first)
    # Opened here, not in the lifespan: an unusable database is one line, before we listen.
    await service.open()
    sock = link.sock if link is not None and link.sock is not None else None
    if sock is None:
        sock = bind(settings.host, settings.port)
    server = make_server(create_app(service))
    log.info("listening on http://%s:%d", *sock.getsockname()[:2])
    _settle_garbage()
    async with following:
        if link is not None:
            link.announce(workers, sock, settings.grace)
        await serve(server, sock, service.drain, link, following.file.ask)


def _several(settings: Settings, link: Link | None) -> list[Fault]:
    hint = "set DATABASE_URL to a PostgreSQL, or run one process"
    if not settings.database_url.get_secret_value().startswith("postgres"):
        return [Fault("--workers", "SQLite is for one process", hint=hint)]
    if link is None:
        hint = "start several with PORTs of their own"
        return [Fault("--workers", "can't be had on this system", hint=hint)]
    return []


def _settle_garbage() -> None:
    """Half a million objects of the libraries live as long as the process: full collections
    need not walk them again and again, nor so often (docs/performance.md)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
