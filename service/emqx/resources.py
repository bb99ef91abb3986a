"""What the flows want of EMQX: connectors, actions, a rule per flow, the reply rule. Pure.

The values are those of EMQX's configuration. What is secret or differs from place to place
is a `Placeholder` until it is filled in. Flows without order share one action. Flows with order
have another one, whose connector lets each buffer worker keep to one connection.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from service.emqx import reply_rule, resource_names
from service.errors import ConfigError
from service.flows import Flow, Flows
from service.mqtt.topics import TopicPattern

Kind = Literal["connector", "action", "rule"]
Body = Mapping[str, Any]
WEBHOOK_PATH = "/webhook"
HEALTH_CHECK = "2s"
# Seconds that EMQX keeps a message: as long as a flow would still answer it. A day at most: the
# buffer is in EMQX's memory.
_REQUEST_TTL = (600.0, 86400.0)


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A value to be filled in: an unquoted `${name}` in HOCON, after the text `before`."""

    name: str
    before: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Where EMQX posts to, and the token it sends; made by `target`.

    `tokens`: all that the service takes, the one that EMQX sends first.
    """

    url: str
    tokens: tuple[str, ...]

    @property
    def token(self) -> str:
        return self.tokens[0]


@dataclass(frozen=True, slots=True)
class Desired:
    """The resources by id, in the order in which they are made.

    `topics`: a topic that each flow's rule matches, for tests.
    """

    prefix: str
    connectors: Mapping[str, Body]
    actions: Mapping[str, Body]
    rules: Mapping[str, Body]
    topics: Mapping[str, str]
    target: Target | None = None

    def __iter__(self) -> Iterator[tuple[Kind, str, Body]]:
        for ident, body in self.connectors.items():
            yield "connector", ident, body
        for ident, body in self.actions.items():
            yield "action", ident, body
        for ident, body in self.rules.items():
            yield "rule", ident, body

    def body(self, kind: Kind, ident: str) -> Body:
        """The configuration that a resource of ours should have."""
        return next(body for each, name, body in self if (each, name) == (kind, ident))

    def with_fallback(self) -> Desired:
        """For EMQX 5.9 and later: a second action takes what the first one gives up."""
        actions: dict[str, Body] = {}
        for ident, body in self.actions.items():
            again = resource_names.again_id(ident)
            reference = {"kind": "reference", "type": "http", "name": resource_names.bare(again)}
            actions[again] = {**body, "description": resource_names.AGAIN_SAYS}
            actions[ident] = {**body, "fallback_actions": [reference]}
        return replace(self, actions=actions)


def target(url: str, *tokens: str) -> Target:
    """Check what EMQX is to be told; raises ConfigError with one line."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"PUBLIC_URL {url!r} is no URL such as http://gpt.example.com:8000")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError("PUBLIC_URL may hold scheme, host, port and path, and nothing else")
    if "${" in url or not re.fullmatch(r"[!-~]+", url) or '"' in url or "\\" in url:
        raise ConfigError("PUBLIC_URL has a character that EMQX does not take: percent-encode it")
    if not tokens or not tokens[0]:
        raise ConfigError(
            "WEBHOOK_TOKEN is not set here: start emqx-gpt serve in this folder, which makes one, "
            "or set it, e.g. from: openssl rand -hex 24"
        )
    if not re.fullmatch(r"[ -~]+", tokens[0]) or tokens[0] != tokens[0].strip():
        raise ConfigError(
            "WEBHOOK_TOKEN can't go into an HTTP header: use printable ASCII characters only, "
            "no line break, no space at its ends"
        )
    if "${" in tokens[0]:
        raise ConfigError("WEBHOOK_TOKEN holds ${, which EMQX would replace: choose another one")
    return Target(url.rstrip("/"), tokens)


