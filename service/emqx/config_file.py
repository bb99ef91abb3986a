"""Resources → HOCON that EMQX loads: readable, commented, always in the same order. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from service.emqx import resource_names
from service.emqx.resources import Desired, Placeholder, build, target
from service.errors import ConfigError
from service.flows import Flows

FILE = "emqx-gpt.hocon"
_ROOTS = {"connector": "connectors", "action": "actions", "rule": "rule_engine.rules"}

_HEAD = """\
# EMQX's half of emqx-gpt: connectors, actions, a rule for each flow.
# `emqx-gpt emqx render` writes this file from flows.toml: change that one, not this.
"""
_HOLES = """\
# Fill in the placeholders, quotes included, before loading: see README.md here.
"""
_FILLED = """\
# Ready to load, with the token in it: keep it out of version control.
"""
_COMMENTS = {
    resource_names.CONNECTOR_SAYS: (
        "The way to the service: its address and the token that it asks for."
    ),
    resource_names.ORDERED_CONNECTOR_SAYS: "The same; each buffer worker keeps to one connection.",
    resource_names.ACTION_SAYS: (
        "What the rules hand on becomes one POST each; kept and sent again while it is away."
    ),
    resource_names.ORDERED_SAYS: "The same for flows in which a conversation keeps its order.",
    resource_names.RECENT_CONNECTOR_SAYS: "The same; what is only kept holds up no question here.",
    resource_names.RECENT_SAYS: "The same for what flows keep of other topics (recent).",
    resource_names.REPLY_SAYS: (
        "Publishes replies that EMQX's API can't carry. It obeys only what the service signed."
    ),
}


def render(
    flows: Flows, *, prefix: str = resource_names.PREFIX, tls: bool = False
) -> dict[str, str]:
    """The files of `emqx/`, by name, with placeholders. Raises ConfigError.

    `tls`: the service is reached by https.
    """
    return {FILE: to_hocon(build(flows, prefix=prefix, tls=tls))}


def render_filled(flows: Flows, url: str, *tokens: str, prefix: str = resource_names.PREFIX) -> str:
    """The same, ready for `curl` or `emqx ctl conf load`; it holds the token.

    Raises ConfigError for a URL or token that EMQX can't be given.
    """
    return to_hocon(build(flows, prefix=prefix, to=target(url, *tokens)))


def to_hocon(desired: Desired) -> str:
    """One text with all resources."""
    parts = [_HEAD + (_HOLES if desired.target is None else _FILLED)]
    for kind, ident, body in desired:
        path = f"{_ROOTS[kind]}.{ident.replace(':', '.')}"
        comment = _COMMENTS.get(resource_names.without_fingerprint(str(body["description"])), "")
        parts.append(_block(path, body, comment))
    return "\n".join(parts)


def _block(path: str, body: Mapping[str, Any], comment: str) -> str:
    lines = [f"# {comment}"] if comment else []
    return "\n".join([*lines, f"{path} {{", *_entries(body, 1), "}"]) + "\n"


def _entries(body: Mapping[str, Any], depth: int) -> Iterator[str]:
    space = "  " * depth
    for key, value in body.items():
        if isinstance(value, Mapping):
            yield f"{space}{_key(key)} {{"
            yield from _entries(value, depth + 1)
            yield f"{space}}}"
        elif key == "sql":
            # Between triple quotes nothing is an escape; the space keeps a last quote apart.
            yield f'{space}sql = """' + value.replace("\n", f"\n{space}  ") + ' """'
        else:
            yield f"{space}{_key(key)} = {_value(value, depth)}"


def _value(value: Any, depth: int) -> str:
    if isinstance(value, Placeholder):
        return (_quoted(value.before) if value.before else "") + f"${{{value.name}}}"
    if isinstance(value, Mapping):
        return "\n".join(["{", *_entries(value, depth + 1), "  " * depth + "}"])
    if isinstance(value, list):
        return "[" + ", ".join(_value(item, depth) for item in value) + "]"
    if isinstance(value, bool | int):
        return json.dumps(value)
    return _quoted(value)


def _quoted(text: str) -> str:
    if re.search(r"[\x00-\x1f\x7f\u2028\u2029]", text):
        raise ConfigError(f"{text!r} holds a control character, which HOCON can't carry")
    return json.dumps(text, ensure_ascii=False)


def _key(key: str) -> str:
    # `content-type` stands bare in EMQX's own output; anything odder is quoted.
    return key if re.fullmatch(r"[a-z][a-z0-9_-]*", key) else _quoted(key)
