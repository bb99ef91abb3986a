"""Addresses of model servers: what is called, and what is probably wrong with them. Pure."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

_ENDPOINT = re.compile(r"/(chat/completions|completions|responses|models|embeddings)/*\Z")
_VERSION = re.compile(r"/v\d|/openai|/compatible|/api|/engines")


def base_of(base_url: str) -> str:
    """The address without an endpoint at its end, which many copy along; its query stays."""
    parts = urlsplit(base_url)
    path = _ENDPOINT.sub("", parts.path.rstrip("/"))
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def join(base_url: str, endpoint: str) -> str:
    """Where an endpoint is called: `?api-version=` comes after it."""
    parts = urlsplit(base_of(base_url))
    path = f"{parts.path}/{endpoint}"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def shown(url: str) -> str:
    """An address for people: without its query and user, which may hold a key."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def doubt(base_url: str) -> str | None:
    """What is probably missing, for `check` and for errors; None: nothing."""
    parts = urlsplit(base_of(base_url))
    host = (parts.hostname or "").lower()
    if host.endswith("openai.azure.com"):
        if not re.search(r"/openai/(v1|deployments/[^/]+)", parts.path):
            return f"Azure's address is https://{host}/openai/v1"
        if "/deployments/" in parts.path and "api-version=" not in parts.query:
            return f"add ?api-version=…, or take https://{host}/openai/v1"
        return None
    if host.endswith("googleapis.com") and not parts.path.endswith("/openai"):
        return "Gemini's address is https://generativelanguage.googleapis.com/v1beta/openai"
    if not _VERSION.search(parts.path) and host != "api.deepseek.com":
        return f"base_url probably lacks /v1: {shown(base_url).rstrip('/')}/v1"
    return None
