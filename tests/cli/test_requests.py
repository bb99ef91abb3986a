"""`emqx-gpt requests` and `ask` as a person sees them, beside a running service."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from tests.fakes.model import ok, status, tool_calls
from tests.rig import OPERATOR, ROOT, command, environment, eventually, rig

HEAVY = ("sqlalchemy", "openai", "starlette", "httpx", "jinja2", "aiohttp", "re2")


async def cli(house: Any, *args: str, columns: int = 80) -> subprocess.CompletedProcess[str]:
    env = environment(
        DATABASE_URL=house.service.settings.database_url.get_secret_value(),
        FLOWS=str(ROOT / "flows.toml"),
        COLUMNS=str(columns),
        PORT=str(house.port),
        OPERATOR_TOKEN=OPERATOR,
    )
    return await asyncio.to_thread(
        subprocess.run, command(*args), env=env, cwd="/", capture_output=True, text=True, timeout=60
    )


async def lively(house: Any, failing: int = 3) -> None:
    async with house.mqtt() as client:
        house.model.script(ok("Hello Ada! " + "What a very long reply this is. " * 9))
        await client.publish("chatgpt/request/ada", b"Hello there, my name is Ada, and " * 5)
        await house.ended(1)
        await client.publish("/xiaomi/chatgpt", "小爱机器人今天星期几，天气怎么样".encode())
        await house.ended(2)
        call = tool_calls([("set_light", {"room": "kitchen", "on": True})])
        house.model.script(status(503, message="overloaded"), call, ok("The kitchen is lit."))
        await client.publish("home/ada/ask", b"Light up the kitchen.")
        await house.ended(3)
        house.model.behave(lambda body: status(400, message="no such field"))
        for number in range(failing):
            await client.publish(f"chatgpt/request/u{number}", b"fails \x1b[31mred\nline")
        await house.ended(3 + failing)
    house.model.behave(None)


@pytest.mark.parametrize("columns", [80, 132])
async def test_each_request_is_a_line_that_fits(database: str, quick: None, columns: int) -> None:
    async with rig(database, max_attempts=1) as house:
        await lively(house)
        said = (await cli(house, "requests", "list", columns=columns)).stdout
        lines = said.splitlines()
        assert len(lines) == 7
        assert [cell_len(line) for line in lines if cell_len(line) > columns] == []
        assert "\x1b" not in said
        assert "\\x1b[31mred line" in said or "fails \\x1b" in said
        home = next(line for line in lines if "home/ada/ask" in line)
        assert home.split()[1] == "done"
        assert "Light up" in home
        assert "The kitchen" in home
        assert "今天星期" in said
        assert "model_refused" in next(line for line in lines if " failed " in line)


async def test_a_part_of_an_id_is_enough_and_what_happened_is_drawn(
    database: str, quick: None
) -> None:
    async with rig(database, max_attempts=1) as house:
        await lively(house, 1)
        (home,) = await house.requests(flow="home")
        for part in (home["id"], home["id"][-8:], home["id"][:31]):
            shown = await cli(house, "requests", "show", part)
            assert shown.returncode == 0, shown.stderr
            assert home["id"] in shown.stdout
        timeline = shown.stdout.split("\n\n")[1].splitlines()
        names = [line.split()[0] for line in timeline if not line.startswith(" ")]
        happened = [name for name in names if name not in ("waited", "begun")]
        assert happened[:2] == ["received", "stored"]
        assert happened[2:4] == ["model", "model"]
        assert happened[4:] == ["set_light", "model", "answered", "published", "ended"]
        assert "model_unavailable: the model's server failed (503): overloaded" in shown.stdout
        assert 'arguments {"room":"kitchen","on":true}' in shown.stdout
        assert "topic home/devices/kitchen/light/set" in shown.stdout
        assert [line for line in shown.stdout.splitlines() if cell_len(line) > 80] == []
        several = await cli(house, "requests", "show", home["id"][:4])
        assert several.returncode == 1
        assert "may be any of" in several.stderr
        nobody = await cli(house, "requests", "show", "zzzzzz")
        assert "no request 'zzzzzz'" in nobody.stderr


async def test_dead_letters_are_retried_by_a_filter_and_that_is_written_down(
    any_database: str, quick: None
) -> None:
    async with rig(any_database, max_attempts=1) as house:
        await lively(house, 5)
        nothing = await cli(house, "requests", "retry")
        assert nothing.returncode == 1
        assert "--all" in nothing.stderr
        await cli(house, "requests", "retry", "--flow", "home")
        many = await cli(house, "requests", "retry", "--error", "model_refused", "--since", "1h")
        assert many.stdout == "5 retried\n"
        assert "5/5" in many.stderr
        await eventually(lambda: _all_done(house, 8))
        acts = (await house.http.get("/acts")).json()["acts"]
        assert [(one["act"], one["result"]) for one in acts] == [("retry many", "ok")] * 2
        assert '"error":"model_refused"' in acts[0]["target"]
        assert acts[0]["who"].startswith("cli")


async def _all_done(house: Any, count: int) -> bool:
    return len(await house.requests(state="done", limit=100)) == count


async def test_one_is_retried_with_another_question(database: str, quick: None) -> None:
    async with rig(database, max_attempts=1) as house:
        await lively(house, 1)
        (dead,) = await house.requests(state="failed")
        said = await cli(house, "requests", "retry", dead["id"][-6:], "--payload", "better")
        assert said.stdout.startswith(dead["id"])
        await house.ended(4)
        assert (await house.request(dead["id"]))["payload"] == "better"


async def test_what_comes_is_followed(database: str) -> None:
    async with rig(database) as house:
        env = environment(DATABASE_URL=database, FLOWS=str(ROOT / "flows.toml"), COLUMNS="100")
        process = await asyncio.create_subprocess_exec(
            *command("requests", "list", "--follow", "--json"),
            env=env, cwd="/", stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            async with house.mqtt() as client, asyncio.timeout(40):
                await client.publish("chatgpt/request/ada", b"one")
                states = []
                while states[-1:] != ["done"]:
                    states.append(json.loads(await process.stdout.readline())["state"])
                await client.publish("chatgpt/request/ada", b"two")
                line = json.loads(await process.stdout.readline())
            assert line["text"] == "two"
        finally:
            process.terminate()
            await process.wait()


async def test_ask_shows_the_reply_as_it_comes(database: str) -> None:
    async with rig(database) as house:
        house.model.behave(lambda body: ok("one two three four five six", pace=0.2))
        env = environment(PORT=str(house.port), OPERATOR_TOKEN=OPERATOR)
        process = await asyncio.create_subprocess_exec(
            *command("ask", "chat", "Count!", "--conversation", "ada"),
            env=env, cwd="/", stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        async with asyncio.timeout(40):
            first = await process.stdout.read(4)
            assert b"six" not in first
            said = first + await process.stdout.read()
        assert said == b"one two three four five six\n"
        assert await process.wait() == 0
        house.model.behave(lambda body: status(400))
        failed = await cli(house, "ask", "chat", "x")
        assert failed.returncode == 1
        assert "model_refused" in failed.stderr
        unknown = await cli(house, "ask", "nope", "x")
        assert "there are: chat" in unknown.stderr
        nobody = await cli(house, "ask", "chat", "x", "--url", "http://127.0.0.1:9")
        assert "start the service" in nobody.stderr


@pytest.mark.parametrize("args", [["-h"], ["requests", "list", "-h"], ["emqx", "--help"]])
def test_help_waits_for_no_library_that_answers_need(args: list[str]) -> None:
    code = (
        "import sys, contextlib\n"
        "from service.cli import main\n"
        f"sys.argv = ['emqx-gpt', *{args!r}]\n"
        "with contextlib.suppress(SystemExit):\n    main()\n"
        f"print(sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "Usage: emqx-gpt" in done.stdout
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell: str, tmp_path: Path) -> None:
    script = subprocess.run(command("completion", shell), capture_output=True, text=True, cwd=ROOT)
    assert script.returncode == 0
    assert "_EMQX_GPT_COMPLETE=complete_" in script.stdout
    if shell == "bash":
        env = environment(
            _EMQX_GPT_COMPLETE="complete_bash", COMP_WORDS="emqx-gpt requests l", COMP_CWORD="2"
        )
        done = subprocess.run(command(), env=env, capture_output=True, text=True, cwd=tmp_path)
        assert "list" in done.stdout
