"""`emqx-gpt mcp`: flows as tools for a real MCP client, by stdin and over HTTP."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from tests.fakes.model import ok, status
from tests.process import free_port
from tests.rig import OPERATOR, ROOT, command, environment, eventually, rig

FLOWS = """
[flows.cook]
description = "Answers questions on recipes"
request = "cook/${user}/ask"
reply = "cook/${user}/say"
history = { messages = 4 }

[flows.meter]
request = "meter/ask"
reply = "meter/say"
input = "json"
prompt = "Reading ${payload.value}"
[[flows.meter.tools]]
name = "horn"
description = "Sound the horn"
topic = "horn/set"

[flows.camera]
request = "camera/ask"
reply = "camera/say"
input = "image"
prompt = "What is there?"
"""


@contextlib.asynccontextmanager
async def by_stdio(url: str, folder: Any, token: str = OPERATOR) -> AsyncIterator[Client]:
    program, *arguments = command("mcp", "--url", url)
    server = StdioServerParameters(
        command=program, args=arguments, env=environment(OPERATOR_TOKEN=token), cwd=folder
    )
    async with Client(server) as client:
        yield client


@contextlib.asynccontextmanager
async def serving(url: str, folder: Any, **env: str) -> AsyncIterator[str]:
    port = free_port()
    given = environment(OPERATOR_TOKEN=OPERATOR, **env)
    process = subprocess.Popen(
        command("mcp", "--url", url, "--http", str(port)), cwd=folder, env=given
    )

    async def up() -> bool:
        assert process.poll() is None
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient() as http:
                return (await http.get(f"http://127.0.0.1:{port}/mcp")).status_code == 401
        return False

    try:
        await eventually(up)
        yield f"http://127.0.0.1:{port}/mcp"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()


@contextlib.asynccontextmanager
async def by_http(url: str, token: str, mode: str = "auto") -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


def text_of(result: Any) -> str:
    (block,) = result.content
    return str(block.text)


async def test_flows_are_tools_of_a_client_on_stdin(database, tmp_path):
    async with rig(database, flows=FLOWS) as house, by_stdio(house.url, tmp_path) as client:
        listed = (await client.list_tools()).tools
        assert [tool.name for tool in listed] == ["cook", "meter"]
        cook, meter = listed
        assert cook.description == "Answers questions on recipes"
        assert meter.description == "Ask the flow meter of emqx-gpt."
        assert cook.input_schema["properties"].keys() == {"text", "conversation"}
        assert meter.input_schema["properties"].keys() == {"text"}
        assert (cook.annotations.read_only_hint, meter.annotations.read_only_hint) == (True, False)

        house.model.script(ok("Boil it."), ok("Seven minutes."), ok("Noted."))
        first = await client.call_tool("cook", {"text": "an egg?"})
        assert (text_of(first), first.is_error) == ("Boil it.", False)
        conversation = first.structured_content["conversation"]
        again = {"text": "how long?", "conversation": conversation}
        assert text_of(await client.call_tool("cook", again)) == "Seven minutes."
        said = [one["content"] for one in house.model.calls[1].messages]
        assert said == ["an egg?", "Boil it.", "how long?"]
        await client.call_tool("meter", {"text": '{"value": 7}'})
        assert house.model.texts[2] == "Reading 7"
        ended = await house.ended(3)
        assert {one["state"] for one in ended} == {"done"}
        assert first.structured_content["id"] == ended[-1]["id"]


async def test_what_goes_wrong_is_told_as_the_tools_error(database, tmp_path):
    async with rig(database, flows=FLOWS) as house, by_stdio(house.url, tmp_path) as client:
        house.model.script(status(400))
        failed = await client.call_tool("cook", {"text": "an egg?"})
        assert failed.is_error
        assert "(model_refused)" in text_of(failed)
        for name, arguments, said in (
            ("cook", {}, '"text" is missing'),
            ("cook", {"text": 7}, '"text" is missing'),
            ("cook", {"text": "x", "conversation": 7}, '"conversation" is a string'),
            ("nobody", {"text": "x"}, "no flow 'nobody'; there are: cook, meter, camera"),
            ("../flows/cook/pause", {"text": "x"}, "there is no flow '../flows/cook/pause'"),
        ):
            result = await client.call_tool(name, arguments)
            assert result.is_error
            assert said in text_of(result)
        assert (await house.http.get("/paused")).json()["paused"] == []


async def test_a_wrong_token_and_a_service_that_is_away_are_told(database, tmp_path):
    async with rig(database, flows=FLOWS) as house, by_stdio(house.url, tmp_path, "wrong") as one:
        with pytest.raises(MCPError, match="OPERATOR_TOKEN stands in the .env of the service"):
            await one.list_tools()
    async with by_stdio(f"http://127.0.0.1:{free_port()}", tmp_path) as one:
        with pytest.raises(MCPError, match=r"start the service \(emqx-gpt serve\)"):
            await one.list_tools()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_flows_are_tools_over_http_for_who_has_the_token(database, tmp_path, mode):
    async with (
        rig(database, flows=FLOWS) as house,
        serving(house.url, tmp_path, MCP_TOKEN="a-token-for-clients") as url,
    ):
        async with by_http(url, "a-token-for-clients", mode) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == ["cook", "meter"]
            house.model.script(ok("Boil it."))
            result = await client.call_tool("cook", {"text": "an egg?"})
            assert text_of(result) == "Boil it."
        for token in ("wrong", OPERATOR):
            with pytest.raises((MCPError, ExceptionGroup)):
                async with by_http(url, token, mode) as client:
                    await client.list_tools()
        # A page in a browser that found a name for this machine.
        strange = {"host": "evil.example", "authorization": "Bearer a-token-for-clients"}
        async with httpx.AsyncClient() as http:
            assert (await http.post(url, headers=strange, json={})).status_code == 421


async def test_without_a_token_of_its_own_the_operators_is_asked_for(database, tmp_path):
    async with (
        rig(database, flows=FLOWS) as house,
        serving(house.url, tmp_path) as url,
        by_http(url, OPERATOR) as client,
    ):
        assert (await client.list_tools()).tools


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({}, "MCP_TOKEN: is not set, nor is OPERATOR_TOKEN"),
        ({"MCP_TOKEN": " , "}, "MCP_TOKEN: holds no token"),
    ],
)
def test_http_without_a_token_is_refused(tmp_path, env, said):
    done = subprocess.run(
        command("mcp", "--http", str(free_port())), cwd=tmp_path, env=environment(**env),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert said in done.stderr


def test_without_the_extra_it_says_what_to_install(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name.startswith('mcp') else real(name, *a)\n"
    )
    env = environment()
    env["PYTHONPATH"] = f"{tmp_path}:{ROOT}"
    done = subprocess.run(
        command("mcp"), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "pip install 'emqx-gpt[mcp]'" in done.stderr