def build(
    flows: Flows,
    *,
    prefix: str = resource_names.PREFIX,
    to: Target | None = None,
    tls: bool = False,
) -> Desired:
    """The resources for `flows`. Without `to` they have placeholders; `tls` then says https.

    Raises ConfigError for what can't be written as rule SQL.
    """
    resource_names.check_prefix(prefix)
    plain, ordered = (
        resource_names.action_id(prefix),
        resource_names.action_id(prefix, ordered=True),
    )
    rules: dict[str, Body] = {}
    topics: dict[str, str] = {}
    for flow in flows.flows.values():
        ident = resource_names.rule_id(prefix, flow.name)
        if ident in rules:  # two digests of 32 bits that agree
            raise ConfigError(f"flow {flow.name!r}: rename it, its rule id {ident} is taken")
        if flow.every is None:
            action = ordered if flow.ordered else plain
            rules[ident] = _rule(flow_sql(flow), [action], resource_names.flow_says(flow.name))
            topics[ident] = sample_topic(flow.request[0])
        if flow.recent is not None:
            says = resource_names.window(flow.name)
            ident = resource_names.rule_id(prefix, says)
            recent = resource_names.recent_id(prefix)
            rules[ident] = _rule(recent_sql(flow), [recent], resource_names.flow_says(says))
            topics[ident] = sample_topic(flow.recent.topic)
    if sources := answer_filters(flows):
        # One client's answers come in the order in which it said them: the first counts.
        ident = resource_names.answers_id(prefix)
        rules[ident] = _rule(answers_sql(sources), [ordered], resource_names.ANSWERS_SAYS)
        topics[ident] = sample_topic(TopicPattern.parse(sources[0]))
    if any(replies(flow) for flow in flows.flows.values()):
        keys = [reply_rule.key(token, prefix) for token in to.tokens] if to else []
        sql = reply_rule.sql(prefix, keys)
        rules[resource_names.reply_id(prefix)] = _rule(
            sql, [reply_rule.ACTION], resource_names.REPLY_SAYS
        )
    connector = _connector(prefix, to, tls)
    hashed = {"description": resource_names.ORDERED_CONNECTOR_SAYS, "pool_type": "hash"}
    if to is not None:
        hashed["description"] = _with_fingerprint(resource_names.ORDERED_CONNECTOR_SAYS, prefix, to)
    connectors = {plain: connector, ordered: {**connector, **hashed}}
    actions = {
        plain: _action(plain, flows, resource_names.ACTION_SAYS),
        ordered: _action(ordered, flows, resource_names.ORDERED_SAYS),
    }
    if any(flow.recent is not None for flow in flows.flows.values()):
        # On connections of their own: answers leave in order, and readings take their time.
        recent = resource_names.recent_id(prefix)
        says = resource_names.RECENT_CONNECTOR_SAYS
        if to is not None:
            says = _with_fingerprint(says, prefix, to)
        connectors[recent] = {**connector, "description": says}
        actions[recent] = _action(recent, flows, resource_names.RECENT_SAYS)
    return Desired(
        prefix,
        connectors,
        actions,
        rules,
        topics,
        to,
    )


def _with_fingerprint(description: str, prefix: str, to: Target) -> str:
    return resource_names.with_fingerprint(
        description, resource_names.fingerprint(to.token, prefix)
    )


def _connector(prefix: str, to: Target | None, tls: bool) -> dict[str, Any]:
    description = resource_names.CONNECTOR_SAYS
    url: object = Placeholder("PUBLIC_URL")
    authorization: object = Placeholder("WEBHOOK_TOKEN", before="Bearer ")
    if to is not None:
        tls = to.url.startswith("https:")
        url, authorization = to.url, f"Bearer {to.token}"
        description = _with_fingerprint(description, prefix, to)
    return {
        "description": description,
        "enable": True,
        "url": url,
        "headers": {"authorization": authorization, "content-type": "application/json"},
        "pool_size": 8,
        "pool_type": "random",
        "enable_pipelining": 100,
        "resource_opts": {"health_check_interval": HEALTH_CHECK},
        **({"ssl": {"enable": True}} if tls else {}),
    }


def _action(ident: str, flows: Flows, description: str) -> dict[str, Any]:
    least, most = _REQUEST_TTL
    longest = max((flow.deadline for flow in flows.flows.values()), default=least)
    return {
        "description": description,
        "enable": True,
        "connector": resource_names.bare(ident),
        "parameters": {"method": "post", "path": WEBHOOK_PATH},
        "resource_opts": {
            "inflight_window": 100,
            "request_ttl": _duration(min(max(least, longest), most)),
            "health_check_interval": HEALTH_CHECK,
        },
    }


