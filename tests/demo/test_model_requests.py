"""What the offline model makes of pictures, and of requests that are wrong."""

import base64
import struct
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from service.demo.offline_model.model import OfflineModel

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[OfflineModel]:
    async with OfflineModel(delay=0) as model:
        yield model


def png(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + head + bytes(4)


@pytest.mark.parametrize(
    ("kind", "data", "size"),
    [
        ("image/png", png(640, 480), ", 640×480 pixels"),
        ("image/webp", b"RIFF....WEBP", ""),
        ("image/jpeg", b"\xff\xd8\xff", ""),
    ],
)
async def test_a_picture_is_described(
    server: OfflineModel, kind: str, data: bytes, size: str
) -> None:
    url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    parts: Any = [
        {"type": "text", "text": "What is on this snapshot?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        answer = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": parts}]
        )
    text = answer.choices[0].message.content or ""
    assert f"I got a picture, but I can't see: {kind}, {len(data)} bytes{size}." in text
    assert "What is on this snapshot?" in text


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"{no json", 400, None, None),
        (b"[]", 400, None, None),
        (b'{"messages": []}', 400, None, "model"),
        (b'{"model": "m"}', 400, "missing_required_parameter", "messages"),
        (b'{"model": "m", "messages": "hi"}', 400, "invalid_type", "messages"),
        (b'{"model": "m", "messages": []}', 400, "empty_array", "messages"),
        (b'{"model": "m", "messages": [1]}', 400, "invalid_type", "messages[0]"),
        (b'{"model": "m", "messages": [{"role": "me", "content": ""}]}', 400, "invalid_value",
         "messages[0].role"),
        (b'{"model": "m", "messages": [{"role": "user"}]}', 400, "invalid_type",
         "messages[0].content"),
        (b'{"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url",'
         b' "image_url": {"url": "data:image/png;base64,!"}}]}]}', 400, "invalid_image_url",
         "messages[0].content[0]"),
        (b'{"model": "m", "messages": [{"role": "tool", "content": "", "tool_call_id": "1"}]}',
         400, None, "messages[0].role"),
        (b'{"model": "gpt-3.5-turbo-16k", "messages": [{"role": "user", "content": "hi"}]}',
         404, "model_not_found", "model"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 9}', 400,
         "decimal_above_max_value", "temperature"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 0}', 400,
         "integer_below_min_value", "max_tokens"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "colour": 1}', 400,
         "unknown_parameter", "colour"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "response_format":'
         b' {"type": "json_schema", "json_schema": {"schema": {}}}}', 400,
         "missing_required_parameter", "response_format.json_schema.name"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "response_format":'
         b' {"type": "json_schema", "json_schema": {"name": "my form", "schema": {}}}}', 400,
         "invalid_value", "response_format.json_schema.name"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "response_format":'
         b' {"type": "json_schema", "json_schema": {"name": "r", "strict": true, "schema":'
         b' {"type": "object", "properties": {"a": {"type": "string"}}}}}}', 400, None,
         "response_format"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools":'
         b' [{"type": "function", "function": {"name": "set light"}}]}', 400,
         "invalid_value", "tools[0].function.name"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools":'
         b' [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]}',
         400, "invalid_function_parameters", "tools[0].function.parameters"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "hi"}],'
         b' "response_format": {"type": "json_object"}}', 400, None, "messages"),
    ],
)  # fmt: skip
async def test_bad_requests_get_openai_errors(
    server: OfflineModel, body: bytes, status: int, code: str | None, param: str | None
) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.post(
            f"{server.base_url}/chat/completions",
            content=body,
            headers={"authorization": "Bearer any"},
        )
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)


@pytest.mark.parametrize("key", [None, "Bearer", "Basic x", "Bearer none"])
async def test_without_a_key_nothing_is_answered(server: OfflineModel, key: str | None) -> None:
    headers = {} if key is None else {"authorization": key}
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    async with httpx.AsyncClient(headers=headers) as http:
        answers = [
            await http.post(f"{server.base_url}/chat/completions", json=body),
            await http.get(f"{server.base_url}/models"),
        ]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert "API key" in answers[0].json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/responses", 405),
        ("GET", "/v1/chat/completions", 405),
    ],
)
async def test_unknown_calls_get_the_same_shape(
    server: OfflineModel, method: str, path: str, status: int
) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.request(method, f"http://127.0.0.1:{server.port}{path}")
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
