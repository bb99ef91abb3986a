"""What is different between two readings of flows.toml, for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.flows.catalogue import Edition


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of flows; `providers` are those whose address, key or kind is another, or that are
    gone, `mcp` likewise of MCP servers; `prices`: what calls are said to cost."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    mcp: tuple[str, ...] = ()
    prices: bool = False

    @classmethod
    def between(cls, old: Edition, new: Edition) -> Changes:
        before, after = old.flows.flows, new.flows.flows
        there = {**old.flows.providers, **new.flows.providers}
        return cls(
            tuple(name for name in after if name not in before),
            _other(before, after),
            tuple(name for name in before if name not in after),
            tuple(name for name in there if _server(old, name) != _server(new, name)),
            tuple(
                name
                for name in {**old.flows.mcp, **new.flows.mcp}
                if old.mcp_server(name) != new.mcp_server(name)
            ),
            (old.flows.prices, old.flows.price_list) != (new.flows.prices, new.flows.price_list),
        )

    def __bool__(self) -> bool:
        return self != Changes()

    def __str__(self) -> str:
        said = [
            f"{word} {', '.join(names)}"
            for word, names in (
                ("added", self.added),
                ("changed", self.changed),
                ("removed", self.removed),
                ("other providers:", self.providers),
                ("other MCP servers:", self.mcp),
            )
            if names
        ]
        if self.prices:
            said.append("other prices")
        return "; ".join(said) or "nothing is different"


def _other(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in after if name in before and before[name] != after[name])


def _server(edition: Edition, name: str) -> object:
    return edition.server(name) if name in edition.flows.providers else None
