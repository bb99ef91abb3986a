"""API keys and what they may: roles, and from EMQX 6.2 on scopes and namespaces. Pure."""

from __future__ import annotations

from dataclasses import dataclass

# EMQX 6.2's scopes by the first part of a path; what is not named here needs `system`.
_SCOPES = {
    "nodes": "cluster_operations",
    "rules": "data_integration",
    "rule_test": "data_integration",
    "connectors": "data_integration",
    "connectors_probe": "data_integration",
    "actions": "data_integration",
    "publish": "publish",
    "mqtt": "connections",
    "clients": "connections",
    "subscriptions": "connections",
    "topics": "connections",
}


@dataclass(frozen=True, slots=True)
class ApiKey:
    """`role` is administrator, viewer or publisher; without `scopes` a key has all of them."""

    secret: str
    role: str = "administrator"
    scopes: frozenset[str] | None = None
    namespace: str | None = None


def refusal(key: ApiKey, method: str, path: str) -> str | None:
    """Why this key may not, in EMQX's words, or None. `path` is below /api/v5."""
    first = path.strip("/").partition("/")[0]
    if key.role == "publisher":
        if first != "publish":
            return "You don't have permission to access this resource"
    elif key.role == "viewer" and method != "GET":
        return "You don't have permission to access this resource"
    if key.scopes is not None and _SCOPES.get(first, "system") not in key.scopes:
        return "This API Key don't have permission to access this resource"
    return None
