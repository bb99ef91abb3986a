"""What pages tell to type is typed here, at a running demo; what they show is what comes.

A block `sh` is one or more commands: a `mosquitto_sub` listens until the end of the page, anything
else is run to its end. A block `text` after it is what was said: by the last command, or what the
listener heard since. Flows that a page adds to flows.toml are there.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
import tomllib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.demo import running as demo_running
from service.demo.running import Running, running, with_offline
from tests.docs.pages import Block, blocks, name
from tests.rig import ROOT, eventually, load_flows, make_settings

PAGES = [
    ROOT / "docs" / "getting-started.md",
    ROOT / "docs" / "getting-started.zh-CN.md",
    *sorted((ROOT / "docs" / "scenarios").glob("*.md")),
    *sorted((ROOT / "docs" / "moving").glob("*.md")),
]
PATIENCE = 30.0  # seconds
_ID = re.compile(r"\b[0-9a-f]{32}(-\d+)*\b")
_ROW = re.compile(r"^[0-9a-f]{8} ", re.M)
_AGE = re.compile(r" {2,}\d+(s|m) ")


def plain(text: str) -> Counter[str]:
    """The lines in any order, whatever the ids and ages in them are."""
    text = _AGE.sub(" AGE ", _ROW.sub("ID ", _ID.sub("ID", text)))
    return Counter(line.rstrip() for line in text.strip().splitlines())


def flows_for(page: Path) -> str:
    """flows.toml with the flows that the page adds to it."""
    text = (ROOT / "flows.toml").read_text("utf-8")
    known = tomllib.loads(text)["flows"].keys()
    for block in blocks(page):
        if (
            block.kind == "toml"
            and not tomllib.loads(block.text).get("flows", known).keys() & known
        ):
            text += "\n" + block.text
    return text


def played(page: Path) -> list[Block]:
    """Those that are typed or seen: commands of clients and of ours at the demo."""
    ours = ("mosquitto_", "emqx-gpt --env demo.env")
    found = blocks(page)
    return [
        one
        for one in found
        if one.kind == "text" or (one.kind == "sh" and one.text.startswith(ours))
    ]


class Typist:
    """One page's commands, in a folder where clients find the demo's port by themselves."""

    def __init__(self, demo: Running, folder: Path) -> None:
        self._demo, self._folder = demo, folder
        self._listener: asyncio.subprocess.Process | None = None
        self._said = ""
        for client in ("pub", "sub", "rr"):
            (folder / f"mosquitto_{client}").write_text(f"-p {demo.broker.mqtt_port}\n")
        lines = [f"{key}={value}\n" for key, value in demo.environment().items()]
        (folder / "demo.env").write_text("".join(lines))
        (folder / "docs").symlink_to(ROOT / "docs")
        (folder / "emqx-gpt").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m service "$@"\n')
        (folder / "emqx-gpt").chmod(0o755)
        path = f"{folder}:{os.environ['PATH']}:/usr/sbin"
        self._env = {"PATH": path, "XDG_CONFIG_HOME": str(folder), "PYTHONPATH": str(ROOT),
                     "LANG": "C.UTF-8", "HOME": str(folder)}  # fmt: skip

    async def type(self, text: str) -> None:
        for line in text.replace("\\\n", " ").splitlines():
            if line.startswith("mosquitto_sub"):
                await self._listen(line.split(" #")[0])
            else:
                await self._run(line)

    async def _listen(self, line: str) -> None:
        await self.stop()
        before = len(self._demo.broker.mqtt.sessions)
        self._listener = await asyncio.create_subprocess_exec(
            *shlex.split(line), env=self._env, stdout=asyncio.subprocess.PIPE
        )
        await eventually(lambda: self._subscribed(before))

    def _subscribed(self, before: int) -> bool:
        sessions = self._demo.broker.mqtt.sessions
        return len(sessions) > before and all(one.subscriptions for one in sessions.values())

    async def _run(self, line: str) -> None:
        process = await asyncio.create_subprocess_shell(
            line, cwd=self._folder, env=self._env,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            said, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
        except TimeoutError:
            process.kill()
            raise AssertionError(f"no end: {line}") from None
        self._said = said.decode()
        assert process.returncode == 0, f"{line}\n{self._said}"
        actions = self._demo.broker.resources.actions.values()
        await eventually(lambda: not any(one.queuing + one.inflight for one in actions))

    async def sees(self, text: str) -> str:
        if self._said.strip() or self._listener is None:
            said, self._said = self._said, ""
            return said
        assert self._listener.stdout is not None
        heard = ""
        async with asyncio.timeout(PATIENCE):
            for _ in text.strip().splitlines():
                heard += (await self._listener.stdout.readline()).decode()
        return heard

    async def stop(self) -> None:
        if self._listener is not None:
            self._listener.kill()
            await self._listener.wait()
            self._listener = None


@asynccontextmanager
async def typist(page: Path, folder: Path) -> AsyncIterator[Typist]:
    settings = make_settings(port=0, flows=ROOT / "flows.toml")
    flows = with_offline(load_flows(flows_for(page)), kind="offline")
    async with running(settings, flows) as demo:
        typing = Typist(demo, folder)
        try:
            yield typing
        finally:
            await typing.stop()


@pytest.mark.parametrize("page", PAGES, ids=name)
async def test_what_a_page_shows_is_what_comes(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Any ports: beside this, other tests run demos on the usual ones.
    monkeypatch.setattr(demo_running, "PORTS", dict.fromkeys(demo_running.PORTS, 0))
    async with typist(page, tmp_path) as typing:
        seen = 0
        for block in played(page):
            if block.kind == "sh":
                await typing.type(block.text)
            else:
                seen += 1
                assert plain(await typing.sees(block.text)) == plain(block.text)
        assert seen >= 1
