"""The offline model, asked over real HTTP with the client that the service uses."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from service.demo.offline_model.model import OfflineModel

ROOT = Path(__file__).parents[2]
MODEL = "offline"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[OfflineModel]:
    async with OfflineModel(delay=0) as model:
        yield model


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server: OfflineModel) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        yield client


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


async def said(client: AsyncOpenAI, *messages: Any, **more: Any) -> str:
    answer = await client.chat.completions.create(model=MODEL, messages=[*messages], **more)
    return answer.choices[0].message.content or ""


async def test_a_plain_answer_has_all_that_a_client_reads(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="any/name", messages=[user("How high is Mount Everest?")], n=3, temperature=2
    )
    assert answer.model == "any/name"
    assert answer.choices[0].finish_reason == "stop"
    assert len(answer.choices) == 1
    text = answer.choices[0].message.content
    assert text is not None
    assert text.startswith("(offline model) ")
    assert "How high is Mount Everest?" in text
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 7
    assert answer.usage.completion_tokens == -(-len(text) // 4)


async def test_the_same_request_gets_the_same_text_under_a_new_id(client: AsyncOpenAI) -> None:
    answers = [
        await client.chat.completions.create(model=MODEL, messages=[user("hello")])
        for _ in range(2)
    ]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content
    assert answers[0].id != answers[1].id


@pytest.mark.parametrize("text", ["Tell me about the sea", "给我讲讲大海"])
async def test_a_stream_says_the_same_word_by_word(client: AsyncOpenAI, text: str) -> None:
    whole = await said(client, user(text))
    stream = await client.chat.completions.create(
        model=MODEL, messages=[user(text)], stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    deltas = [c.choices[0].delta.content for c in chunks[1:-2]]
    assert "".join(filter(None, deltas)) == whole
    assert len(deltas) > 8
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == -(-len(whole) // 4)


async def test_a_stream_ends_with_done_and_tells_no_usage_unasked(server: OfflineModel) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.post(
            f"{server.base_url}/chat/completions",
            json={"model": MODEL, "messages": [user("hi")], "stream": True},
            headers={"authorization": "Bearer any"},
        )
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")
    assert '"usage"' not in answer.text


async def test_it_counts_what_was_said_before(client: AsyncOpenAI) -> None:
    system = {"role": "system", "content": "You are a helpful assistant."}
    assert "first message" in await said(client, system, user("one"))
    assert "1 earlier message." in await said(client, system, user("one"), user("two"))
    talk = [user("one"), assistant("1"), user("two"), assistant("2"), user("three")]
    assert "4 earlier messages" in await said(client, system, *talk)
    talk = [user("一"), assistant("好"), user("你还记得吗")]
    answer = await said(client, *talk)
    assert answer.startswith("（离线模型）")
    assert "2条消息" in answer


@pytest.mark.parametrize(
    ("told", "asked", "expected"),
    [
        ("My name is Ada", "What is my name?", "Your name is Ada."),
        ("my name's ada and I live here", "what's my name", "Your name is ada."),
        ("Hi, I am Ada Lovelace.", "Who am I?", "Your name is Ada Lovelace."),
        ("I'm José", "Do you remember my name?", "Your name is José."),
        ("call me Ada, please", "what is my name?", "Your name is Ada."),
        ("I am hungry. Call me later", "What is my name?", "not told me"),
        ("I AM ANGRY", "What is my name?", "not told me"),
        ("我叫小明", "我叫什么？", "你叫小明。"),
        ("你好，我是小明。", "我叫什么名字", "你叫小明。"),
        ("叫我小明吧", "你记得我的名字吗？", "你叫小明。"),
        ("我的名字是Ada", "我是谁？", "你叫Ada。"),
        ("我是学生", "我叫什么", "没有告诉我"),
        ("我叫小明", "What is my name?", "Your name is 小明."),
        ("Hallo, ich heiße Jürgen.", "Wie heiße ich?", "Du heißt Jürgen."),
        ("Ich bin müde", "Wer bin ich?", "noch nicht gesagt"),
    ],
)
async def test_it_remembers_the_name(
    client: AsyncOpenAI, told: str, asked: str, expected: str
) -> None:
    assert expected in await said(client, user(told), assistant("ok"), user(asked))


async def test_the_last_name_told_holds(client: AsyncOpenAI) -> None:
    talk = [user("I am Ada"), assistant("Hello, I am Bob"), user("Call me Eve")]
    assert "Your name is Eve." in await said(client, *talk, user("What is my name?"))
    assert "Nice to meet you, Eve!" in await said(client, *talk)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (
            "Sensor boiler reads 41.5 °C; its limit is 40 °C.",
            "(offline model) Attention please: sensor boiler reads 41.5 °C, "
            "1.5 °C over its limit of 40 °C, so please check it now!",
        ),
        (
            "Sensor boiler reads 39 °C; its limit is 40 °C.",
            "(offline model) Sensor boiler reads 39 °C, which is within its limit of 40 °C.",
        ),
        (
            "传感器锅炉读数41 °C，上限40 °C。",
            "（离线模型）请注意：传感器锅炉读数41 °C，超过上限40 °C，请马上检查！",
        ),
    ],
)
async def test_a_sensor_becomes_one_spoken_sentence(
    client: AsyncOpenAI, prompt: str, expected: str
) -> None:
    assert await said(client, user(prompt)) == expected


async def test_a_story_is_long_enough_to_be_streamed(client: AsyncOpenAI) -> None:
    story = await said(client, user("Tell a short bedtime story about: a robot."))
    assert "today it is about a robot." in story
    assert len(story.split()) > 60
    assert "主角是灯塔" in await said(client, user("讲一个关于灯塔的故事"))


async def test_a_huge_text_is_quoted_in_short(client: AsyncOpenAI) -> None:
    async with asyncio.timeout(30):
        answer = await said(client, user("\x01 sensor and then " * 60_000))
    assert len(answer) < 400


async def test_models(client: AsyncOpenAI) -> None:
    offered = [model.id async for model in client.models.list()]
    assert offered == [MODEL]
    assert (await client.models.retrieve("llama/any")).id == "llama/any"
    with pytest.raises(openai.NotFoundError) as gone:
        await client.models.retrieve("gpt-3.5-turbo")
    assert gone.value.code == "model_not_found"


async def test_a_shut_down_model_answers_as_openai_does(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="deprecated") as gone:
        await client.chat.completions.create(model="gpt-3.5-turbo", messages=[user("hi")])
    assert gone.value.code == "model_not_found"


async def test_json_is_wanted(client: AsyncOpenAI) -> None:
    answer = await said(client, user("hello in JSON"), response_format={"type": "json_object"})
    assert json.loads(answer)["understood"] == "hello in JSON"
    schema = {
        "type": "object",
        "properties": {"room": {"enum": ["kitchen", "hall"]}, "temperature": {"type": "number"}},
        "required": ["room", "temperature"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "r", "schema": schema, "strict": True}}
    answer = await said(client, user("it's 21.5 degrees in the hall"), response_format=form)
    jsonschema_rs.validate(schema, json.loads(answer))
    assert json.loads(answer) == {"room": "hall", "temperature": 21.5}


async def test_it_starts_and_stops_without_leaving_anything() -> None:
    before = asyncio.all_tasks()
    model = OfflineModel(delay=10)
    await model.stop()
    await model.start()
    with pytest.raises(OSError, match="in use"):
        await OfflineModel(model.port).start()
    async with AsyncOpenAI(base_url=model.base_url, api_key="any", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=[user("hi")], stream=True
        )
        chunks = aiter(stream)
        await anext(chunks)
        async with asyncio.timeout(8):
            await model.stop()
        rest = [chunk async for chunk in chunks]  # a stream under way is finished in a hurry
        assert rest[-1].choices[0].finish_reason == "stop"
    assert asyncio.all_tasks() == before
    async with OfflineModel(model.port):  # the port is free again
        pass


async def test_as_a_process(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-m", "service.demo.offline_model.model",
        "--port-file", str(port_file), "--delay", "0",
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    url = line.split()[-1]
    assert re.search(r":(\d+)/v1$", url)[1] == port_file.read_text()  # type: ignore[index]
    async with AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
        assert "hello" in await said(client, user("hello"))
    process.send_signal(signal.SIGINT)
    _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
