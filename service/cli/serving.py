"""`emqx-gpt serve`."""

from __future__ import annotations

from service import flows, logs
from service.bootstrap import Service
from service.errors import ConfigError
from service.server import bind, make_server, serve
from service.settings import Settings
from service.web.app import create_app


async def run_service(settings: Settings) -> None:
    """Check everything, then serve until SIGTERM. Raises EmqxGptError before it listens."""
    logs.configure(settings.log_level, settings.log_format)
    faults = settings.serving_faults()
    if faults:
        raise ConfigError("settings can't be used", tuple(faults))
    found = flows.load(settings.flows, model=settings.openai_model)
    service = Service(settings, found)
    # Opened here, not in the lifespan: an unusable database is one line, before we listen.
    await service.open()
    sock = bind(settings.host, settings.port)
    await serve(make_server(create_app(service)), sock)
