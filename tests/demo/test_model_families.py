"""The offline model plays other servers: their refusals, answers and errors, over real HTTP."""

import json
from typing import Any

import httpx
import pytest

from service.demo.offline_model.families import FAMILIES
from service.demo.offline_model.model import OfflineModel

HI: Any = [{"role": "user", "content": "Turn on the kitchen light"}]
ROOM: Any = {"enum": ["kitchen", "bedroom"]}
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "set_light",
            "parameters": {
                "type": "object",
                "properties": {"room": {"type": "string", **ROOM}, "on": {"type": "boolean"}},
                "required": ["room", "on"],
            },
        },
    }
]
UNTYPED: Any = json.loads(json.dumps(TOOLS).replace('"type": "string", ', ""))
SYSTEM: Any = [{"role": "system", "content": "Be short."}, *HI]
SCHEMA: Any = {"type": "json_schema", "json_schema": {"name": "r", "schema": {"type": "object"}}}


def test_each_kind_of_server_that_is_known_can_be_played() -> None:
    providers = pytest.importorskip("service.llm.providers", reason="the table of servers")
    assert set(providers.KINDS) - {"generic"} <= set(FAMILIES)


async def post(kind: str, *, key: str = "any", **body: Any) -> httpx.Response:
    async with OfflineModel(delay=0, kind=kind) as model, httpx.AsyncClient() as http:
        return await http.post(
            f"{model.base_url}/chat/completions",
            json={"model": "offline", "messages": HI, **body},
            headers={"authorization": f"Bearer {key}"} if key else {},
        )


@pytest.mark.parametrize(
    ("kind", "body", "status", "said"),
    [
        ("openai", {"tools": TOOLS}, 400, "use /v1/responses instead"),
        ("openai", {"max_tokens": 5}, 400, "max_completion_tokens"),
        ("deepseek", {"response_format": SCHEMA}, 400, "response_format type is unavailable now"),
        ("qwen", {}, 400, "only support stream mode"),
        ("kimi", {"tools": UNTYPED}, 400, "type is not defined"),
        ("mistral", {"max_completion_tokens": 5}, 422, "extra_forbidden"),
        ("mistral", {"stream": True, "stream_options": {}}, 422, "stream_options"),
        ("lmstudio", {"response_format": {"type": "json_object"}}, 400, "must be 'json_schema'"),
        ("llamacpp", {"messages": SYSTEM}, 400, "System role not supported"),
        ("openrouter", {"messages": []}, 200, "Provider returned error"),
    ],
)
async def test_what_they_refuse(kind: str, body: dict[str, Any], status: int, said: str) -> None:
    answer = await post(kind, **body)
    assert answer.status_code == status
    assert said in answer.text


async def test_the_shapes_of_their_errors() -> None:
    shapes = {}
    for kind in ("deepseek", "gemini", "lmstudio", "vllm"):
        shapes[kind] = (await post(kind, messages=[])).json()
    assert shapes["deepseek"]["error"]["type"] == "invalid_request_error"
    assert shapes["gemini"][0]["error"]["status"] == "INVALID_ARGUMENT"
    assert "empty array" in shapes["lmstudio"]["error"]
    assert shapes["vllm"]["object"] == "error"


@pytest.mark.parametrize("kind", FAMILIES)
async def test_who_needs_a_key(kind: str) -> None:
    answer = await post(kind, key="", stream=FAMILIES[kind].stream == "always")
    refused = answer.status_code == 401 or "API key" in answer.text
    assert refused == FAMILIES[kind].needs_key


@pytest.mark.parametrize(
    ("kind", "field", "expected"),
    [
        ("deepseek", "reasoning_content", "The message is short"),
        ("groq", "reasoning", "The message is short"),
        ("lmstudio", "content", "<think>\nThe message"),
        ("llamacpp", "content", "The message is short, so the answer is short too.\n</think>"),
    ],
)
async def test_where_their_reasoning_goes(kind: str, field: str, expected: str) -> None:
    message = (await post(kind)).json()["choices"][0]["message"]
    assert message[field].startswith(expected)
    answer = await post(kind, stream=True)
    deltas = [
        json.loads(line[6:])["choices"][0]["delta"]
        for line in answer.text.splitlines()
        if line.startswith("data: {")
    ]
    assert "".join(delta.get(field) or "" for delta in deltas).startswith(expected)


async def test_content_in_parts() -> None:
    content = (await post("mistral")).json()["choices"][0]["message"]["content"]
    assert [part["type"] for part in content] == ["thinking", "text"]


ROUND: Any = {
    "deepseek": ("reasoning_content", "must be passed back"),
    "gemini": ("extra_content", "missing a thought_signature"),
}


@pytest.mark.parametrize("kind", ROUND)
async def test_what_must_come_back_with_a_result(kind: str) -> None:
    field, said = ROUND[kind]
    message = (await post(kind, tools=TOOLS)).json()["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "done"}
    whole = await post(kind, messages=[*HI, message, result], tools=TOOLS)
    assert "Done: kitchen light on" in whole.text
    message.pop(field, None)
    message["tool_calls"][0].pop(field, None)
    bare = await post(kind, messages=[*HI, message, result], tools=TOOLS)
    assert bare.status_code == 400
    assert said in bare.text


async def test_ids_of_tool_calls() -> None:
    message = (await post("mistral", tools=TOOLS)).json()["choices"][0]["message"]
    call = message["tool_calls"][0]
    assert len(call["id"]) == 9
    foreign = {**message, "tool_calls": [{**call, "id": "call_123"}]}
    result = {"role": "tool", "tool_call_id": "call_123", "content": "done"}
    answer = await post("mistral", messages=[*HI, foreign, result], tools=TOOLS)
    assert "with a length of 9" in answer.json()["message"]


async def test_streams_with_comments_and_chunks_without_choices() -> None:
    assert (await post("openrouter", stream=True)).text.startswith(": OPENROUTER PROCESSING\n\n")
    azure = (await post("azure", stream=True)).text
    assert "prompt_filter_results" in azure
    assert "content_filter_offsets" in azure


async def test_a_schema_told_in_the_instructions_is_filled() -> None:
    schema = {"type": "object", "properties": {"room": ROOM}, "required": ["room"]}
    told = f"Answer with JSON that fits this JSON Schema: {json.dumps(schema)}"
    messages = [{"role": "system", "content": told}, *HI]
    answer = await post("deepseek", messages=messages, response_format={"type": "json_object"})
    assert json.loads(answer.json()["choices"][0]["message"]["content"]) == {"room": "kitchen"}
