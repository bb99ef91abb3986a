"""A flow with tools, one with a schema and one that streams, against each kind of server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.llm.providers import GENERIC, SERVERS, Schemas, ServerKind
from tests.fakes.model import Step
from tests.fakes.model_raw import item, raw, responded, said
from tests.rig import Rig, rig

FLOWS = """
[providers.it]
base_url = "{url}"
kind = "{kind}"

[defaults]
model = "it/{model}"
system = "Be short."
max_tokens = 50

[flows.tools]
request = "tools/${{user}}"
reply = "tools/${{user}}/reply"
[[flows.tools.tools]]
name = "set_light"
description = "Switch a lamp"
topic = "devices/${{room}}/set"
payload = "${{on}}"
[flows.tools.tools.parameters]
required = ["room", "on"]
properties.room = {{ enum = ["kitchen", "bedroom"] }}
properties.on = {{ type = "boolean" }}

[flows.schema]
request = "schema/${{user}}"
reply = "schema/${{user}}/reply"
[flows.schema.schema]
type = "object"
required = ["value"]
properties.value = {{ type = "number" }}

[flows.stream]
request = "stream/${{user}}"
reply = "stream/${{user}}/reply"
stream = "stream/${{user}}/deltas"
"""
ARGUMENTS = '{"room":"kitchen","on":true}'
CALL = {
    "id": "call_PTLP8xhu3uwZk4l3nlnrrJha",
    "type": "function",
    "function": {"name": "set_light", "arguments": ARGUMENTS},
}


class Played:
    """A server of this kind, as strict as it is; `refused` says what it did not take."""

    def __init__(self, server: ServerKind, model: str) -> None:
        self.server = server
        self.model = model
        self.refused: list[str] = []

    def __call__(self, body: dict[str, Any]) -> Step:
        fault = self.fault(body)
        if fault is not None:
            self.refused.append(fault)
            return raw(400, {"error": {"message": fault, "type": "invalid_request_error"}})
        return self.responses(body) if "input" in body else self.chat(body)

    def fault(self, body: dict[str, Any]) -> str | None:
        dialect, kind = self.server.dialect, self.server.kind
        other = {"max_tokens", "max_completion_tokens"} - {dialect.max_tokens}
        if name := next((name for name in other if name in body), None):
            return f"Unsupported parameter: '{name}'. Use '{dialect.max_tokens}' instead."
        bound = (body.get("response_format") or {}).get("type")
        if bound == "json_schema" and dialect.schemas is not Schemas.STRICT:
            return "This response_format type is unavailable now"
        if bound and dialect.schemas is Schemas.TEXT:
            return "response_format is not supported"
        if not dialect.stream_usage and "stream_options" in body:
            return "Extra inputs are not permitted: stream_options"
        messages = body.get("messages") or []
        ids = [call["id"] for one in messages for call in one.get("tool_calls") or ()]
        if dialect.tool_id and any(len(id) != dialect.tool_id for id in ids):
            return "Tool call id must be a-z, A-Z, 0-9, with a length of 9."
        rounds = [one for one in messages if one.get("tool_calls")]
        if kind in ("deepseek", "kimi") and any("reasoning_content" not in one for one in rounds):
            return "The `reasoning_content` in the thinking mode must be passed back."
        if kind == "gemini" and any("extra_content" not in one["tool_calls"][0] for one in rounds):
            return "Function call is missing a thought_signature"
        tools = body.get("tools") or []
        if self.server.responses_for and tools and messages:
            return "Function tools are not supported in /v1/chat/completions. Use /v1/responses."
        for tool in tools:
            schema = tool.get("function", tool)["parameters"]
            if "type" not in schema["properties"]["room"]:
                return "At path 'properties.room': type is not defined"
        return None

    def chat(self, body: dict[str, Any]) -> Step:
        last = body["messages"][-1]
        if last["role"] == "tool":
            return said(body, "The kitchen light is on.")
        if body.get("tools"):
            call = {**CALL, "extra_content": {"google": {"thought_signature": "c2ln"}}}
            return said(body, None, reasoning_content="So set_light.", tool_calls=[call])
        asks_json = "response_format" in body or "JSON Schema" in str(body["messages"][0])
        return said(body, '{"value": 18}' if asks_json else "Hello Ann.")

    def responses(self, body: dict[str, Any]) -> Step:
        last = body["input"][-1]
        if last.get("type") == "function_call_output":
            kept = [one for one in body["input"] if one.get("type") == "reasoning"]
            assert kept[0]["encrypted_content"] == "secret"
            return responded(body, item("The kitchen light is on."))
        if not body.get("tools"):
            return responded(body, item('{"value": 18}' if "text" in body else "Hello Ann."))
        reasoning = {"type": "reasoning", "summary": [], "encrypted_content": "secret"}
        call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "set_light"}
        return responded(body, reasoning, {**call, "arguments": ARGUMENTS})


async def answers(house: Rig) -> list[list[str]]:
    for flow in ("tools", "schema", "stream"):
        body = {"id": flow, "topic": f"{flow}/ann", "payload": "hello", "qos": 1}
        assert (await house.webhook(body)).status_code == 202
    await house.ended(3)
    seen = [[one.topic, one.payload.decode()] for one in house.broker.mqtt.published]
    return sorted(one for one in seen if not one[0].endswith("deltas"))


RIGHT = [
    ["devices/kitchen/set", "true"],
    ["schema/ann/reply", '{"value":18}'],
    ["stream/ann/reply", "Hello Ann."],
    ["tools/ann/reply", "The kitchen light is on."],
]


def model_of(server: ServerKind) -> str:
    return "gpt-5.6" if server.responses_for else "m"


async def played(
    server: ServerKind, kind: str, tmp_path: Path, see: Callable[[Played], None]
) -> None:
    database = f"sqlite:///{tmp_path / 'test.db'}"
    model = model_of(server)
    async with rig(database, flows='[flows.x]\nrequest = "x"') as first:
        url = first.model.base_url
        flows = FLOWS.format(url=url, kind=kind, model=model)
        server_side = Played(server, model)
        first.model.behave(server_side)
        async with rig(f"{database}2", flows=flows) as house:
            assert await answers(house) == RIGHT
        see(server_side)


@pytest.mark.parametrize("server", [*SERVERS, GENERIC], ids=lambda server: server.kind)
async def test_a_known_server_is_asked_as_it_wants_it(server: ServerKind, tmp_path: Path) -> None:
    def see(side: Played) -> None:
        assert side.refused == []

    await played(server, server.kind, tmp_path, see)


@pytest.mark.parametrize("kind", ["openai", "deepseek", "mistral", "minimax", "groq"])
async def test_an_unknown_one_is_learned(kind: str, tmp_path: Path) -> None:
    """The same servers, where nobody said what they are."""
    (server,) = (one for one in SERVERS if one.kind == kind)

    def see(side: Played) -> None:
        assert 0 < len(side.refused) <= 3 * len(set(side.refused))  # three flows at once

    await played(server, "generic", tmp_path, see)
