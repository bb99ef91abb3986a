"""A topic read backwards: which values a template was filled with. Pure."""

from __future__ import annotations

import re

from service.mqtt.templates import Template


def levels_of(template: Template, topic: str) -> dict[str, str] | None:
    """`house/${user}/ask` and `house/ada/ask` → user: ada; None where they do not fit."""
    names: list[str] = []
    shape = ""
    for part, is_name in template.parts:
        if not is_name:
            shape += re.escape(part)
        elif part in names:
            shape += rf"\{names.index(part) + 1}"
        else:
            names.append(part)
            shape += "([^/]+)"
    found = re.fullmatch(shape, topic)
    return dict(zip(names, found.groups(), strict=True)) if found else None
