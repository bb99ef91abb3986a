"""EMQX's longer words about resources: terms of Erlang, and configurations before and after."""

from __future__ import annotations

from collections.abc import Mapping

from service.demo.standin import hocon
from service.demo.standin.refusal import Term, erlang
from service.demo.standin.resource_config import Settings


def channel(name: str, conf: Settings) -> str:
    """An action's configuration as Erlang prints it: milliseconds, bytes, atoms."""
    parameters, options = conf.section("parameters"), conf.section("resource_opts")
    headers = {
        key if key.isalnum() else f"'{key}'": value
        for key, value in parameters.section("headers").items()
    }
    terms: dict[str, object] = {
        **conf,
        "bridge_name": name,
        "bridge_type": "http",
        "config_root": Term("actions"),
        "parameters": {
            **parameters,
            "headers": headers,
            "method": Term(str(parameters["method"])),
        },
        "resource_opts": {
            **options,
            "buffer_mode": Term("memory_only"),
            "health_check_interval": int(options.seconds("health_check_interval") * 1000),
            "max_buffer_bytes": options.bytes("max_buffer_bytes"),
            "query_mode": Term(str(options["query_mode"])),
            "request_ttl": _milliseconds(options.seconds("request_ttl")),
        },
    }
    return erlang(terms)


def _milliseconds(seconds: float) -> object:
    return Term("infinity") if seconds == float("inf") else int(seconds * 1000)


def cannot_merge(
    root: tuple[str, str],
    before: Mapping[str, object],
    after: Mapping[str, object],
    error: str,
) -> str:
    blocks = [hocon.dump({root[0]: {"http": dict(confs)}}) for confs in (before, after)]
    (name,) = after
    return (
        f"The effective configurations:\n```\n{_inside(blocks[0])}```\n\n"
        f"Try to merge with:\n```\n{_inside(blocks[1])}```\n\n"
        f"Can't merge the new configurations!\nRoot key: {root[0]}\n"
        f"Reason: {{post_config_update,{root[1]},\n"
        "            [#{action => create,\n               errors =>\n"
        f"                   [{{{{http,{name}}},\n                     {{error,\n{error}"
    )


def _inside(block: str) -> str:
    """A dumped tree without its outer braces."""
    return "".join(line[2:] + "\n" for line in block.split("\n")[1:-1])
