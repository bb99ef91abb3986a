"""Lists of models as servers give them (GET /models). Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection
from typing import Any

import orjson


def names(content: bytes, prefix: str = "") -> list[str] | None:
    """The models' names, or None if that is no list of models. `prefix` stands before each."""
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    if isinstance(document, dict):
        document = document.get("data", document.get("models"))
    if not isinstance(document, list):
        return None
    found = [_name(item) for item in document]
    return [name.removeprefix(prefix) for name in found if name]


def _name(item: Any) -> str:
    if isinstance(item, dict):
        item = item.get("id") or item.get("name")
    return item if isinstance(item, str) else ""


def listed(model: str, known: Collection[str]) -> bool:
    """Whether a list has the model: by its name, with Ollama's tag, or by a proxy's wildcard."""
    if not {model, f"{model}:latest", f"models/{model}"}.isdisjoint(known):
        return True
    return any(fnmatch.fnmatchcase(model, name) for name in known if "*" in name)
