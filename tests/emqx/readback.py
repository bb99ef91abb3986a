"""What EMQX 5.8.9 reads back of our resources: the recorded shapes with our values in them.

Defaults, stamps, status and masks are as recorded; nothing here comes from the stand-in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from service.emqx import resource_names
from service.emqx.plan import Actual
from service.emqx.resources import Desired, Kind

Json = dict[str, Any]
NODE = "emqx@127.0.0.1"


PLAIN, ORDERED = (
    resource_names.action_id("emqx_gpt"),
    resource_names.action_id("emqx_gpt", ordered=True),
)


def connector(desired: Desired, ident: str = PLAIN, **changed: Any) -> Json:
    want = desired.connectors[ident]
    return {
        "actions": [resource_names.bare(ident)],
        "name": resource_names.bare(ident),
        "node_status": [{"node": NODE, "status": "connected"}],
        "sources": [],
        "status": "connected",
        "type": "http",
        "connect_timeout": "15s",
        "description": want["description"],
        "enable": True,
        "enable_pipelining": 100,
        "headers": {"authorization": "******", "content-type": "application/json"},
        "pool_size": 8,
        "pool_type": want["pool_type"],
        "resource_opts": {
            "health_check_interval": "2s",
            "start_after_created": True,
            "start_timeout": "5s",
        },
        "ssl": {
            "ciphers": [],
            "depth": 10,
            "enable": False,
            "hibernate_after": "5s",
            "log_level": "notice",
            "reuse_sessions": True,
            "secure_renegotiate": True,
            "verify": "verify_none",
            "versions": ["tlsv1.3", "tlsv1.2"],
        },
        "url": want["url"],
        **changed,
    }


def action(ident: str = PLAIN, **changed: Any) -> Json:
    return {
        "error": "",
        "name": resource_names.bare(ident),
        "node_status": [{"node": NODE, "status": "connected", "status_reason": ""}],
        "rules": ["emqx_gpt_chat"],
        "status": "connected",
        "status_reason": "",
        "type": "http",
        "connector": resource_names.bare(ident),
        "created_at": 1795166901994,
        "description": resource_names.ACTION_SAYS
        if ident == PLAIN
        else resource_names.ORDERED_SAYS,
        "enable": True,
        "last_modified_at": 1795166901994,
        "parameters": {
            "headers": {
                "accept": "application/json",
                "cache-control": "no-cache",
                "connection": "keep-alive",
                "content-type": "application/json",
                "keep-alive": "timeout=5",
            },
            "max_retries": 2,
            "method": "post",
            "path": "/webhook",
        },
        "resource_opts": {
            "health_check_interval": "2s",
            "inflight_window": 100,
            "max_buffer_bytes": "256MB",
            "query_mode": "async",
            "request_ttl": "1h",
            "worker_pool_size": 16,
        },
        **changed,
    }


def rule(desired: Desired, ident: str, **changed: Any) -> Json:
    want = desired.rules[ident]
    actions = want["actions"]
    if isinstance(actions[0], dict):
        args = {"direct_dispatch": False, **actions[0]["args"]}
        actions = [{"args": args, "function": "republish"}]
    return {
        "actions": actions,
        "created_at": "2026-11-20T09:28:22.014+00:00",
        "description": want["description"],
        "enable": True,
        "from": [desired.topics.get(ident, "emqx-gpt/reply/emqx_gpt")],
        "id": ident,
        "last_modified_at": "2026-11-20T09:28:22.014+00:00",
        "name": "",
        "sql": want["sql"].replace("\n", "\n    ") + " ",
        **changed,
    }


def untouched(desired: Desired) -> Actual:
    """A broker into which exactly `desired` was loaded."""
    return Actual(
        {
            **{("connector", ident): connector(desired, ident) for ident in (PLAIN, ORDERED)},
            **{("action", ident): action(ident) for ident in (PLAIN, ORDERED)},
        },
        tuple(rule(desired, ident) for ident in reversed(desired.rules)),
    )


def changed(actual: Actual, kind: Kind, body: Json) -> Actual:
    """The same with another connector or action."""
    return replace(actual, found={**actual.found, (kind, f"http:{body['name']}"): body})
