"""The flows in force. They can be exchanged while requests are in hand, which then end by the
ones they began with. Nothing here does I/O.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

from service.flows.flow import Flow, Flows, McpServer, Provider
from service.flows.tables import Price


@dataclass(frozen=True, slots=True, eq=False)
class Edition:
    """A flows file as it was read once, with the key of each provider and the token of each MCP
    server by its name, and each PIN by that of its variable."""

    flows: Flows
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    pins: Mapping[str, str] = field(default_factory=dict, repr=False)

    def server(self, name: str) -> tuple[Provider, str]:
        """A provider and its key; an empty one: it needs none."""
        return self.flows.providers[name], self.keys.get(name, "")

    def mcp_server(self, name: str) -> tuple[McpServer, str] | None:
        """An MCP server and its token; None: there is none of this name."""
        server = self.flows.mcp.get(name)
        return None if server is None else (server, self.tokens.get(name, ""))

    def mcp_servers(self) -> dict[str, tuple[McpServer, str]]:
        """Those that flows use, by their names."""
        used = {name for flow in self.flows.flows.values() for name in flow.tools_from}
        found = {name: self.mcp_server(name) for name in self.flows.mcp if name in used}
        return {name: one for name, one in found.items() if one is not None}


class Catalogue:
    """What all parts of a process ask for the flows; it reads as `Flows` does.

    `held` is for one task: within it the flows stay what they were when it began. Everybody
    else sees the latest, from one moment to the next.
    """

    def __init__(self, edition: Edition) -> None:
        self._latest = edition

    @property
    def edition(self) -> Edition:
        """The one that counts for who asks."""
        held = _held.get()
        if held is not None and held.by is self and held.edition is not None:
            return held.edition
        return self._latest

    @property
    def latest(self) -> Edition:
        """The one for what begins now, whoever asks."""
        return self._latest

    def exchange(self, edition: Edition) -> None:
        """This one from now on."""
        self._latest = edition

    @contextlib.contextmanager
    def pinned(self) -> Iterator[None]:
        """The calling task goes on with the flows of now, until the end of this."""
        hold = _Hold(self, self._latest)
        token = _held.set(hold)
        try:
            yield
        finally:
            # What the task began (a connection that is kept) has a copy of its context, and
            # must not keep an old edition with it.
            hold.edition = None
            _held.reset(token)

    def server(self, name: str) -> tuple[Provider, str]:
        return self.edition.server(name)

    @property
    def file(self) -> Flows:
        return self.edition.flows

    @property
    def flows(self) -> Mapping[str, Flow]:
        return self.edition.flows.flows

    @property
    def providers(self) -> Mapping[str, Provider]:
        return self.edition.flows.providers

    @property
    def prices(self) -> Mapping[str, Price]:
        return self.edition.flows.prices

    def find(self, name: str | None, topic: str) -> Flow | None:
        return self.edition.flows.find(name, topic)


@dataclass(slots=True, eq=False)
class _Hold:
    by: Catalogue
    edition: Edition | None


_held: ContextVar[_Hold | None] = ContextVar("emqx_gpt_flows", default=None)
