"""The offline model's Responses API, asked with OpenAI's own client."""

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from service.demo.offline_model.model import OfflineModel

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROOM: Any = {"type": "string", "enum": ["kitchen", "bedroom"]}
LIGHT: Any = {
    "type": "function",
    "name": "set_light",
    "description": "Switch a lamp",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"room": ROOM, "on": {"type": "boolean"}},
        "required": ["room", "on"],
        "additionalProperties": False,
    },
}
ASK: Any = {"model": "gpt-5.6", "store": False, "include": ["reasoning.encrypted_content"]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[AsyncOpenAI]:
    async with (
        OfflineModel(delay=0) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client,
    ):
        yield client


async def test_a_text_with_instructions_and_memory(client: AsyncOpenAI) -> None:
    talk: Any = [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": [{"type": "input_text", "text": "What is my name?"}]},
    ]
    answer = await client.responses.create(input=talk, instructions="Be short.", **ASK)
    assert answer.output_text == "(offline model) Your name is Ada. I remember 2 earlier messages."
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    assert answer.usage is not None
    assert answer.usage.input_tokens == 13
    assert answer.usage.total_tokens == 13 + answer.usage.output_tokens


async def test_a_tool_loop_gives_reasoning_back(client: AsyncOpenAI) -> None:
    talk: list[Any] = [{"role": "user", "content": "Turn on the light in kitchen and bedroom"}]
    first = await client.responses.create(input=talk, tools=[LIGHT], **ASK)
    calls = [item for item in first.output if item.type == "function_call"]
    assert [json.loads(call.arguments)["room"] for call in calls] == ["kitchen", "bedroom"]
    back = [item.model_dump(exclude_none=True) for item in first.output]
    results = [
        {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
        for call in calls
    ]
    last = await client.responses.create(input=[*talk, *back, *results], tools=[LIGHT], **ASK)
    assert last.output_text == "(offline model) Done: kitchen light on; bedroom light on."

    without = [item for item in back if item["type"] != "reasoning"]
    with pytest.raises(openai.BadRequestError, match="without its required 'reasoning' item"):
        await client.responses.create(input=[*talk, *without, *results], tools=[LIGHT], **ASK)
    bare = [{key: item[key] for key in item if key != "encrypted_content"} for item in back]
    with pytest.raises(openai.NotFoundError, match="not persisted"):
        await client.responses.create(input=[*talk, *bare, *results], tools=[LIGHT], **ASK)
    with pytest.raises(openai.BadRequestError, match="No tool output found"):
        await client.responses.create(input=[*talk, *back], tools=[LIGHT], **ASK)


@pytest.mark.parametrize("text", ["Tell me about the sea", "turn on the kitchen light"])
async def test_a_stream_ends_with_the_whole(client: AsyncOpenAI, text: str) -> None:
    whole = await client.responses.create(input=text, tools=[LIGHT], **ASK)
    said, arguments = "", ""
    async with client.responses.stream(input=text, tools=[LIGHT], **ASK) as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                said += event.delta
            elif event.type == "response.function_call_arguments.delta":
                arguments += event.delta
        last = await stream.get_final_response()
    assert last.output_text == whole.output_text == said
    assert "".join(getattr(item, "arguments", "") for item in last.output) == arguments
    assert (said == "") != (arguments == "")


async def test_json_by_a_strict_schema(client: AsyncOpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"room": ROOM, "temperature": {"type": "number"}},
        "required": ["room", "temperature"],
        "additionalProperties": False,
    }
    form: Any = {"format": {"type": "json_schema", "name": "reading", "schema": schema}}
    answer = await client.responses.create(input="21.5 °C in the bedroom", text=form, **ASK)
    assert json.loads(answer.output_text) == {"room": "bedroom", "temperature": 21.5}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"temperature": 9}, "above maximum value"),
        ({"max_tokens": 5}, "Unknown parameter: 'max_tokens'"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"tools": [{**LIGHT, "name": "set light"}]}, "does not match pattern"),
        ({"tools": [{**LIGHT, "parameters": {"type": "object", "properties": {"a": {}}}}]},
         "additionalProperties"),
        ({"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, "input_text"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
         "No tool call found"),
    ],
)  # fmt: skip
async def test_what_openai_refuses(client: AsyncOpenAI, wrong: dict[str, Any], said: str) -> None:
    body = {"input": "hi", **wrong}
    with pytest.raises(openai.BadRequestError, match=said):
        await client.responses.create(model="offline", extra_body=body)
