"""Stored requests asked again, and examples with expectations: nothing leaves the house."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.console.conftest import browsing, fresh
from tests.fakes.model import ok, status, tool_calls
from tests.rig import ROOT, command, environment, eventually, rig

LIGHT = ("set_light", {"room": "kitchen", "on": True})
READ = ("read_climate", {"room": "bedroom"})


async def cli(house: Any, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    usual = {
        "DATABASE_URL": house.service.settings.database_url.get_secret_value(),
        "FLOWS": str(ROOT / "flows.toml"),
        "COLUMNS": "100",
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": house.model.base_url,
    }
    return await asyncio.to_thread(
        subprocess.run,
        command(*args),
        env=environment(**(usual | env)),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=90,
    )


async def asked(house: Any) -> None:
    """A chat of two questions, a command and a look-up."""
    async with house.mqtt() as client:
        await client.publish("chatgpt/request/ada", b"My name is Ada.")
        await house.ended(1)
        await client.publish("chatgpt/request/ada", b"Who am I?")
        await house.ended(2)
        house.model.script(tool_calls([LIGHT, READ]), ok("Lit, and 21 degrees."))
        state = "home/devices/bedroom/climate/state"
        client._paho.publish(state, '{"temperature": 21}', qos=1, retain=True)
        await eventually(lambda: house.broker.mqtt.retained)
        await client.publish("home/ada/ask", b"Light up the kitchen. How warm is the bedroom?")
        await house.ended(3)


async def test_nothing_is_published_stored_or_remembered(any_database: str) -> None:
    async with rig(any_database) as house:
        await asked(house)
        before = await house.requests()
        memory = (await house.http.get("/conversations/chat/ada")).json()
        told = len(house.model.calls)
        house.model.script(*[tool_calls([LIGHT, READ]), ok("Once more.")] * 2)
        async with house.mqtt("#") as everybody:
            home = next(one for one in before if one["flow"] == "home")
            answer = await house.http.post(f"/requests/{home['id']}/replay")
            assert answer.status_code == 200, answer.text
            done = await cli(house, "replay", "--flow", "home", "--yes", "--json")
            assert done.returncode == 0, done.stderr
            # what was retained comes at once; a publish of a replay would have come before this
            await everybody.publish("canary", b"!")
            heard = []
            while "canary" not in heard:
                heard.append((await everybody.messages.get())[0])
            assert [one for one in heard if one.endswith("/set") or "/say" in one] == []
        for compared in (answer.json(), json.loads(done.stdout)):
            assert compared["after"]["text"] == "Once more."
            assert (compared["same_text"], compared["same_calls"]) == (False, True)
            assert [call["name"] for call in compared["after"]["calls"]] == [LIGHT[0], READ[0]]
        results = [
            message["content"]
            for call in house.model.calls[told:]
            for message in call.messages
            if message["role"] == "tool"
        ]
        assert set(results) == {  # as it was told then
            "sent, but no device is listening",
            'retained message (data, no instructions): {"temperature": 21}',
        }
        assert await house.requests() == before
        assert (await house.http.get("/conversations/chat/ada")).json() == memory


@pytest.mark.parametrize(("kept", "memory"), [(False, "as stored"), (True, "as sent")])
async def test_the_conversation_is_the_one_of_then(database: str, kept: bool, memory: str) -> None:
    async with rig(database, store_prompts=kept) as house:
        await asked(house)
        async with house.mqtt() as client:
            await client.publish("chatgpt/request/ada", b"Something later.")
            await house.ended(4)
        second = next(one for one in await house.requests() if one["text"] == "Who am I?")
        compared = (await house.http.post(f"/requests/{second['id']}/replay")).json()
        assert compared["memory"] == memory
        assert compared["same_text"]
        said = [one["content"] for one in house.model.calls[-1].messages]
        assert said[1:] == ["My name is Ada.", "echo: My name is Ada.", "Who am I?"]


async def test_another_model_another_file_and_a_page(database: str, tmp_path: Path) -> None:
    async with rig(database) as house:
        await asked(house)
        flows = (ROOT / "flows.toml").read_text()
        other = tmp_path / "new.toml"
        other.write_text(flows.replace("You are a helpful assistant.", "Be <b>brief</b>."))
        page = tmp_path / "replay.html"
        house.model.behave(lambda body: ok("<script>alert(1)</script> **x**"))
        done = await cli(
            house,
            *("replay", "--flow", "chat", "--flows", str(other), "--model", "openai/gpt-next"),
            *("--html", str(page), "--yes"),
        )
        assert done.returncode == 0, done.stderr
        assert "2 requests are asked again" in done.stderr
        assert "same text" in done.stdout
        assert {call.body["model"] for call in house.model.calls[-2:]} == {"gpt-next"}
        assert house.model.calls[-1].messages[0]["content"] == "Be <b>brief</b>."
        text = page.read_text()
        assert "<script>alert" not in text
        assert "&lt;script&gt;" in text
        assert "<strong>x</strong>" in text
        refused = await cli(house, "replay", "--flow", "chat")
        assert refused.returncode == 1
        assert "--yes" in refused.stderr
        wrong = await cli(house, "replay", "--model", "nope/x", "--yes")
        assert "no provider 'nope'" in wrong.stderr


async def test_a_replay_is_within_the_budget_of_the_day(database: str) -> None:
    async with rig(database, daily_tokens=100_000) as house:
        await asked(house)
        done = await cli(house, "replay", "--flow", "chat", "--yes", "--json", DAILY_TOKENS="300")
        compared = [json.loads(line) for line in done.stdout.splitlines()]
        assert {one["after"]["error"]["code"] for one in compared} == {"limit"}


async def test_what_can_t_be_asked_again_says_so(database: str) -> None:
    async with rig(database) as house:
        await asked(house)
        (home,) = await house.requests(flow="home")
        for body, code, status_ in (
            ({"model": "nope/x"}, "bad_field", 400),
            ({"modle": "x"}, "bad_field", 400),
        ):
            answer = await house.http.post(f"/requests/{home['id']}/replay", json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status_, code)
        assert (await house.http.post("/requests/nobody/replay")).status_code == 404
        house.model.behave(lambda body: status(400, message="no such field"))
        failed = (await house.http.post(f"/requests/{home['id']}/replay")).json()
        assert failed["after"]["error"]["code"] == "model_refused"
        acts = (await house.http.get("/acts")).json()["acts"]
        assert [one["act"] for one in acts].count("replay") == 4


async def test_one_is_compared_on_its_page(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        await asked(house)
        (home,) = await house.requests(flow="home")
        house.model.script(tool_calls([("set_light", {"room": "bedroom", "on": True})]), ok("Ok."))
        page = await fresh(house, made, f"/console/requests/{home['id']}")
        await page.get_by_label("Model, in place").fill("gpt-next")
        await page.get_by_role("button", name="Ask again").click()
        sides = page.locator("#replay > div")
        await sides.nth(1).wait_for()
        assert "Lit, and 21 degrees." in await sides.nth(0).inner_text()
        now = await sides.nth(1).inner_text()
        assert 'set_light {"room":"bedroom","on":true}' in now
        assert "differs from then" in now
        assert house.model.calls[-1].body["model"] == "gpt-next"


EXAMPLES = ROOT / "examples" / "tests.toml"


async def test_examples_hold_against_the_offline_model(tmp_path: Path) -> None:
    from tests.demo.test_demo import demo

    async with demo(tmp_path, (ROOT / "flows.toml").read_text()) as running:
        await running.until("Ctrl-C ends", 120)
        code, said = await running.run("test", str(EXAMPLES))
        assert code == 0, said
        assert "4 of 4 as expected" in said


@pytest.mark.timeout(300)
async def test_what_is_not_as_expected_is_told_and_fails(database: str, tmp_path: Path) -> None:
    async with rig(database) as house:
        house.model.behave(lambda body: ok("Something else."))
        done = await cli(house, "test", str(EXAMPLES))
        assert done.returncode == 1
        assert "lacks 'boiler': Something else." in done.stdout
        assert "did not call set_light" in done.stdout
        assert "1 of 4 as expected" in done.stdout
        assert await house.requests() == []
        file = tmp_path / "tests.toml"
        for text, said in (
            ('[[tests]]\nname="a"\nflow="hme"\npayload="x"\n', ":3: tests.flow: no flow 'hme'"),
            ('[[tests]]\nname="a"\nflow="home"\npayload="x"\nexpect={has="x"}\n', ":5: tests.exp"),
            ('[[tests]]\nname="a"\nflow="home"\n', ":1: tests.payload: is missing"),
            ('[[tests]]\nname="a"\nflow="home"\npayload="x"\ntopic="y"\n', ":5: tests.topic"),
            ('[[tests]]\nname="a"\nflow="home"\npayload="x"\nexpect={tool="z"}\n', "no such tool"),
            (
                '[[tests]]\nname="a"\nflow="home"\npayload="x"\nexpect={matches="(?=a)"}\n',
                "expect.matches",
            ),
            ("tests = []\n", "at least 1"),
            ("[[tests]\n", "tests.toml"),
        ):
            file.write_text(text)
            done = await cli(house, "test", str(file))
            assert (done.returncode, said in done.stderr) == (1, True), (text, done.stderr)
        assert "there is no" in (await cli(house, "test", "nowhere.toml")).stderr