def _duration(seconds: float) -> str:
    whole = -(-int(seconds * 1000) // 1000)
    return f"{whole // 60}m" if whole % 60 == 0 else f"{whole}s"


def _rule(sql: str, actions: list[Any], description: str) -> dict[str, Any]:
    return {"description": description, "enable": True, "sql": sql, "actions": actions}


def answer_filters(flows: Flows) -> list[str]:
    """Where devices and people answer tool calls."""
    found = (
        topic.topic_filter
        for flow in flows.flows.values()
        for tool in flow.tools
        for topic in (
            tool.answer,
            tool.confirm.answer if tool.confirm is not None else None,
            tool.verify.answer if tool.verify is not None else None,
        )
        if topic is not None
    )
    asked = (
        confirm.answer.topic_filter
        for flow in flows.flows.values()
        for confirm in flow.asks.values()
    )
    return list(dict.fromkeys((*found, *asked)))


def answers_sql(filters: list[str]) -> str:
    """The SQL of the one rule that brings all of them. Raises ConfigError."""
    return "\n".join(
        (
            "SELECT 'call' AS answers, id, clientid, username, topic, payload, pub_props,",
            "  publish_received_at,",
            "  CASE WHEN is_null(pub_props.'Correlation-Data') THEN ''",
            "    ELSE base64_encode(pub_props.'Correlation-Data') END AS correlation_base64",
            "FROM " + ", ".join(_filter("the tools", one) for one in filters),
        )
    )


def replies(flow: Flow) -> bool:
    """Whether a reply of this flow may carry a requester's Correlation-Data."""
    return bool(flow.reply or flow.error or flow.allow_response_topics)


def flow_sql(flow: Flow) -> str:
    """The rule SQL of a flow. Raises ConfigError.

    Every message brings the fields that any flow can use, so a changed prompt or limit never
    needs a changed rule. Bytes that are not UTF-8 survive only as base64.
    """
    payload = "payload"
    if flow.input == "image" or flow.charset is not None:
        payload = "base64_encode(payload) AS payload_base64"
    lines = [
        f"SELECT {_literal(flow.name)} AS flow, id, clientid, username, peerhost, topic,",
        f"  {payload}, qos, pub_props, publish_received_at,",
        "  CASE WHEN is_null(pub_props.'Correlation-Data') THEN ''",
        "    ELSE base64_encode(pub_props.'Correlation-Data') END AS correlation_base64",
        "FROM "
        + ", ".join(_filter(f"flow {flow.name!r}", pattern.filter) for pattern in flow.request),
    ]
    if flow.where is not None:
        lines.append(f"WHERE ({_condition(flow)})")
    return "\n".join(lines)


def recent_sql(flow: Flow) -> str:
    """The rule SQL of a flow's window: no more than is kept. Raises ConfigError."""
    assert flow.recent is not None
    payload = "payload"
    if flow.charset is not None:
        payload = "base64_encode(payload) AS payload_base64"
    return "\n".join(
        [
            f"SELECT {_literal(flow.name)} AS recent, topic, {payload}, publish_received_at",
            f"FROM {_filter(f'flow {flow.name!r}', flow.recent.topic.filter)}",
        ]
    )


def _literal(text: str) -> str:
    if re.fullmatch(r"[ -&(-\[\]-~]+", text):  # printable ASCII without ' and \
        return f"'{text}'"
    return f"base64_decode('{base64.b64encode(text.encode(errors='replace')).decode()}')"


def _filter(whose: str, topic_filter: str) -> str:
    if re.search(r'["\\\x00-\x1f\x7f]', topic_filter):
        raise ConfigError(
            f"{whose}: the topic {topic_filter!r} holds a quote, backslash or control "
            "character, which EMQX's rule SQL can't name"
        )
    return f'"{topic_filter}"'


def _condition(flow: Flow) -> str:
    condition = (flow.where or "").strip()
    if '"""' in condition or re.search(r"[\x00-\x08\x0b-\x1f\x7f]", condition):
        raise ConfigError(f"flow {flow.name!r}: `where` holds a character that HOCON can't carry")
    # A comment at its end would swallow the closing parenthesis.
    return condition + "\n" if "--" in condition else condition


def sample_topic(pattern: TopicPattern) -> str:
    """A topic that its filter matches."""
    levels = pattern.filter.split("/")
    return "/".join("test" if level in ("+", "#") else level for level in levels)
