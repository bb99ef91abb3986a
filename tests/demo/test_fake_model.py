"""The scripted model that other tests rely on does what each step says, over real HTTP."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.fakes.model import (
    FakeModel,
    Step,
    cut,
    delay,
    empty,
    filtered,
    garbage,
    gate,
    hang,
    length,
    ok,
    page,
    refusal,
    reset,
    status,
    stream_then_cut,
    stream_then_error,
    tool_calls,
    wrong_shape,
)

ROOT = Path(__file__).parents[2]


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FakeModel]:
    async with FakeModel() as model:
        yield model


@pytest_asyncio.fixture
async def client(fake: FakeModel) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=fake.base_url, api_key="key-1", max_retries=0) as client:
        yield client


async def ask(client: AsyncOpenAI, text: str = "hi", **more: Any) -> Any:
    messages: Any = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": text}]
    return await client.chat.completions.create(model="m", messages=messages, **more)


async def streamed(client: AsyncOpenAI, text: str = "hi") -> list[Any]:
    stream = await ask(client, text, stream=True, stream_options={"include_usage": True})
    return [chunk async for chunk in stream]


async def test_it_echoes_at_once_and_records(fake: FakeModel, client: AsyncOpenAI) -> None:
    answer = await ask(client, "hello")
    assert answer.choices[0].message.content == "echo: hello"
    assert answer.usage.prompt_tokens > 0
    (call,) = fake.calls
    assert (call.text, call.model, call.key, call.outcome) == ("hello", "m", "key-1", "echo")
    assert call.messages[0]["content"] == "Be kind."
    assert call.ended is not None
    assert call.ended - call.started < 1
    assert not call.gone


async def test_a_script_comes_first_then_the_behaviour_then_the_echo(
    fake: FakeModel, client: AsyncOpenAI
) -> None:
    fake.script("one", ok("two", usage=(10, 20)))
    fake.behave(lambda body: f"behaved: {body['model']}")
    answers = [await ask(client) for _ in range(3)]
    texts = [answer.choices[0].message.content for answer in answers]
    assert texts == ["one", "two", "behaved: m"]
    assert answers[1].usage.total_tokens == 30
    fake.behave(None)
    fake.script(ok("x", usage=False))
    assert (await ask(client)).usage is None
    assert (await ask(client, "e")).choices[0].message.content == "echo: e"


@pytest.mark.parametrize(
    ("step", "error", "code"),
    [
        (status(400), openai.BadRequestError, None),
        (status(400, "context_length_exceeded"), openai.BadRequestError, "context_length_exceeded"),
        (status(401), openai.AuthenticationError, "invalid_api_key"),
        (status(404), openai.NotFoundError, "model_not_found"),
        (status(429, retry_after=1), openai.RateLimitError, "rate_limit_exceeded"),
        (status(429, "insufficient_quota"), openai.RateLimitError, "insufficient_quota"),
        (status(500), openai.InternalServerError, "server_error"),
        (status(503), openai.InternalServerError, None),
        (page(502), openai.InternalServerError, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors(
    fake: FakeModel,
    client: AsyncOpenAI,
    step: Step,
    error: type[openai.APIStatusError],
    code: str | None,
    stream: bool,
) -> None:
    fake.script(step)
    with pytest.raises(error) as caught:
        await ask(client, stream=stream)
    assert caught.value.code == code
    if isinstance(caught.value, openai.RateLimitError) and code == "rate_limit_exceeded":
        assert caught.value.response.headers["retry-after"] == "1"


@pytest.mark.parametrize("step", [cut(), reset()])
async def test_broken_wires(fake: FakeModel, client: AsyncOpenAI, step: Step) -> None:
    fake.script(step)
    with pytest.raises(openai.APIConnectionError):
        await ask(client)
    assert (await ask(client)).choices[0].message.content == "echo: hi"
    assert fake.in_flight == 0


async def test_broken_bodies(fake: FakeModel, client: AsyncOpenAI) -> None:
    fake.script(garbage(), wrong_shape())
    with pytest.raises((json.JSONDecodeError, openai.APIError)):
        await ask(client)
    assert (await ask(client)).choices is None


@pytest.mark.parametrize(
    ("step", "text", "finish"),
    [
        (ok("two words"), "two words", "stop"),
        (empty(), "", "stop"),
        (length("cut he"), "cut he", "length"),
        (filtered("so"), "so", "content_filter"),
    ],
)
async def test_texts_plain_and_streamed(
    fake: FakeModel, client: AsyncOpenAI, step: Step, text: str, finish: str
) -> None:
    fake.script(step, step)
    answer = await ask(client)
    assert answer.choices[0].message.content == text
    assert answer.choices[0].finish_reason == finish
    chunks = await streamed(client)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
    assert chunks[-2].choices[0].finish_reason == finish
    assert chunks[-1].usage == answer.usage


async def test_refusals_and_tool_calls(fake: FakeModel, client: AsyncOpenAI) -> None:
    calls = tool_calls([("set_light", {"on": True}), ("broken", '{"on": ')])
    fake.script(refusal("I can't"), calls, calls)
    message = (await ask(client)).choices[0].message
    assert (message.content, message.refusal) == (None, "I can't")
    made = (await ask(client)).choices[0].message.tool_calls
    expected = [("set_light", '{"on":true}'), ("broken", '{"on": ')]
    assert [(call.function.name, call.function.arguments) for call in made] == expected
    pieces: dict[int, str] = {}
    for chunk in (await streamed(client))[:-1]:
        for call in chunk.choices[0].delta.tool_calls or []:
            pieces[call.index] = pieces.get(call.index, "") + call.function.arguments
    assert list(pieces.values()) == [arguments for _, arguments in expected]


async def test_streams_that_break(fake: FakeModel, client: AsyncOpenAI) -> None:
    fake.script(stream_then_cut("a b c d", after=2), stream_then_error("a b c d", after=3))
    for words, error in [(2, openai.APIConnectionError), (3, openai.APIError)]:
        stream = aiter(await ask(client, stream=True))
        heard = [(await anext(stream)).choices[0].delta.content for _ in range(words + 1)]
        assert heard == ["", "a ", "b ", "c "][: words + 1]
        with pytest.raises(error):
            await anext(stream)
    fake.script(stream_then_cut("a b", after=1))
    with pytest.raises(openai.APIConnectionError):
        await ask(client)


async def test_delay_gate_and_hang(fake: FakeModel, client: AsyncOpenAI) -> None:
    held = gate(ok("through"))
    fake.script(delay(0.05, ok("late")), held, hang())
    assert (await ask(client)).choices[0].message.content == "late"
    assert fake.calls[0].ended is not None
    assert fake.calls[0].ended - fake.calls[0].started >= 0.045
    first = asyncio.create_task(ask(client, "1"))
    await held.reached.wait()
    second = asyncio.create_task(ask(client, "2"))
    await fake.wait_for_calls(3)
    assert (fake.in_flight, fake.peak) == (2, 2)
    held.release()
    assert (await first).choices[0].message.content == "through"
    assert not second.done()
    fake.release()
    assert (await second).choices[0].message.content == "echo: 2"


@pytest.mark.parametrize("step", [hang(), gate(), delay(30), ok("a b c", pace=30)])
async def test_a_client_that_goes_is_noticed(
    fake: FakeModel, client: AsyncOpenAI, step: Step
) -> None:
    fake.script(step)
    task = asyncio.create_task(streamed(client))
    await fake.wait_for_calls(1)
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await fake.wait_idle()
    assert fake.calls[0].gone


async def test_keys_and_models(fake: FakeModel, client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == list(fake.models)
    assert (await client.models.retrieve("gpt-5.4")).id == "gpt-5.4"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("gpt-3.5-turbo")
    assert fake.lookups == 3
    fake.keys = {"key-2"}
    with pytest.raises(openai.AuthenticationError):
        await ask(client)
    with pytest.raises(openai.AuthenticationError):
        await client.models.list()
    assert fake.calls[-1].outcome == "401 invalid_api_key"


async def test_stop_resets_what_hangs_and_start_takes_the_same_port() -> None:
    before = asyncio.all_tasks()
    fake = FakeModel()
    await fake.start()
    fake.script(hang())
    async with AsyncOpenAI(base_url=fake.base_url, api_key="k", max_retries=0) as client:
        task = asyncio.create_task(ask(client))
        await fake.wait_for_calls(1)
        await fake.stop()
        with pytest.raises(openai.APIConnectionError):
            await task
        with pytest.raises(openai.APIConnectionError):
            await ask(client)
        await fake.start()
        assert (await ask(client)).choices[0].message.content == "echo: hi"
    await fake.stop()
    assert asyncio.all_tasks() == before


async def chaos_run(folder: Path, seed: str) -> list[dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fakes.model", "--mode", "chaos", "--seed", seed,
        "--fault-rate", "0.5", "--slow", "0.01", "--log", str(folder / "log"),
        "--port-file", str(folder / "port"),
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().split()[-1]
    assert (folder / "port").read_text() in url
    async with AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as client:
        asked = (ask(client, f"question {at % 20}") for at in range(60))
        answers = await asyncio.gather(*asked, return_exceptions=True)
    process.terminate()
    await process.communicate()
    lines = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
    good = sum(line["outcome"] in ("echo", "slow") for line in lines)
    assert sum(not isinstance(each, BaseException) for each in answers) == good
    return lines


async def test_chaos_is_seeded_and_logs_each_call(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    runs = [await chaos_run(tmp_path_factory.mktemp("chaos"), "1") for _ in range(2)]
    assert len(runs[0]) == 60
    assert {line["messages"] for line in runs[0]} == {2}
    drawn = [sorted((line["text"], line["outcome"]) for line in run) for run in runs]
    assert drawn[0] == drawn[1]
    assert {"echo", "429 now", "cut"} <= {line["outcome"] for line in runs[0]}
