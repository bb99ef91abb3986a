"""`emqx-gpt requests confirm` and `settle`, beside a running service."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

from tests.e2e.test_waiting import ASK, DOOR, HEAD, LAMP, LIT, PIN, SAY, commands, state
from tests.fakes.model import ok, tool_calls
from tests.rig import OPERATOR, command, environment, eventually, message, rig

UNLOCK = tool_calls([("unlock", {"name": "front"})])


def surroundings(house: Any, flows: Path, **values: str) -> dict[str, str]:
    url = house.service.settings.database_url.get_secret_value()
    return environment(
        DATABASE_URL=url, FLOWS=str(flows), PORT=str(house.port), OPERATOR_TOKEN=OPERATOR, **values
    )


async def cli(house: Any, flows: Path, *args: str, **values: str) -> Any:
    return await asyncio.to_thread(
        subprocess.run,
        command("requests", *args),
        env=surroundings(house, flows, **values),
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def on_terminal(env: dict[str, str], typed: str, *args: str) -> str:
    """What a person sees who types this at the first question."""
    main, end = pty.openpty()
    made = subprocess.Popen(
        command("requests", *args), env=env, cwd="/",
        stdin=end, stdout=end, stderr=end, start_new_session=True,
    )  # fmt: skip
    os.close(end)
    seen = b""
    with contextlib.suppress(OSError):  # the terminal is closed
        while part := os.read(main, 4096):
            if b"PIN:" in (seen := seen + part) and typed:
                os.write(main, typed.encode() + b"\n")
                typed = ""
    made.wait(60)
    os.close(main)
    return seen.decode()


async def asked(house: Any, client: Any) -> str:
    house.model.script(UNLOCK, ok("It is open."))
    await client.publish(ASK, b"open the front door")
    return str((await state(house))["id"])


async def test_a_question_is_shown_and_answered(any_database: str, tmp_path: Path) -> None:
    flows = tmp_path / "flows.toml"
    flows.write_text(HEAD + DOOR)
    async with (
        rig(any_database, flows=HEAD + DOOR) as house,
        house.mqtt("door/#", SAY) as client,
    ):
        id = await asked(house, client)
        listed = await cli(house, flows, "list", "--state", "waiting")
        assert listed.stdout.splitlines()[1].split()[1] == "waiting"
        shown = (await cli(house, flows, "show", id[-8:])).stdout
        assert "asked: May I do this: unlock (name: front)?" in shown
        assert "for a person's word" in shown
        said = await cli(house, flows, "confirm", id[-8:], "yes")
        assert (said.returncode, said.stderr) == (0, "")
        assert said.stdout.startswith(id)
        assert (await message(client))[0] == "door/front/set"
        await house.ended()
        late = await cli(house, flows, "confirm", id, "no")
        assert late.returncode == 1
        assert "nothing is asked" in late.stderr
        acts = (await house.http.get("/acts")).json()["acts"]
        assert [(one["act"], one["target"], one["result"]) for one in acts] == [
            ("confirm", id, "not_waiting"),
            ("confirm", f"{id} (yes)", "ok"),
        ]
        assert acts[0]["who"].startswith("cli")


async def test_a_pin_comes_by_a_variable_or_unseen(any_database: str, tmp_path: Path) -> None:
    flows = tmp_path / "flows.toml"
    flows.write_text(HEAD + PIN)
    pins = {"DOOR_PIN": "4711"}
    async with (
        rig(any_database, flows=HEAD + PIN, environ=pins) as house,
        house.mqtt("door/#", SAY) as client,
    ):
        id = await asked(house, client)
        none = await cli(house, flows, "confirm", id, "yes", **pins)
        assert none.returncode == 1
        assert "--pin-env" in none.stderr
        wrong = await cli(house, flows, "confirm", id, "yes", "--pin-env", "MINE", MINE="1", **pins)
        assert wrong.returncode == 1
        assert "wrong PIN" in wrong.stderr
        env = surroundings(house, flows, **pins)
        seen = await asyncio.to_thread(on_terminal, env, "4711", "confirm", id, "yes")
        assert "May I do this" in seen
        assert "4711" not in seen
        assert (await message(client))[0] == "door/front/set"
        assert len(await commands(house, "door/front/set")) == 1


async def test_what_became_of_a_command_is_said(any_database: str, tmp_path: Path) -> None:
    text = HEAD + LAMP + "at_most_once = true\n"
    flows = tmp_path / "flows.toml"
    flows.write_text(text)
    async with rig(any_database, flows=text) as house, house.mqtt("lamp/+/set", SAY) as client:
        house.model.script(tool_calls([("lamp", LIT)]), ok("I do not know."))
        await client.publish(ASK, b"light")
        await message(client)
        id = (await state(house))["id"]
        early = await cli(house, flows, "settle", id, "refused")
        assert "once it has ended" in early.stderr
        await house.move(20_001)
        await house.ended()
        shown = (await cli(house, flows, "show", id)).stdout
        assert 'unsettled: lamp {"room":"attic","on":true}' in shown.replace(" ", " ")
        refused = await cli(house, flows, "retry", id)
        assert refused.returncode == 1
        assert "must not be repeated" in refused.stderr
        many = await cli(house, flows, "retry", "--all")
        assert many.stdout.startswith("0 retried; 1 not")
        settled = await cli(house, flows, "settle", id, "committed")
        assert settled.stdout == f"{id} settled: committed\n"
        house.model.script(ok("Once more."))
        assert (await cli(house, flows, "retry", id)).returncode == 0
        await eventually(lambda: len(house.model.calls) == 3)
