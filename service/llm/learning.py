"""A refusal that says how the server wants to be asked → the dialect for the next try. Pure.

Each lesson is learned once for a model, and remembered for the process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from service.llm.providers import Api, Dialect, Schemas

STATUSES = (400, 404, 415, 422, 500, 501)  # of refusals that may teach something
MOST = 4  # lessons for one question

_NAMES = ("max_tokens", "max_completion_tokens")
_ASKED = (*_NAMES, "max_output_tokens")
LEAST = 2000  # tokens; a server that has room for less refuses long questions, not our limit
_TOO_LONG = re.compile(
    r"(max_(completion_|output_|new_)?tokens|in the completion).{0,160}?(too (large|long|high)"
    r"|at most|maximum|exceed|less than|valid range|must be|reduce)"
    r"|(too (large|long|high)|at most|maximum|exceed|less than|must be|reduce).{0,160}?"
    r"(max_(completion_|output_|new_)?tokens|in the completion)"
)
_WEAKER = {Schemas.STRICT: Schemas.JSON, Schemas.JSON: Schemas.TEXT}
_SCHEMA = re.compile(r"response_format|json_schema|json_object|structured.?output|invalid schema")
_SYSTEM = re.compile(
    r"system.{0,30}\brole|\brole.{0,30}system|roles? must alternate|only.{0,20}user.{0,20}assistant"
    r"|(system|developer) (message|prompt|instruction)s?.{0,60}\b(not|un)",
)
_STREAM_ONLY = re.compile(
    r"only.{0,20}stream|stream.{0,40}(required|must be|set to true|enable)|must.{0,20}stream"
)
_TOOL_ID = re.compile(r"tool.?call.?id|tool_calls\[?.{0,20}\bid\b")
_RESPONSES = re.compile(r"v1/responses|responses api")
_UNKNOWN = re.compile(
    r"unsupported|not.{0,12}(support|permit|allow|accept)|unknown|unrecogni[sz]ed|unexpected|extra"
    r"|forbidden|instead|invalid.{0,12}(param|field|arg)|incompatible|doesn't"
)
# What may be left out where a server refuses it; the answer is then a little different.
OPTIONAL = (
    *("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty"),
    *("reasoning_effort", "verbosity", "parallel_tool_calls", "logit_bias", "seed", "store"),
    *("reasoning_content", "reasoning_details", "tool_choice", "service_tier", "metadata"),
)


def lesson(
    dialect: Dialect, body: Mapping[str, Any], said: str, *, capped: bool = False
) -> Dialect | None:
    """What the server's words about this body teach; None: nothing that is new. `capped`: the
    limit of its answer is ours, and not the flow's."""
    words = said.lower()
    unknown = _UNKNOWN.search(words) is not None
    if unknown and dialect.max_tokens in body and re.search(rf"\b{dialect.max_tokens}\b", words):
        (other,) = (name for name in _NAMES if name != dialect.max_tokens)
        return replace(dialect, max_tokens=other)
    if capped and _TOO_LONG.search(words):
        asked = next((body[name] for name in _ASKED if name in body), 0)
        if asked > LEAST:
            return replace(dialect, most=max(LEAST, asked // 4))
    if "stream_options" in body and "stream_options" in words:
        return replace(dialect, stream_usage=False)
    if not body.get("stream") and _STREAM_ONLY.search(words):
        return replace(dialect, stream_only=True)
    if _bound(body) and dialect.schemas in _WEAKER and _SCHEMA.search(words):
        return replace(dialect, schemas=_WEAKER[dialect.schemas])
    if "tools" in body and dialect.api is Api.CHAT and _RESPONSES.search(words):
        return replace(dialect, api=Api.RESPONSES)
    for name in OPTIONAL if unknown else ():
        if _has(body, name) and name not in dialect.without and re.search(rf"\b{name}\b", words):
            return replace(dialect, without=dialect.without | {name})
    if dialect.system and _has_system(body) and _SYSTEM.search(words):
        return replace(dialect, system=False)
    if dialect.tool_id is None and _has_calls(body) and _TOOL_ID.search(words):
        return replace(dialect, tool_id=9)  # Mistral's rule, which fits all
    return None


def _bound(body: Mapping[str, Any]) -> bool:
    return "response_format" in body or "text" in body


def _has(body: Mapping[str, Any], name: str) -> bool:
    return name in body or any(name in message for message in _messages(body))


def _has_system(body: Mapping[str, Any]) -> bool:
    return any(message.get("role") == "system" for message in _messages(body))


def _has_calls(body: Mapping[str, Any]) -> bool:
    return any("tool_calls" in message for message in _messages(body))


def _messages(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = body.get("messages") or body.get("input") or []
    return [message for message in found if isinstance(message, Mapping)]
