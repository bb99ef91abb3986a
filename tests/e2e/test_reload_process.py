"""`serve` goes along with its flows file: real files, real signals, requests in flight."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from service.demo.play import Client
from service.demo.standin.broker import StandIn
from service.emqx.config_file import render_filled
from tests.e2e.test_reload import CHAT, OTHER, by_system
from tests.fakes.model import FakeModel, gate, ok
from tests.process import Process, resident
from tests.rig import OPERATOR_AUTH, WEBHOOK, counter, eventually, load_flows, message

FIRST, SECOND = CHAT % ("say", "first"), CHAT % ("say", "second")


class House:
    """A process, its flows file, and a client that hears all replies."""

    def __init__(
        self, process: Process, broker: StandIn, model: FakeModel, client: Client, flows: Path
    ) -> None:
        self.process = process
        self.broker = broker
        self.model = model
        self.client = client
        self.flows = flows

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.process.url, headers=OPERATOR_AUTH) as http:
            return await http.get(path, timeout=30)

    async def reloads(self, result: str) -> float:
        text = (await self.get("/metrics")).text
        return counter(text, "emqx_gpt_flows_reloads_total", result=result)

    async def reloaded(self, count: int, result: str = "taken") -> None:
        async def look() -> bool:
            return await self.reloads(result) >= count

        await eventually(look)

    async def ask(self, text: str = "hi") -> bytes:
        await self.client.publish("chat/ada/ask", text.encode())
        return (await message(self.client))[1]

    def replace(self, text: str) -> None:
        """As most editors do it: a new file in the place of the old one."""
        new = self.flows.with_name("flows.new")
        new.write_text(text)
        new.rename(self.flows)

    @property
    def log(self) -> str:
        return self.process.log.read_text()


@contextlib.asynccontextmanager
async def up(
    folder: Path, *options: str, text: str = FIRST, flows: Path | None = None, **env: str
) -> AsyncIterator[House]:
    async with StandIn() as broker, FakeModel() as model:
        model.behave(by_system)
        path = flows or folder / "flows.toml"
        if flows is None:
            path.write_text(text)
        process = Process(folder, broker, model, FLOWS=str(path), **env)
        client = Client("127.0.0.1", broker.mqtt_port)
        try:
            await process.start(*options)
            if "--apply" not in options:
                await broker.load(render_filled(load_flows(text), process.url, WEBHOOK))
            await client.connect()
            await client.subscribe(["+/+/say"])
            yield House(process, broker, model, client, path)
        finally:
            await client.close()
            await process.end(signal.SIGKILL)


async def test_a_saved_file_is_in_force_however_it_was_saved(tmp_path):
    async with up(tmp_path) as house:
        assert await house.ask() == b"first: hi"
        house.replace(SECOND)
        await house.reloaded(1)
        assert await house.ask() == b"second: hi"
        assert "flows.toml is in force: changed chat\n" in house.log
        # Written in place, and bit by bit: what is there in between is never taken.
        third = OTHER + CHAT % ("say", "third")
        with house.flows.open("w") as file:
            for at in range(0, len(third), 60):
                file.write(third[at : at + 60])
                file.flush()
                await asyncio.sleep(0.05)
        await house.reloaded(2)
        assert await house.ask() == b"third: hi"
        assert await house.reloads("refused") == 0
        assert (
            "added other; changed chat; EMQX has to be brought along: run emqx-gpt emqx apply"
            in (house.log)
        )
        # Gone for a moment, and back.
        house.flows.unlink()
        house.flows.write_text(third)
        assert await house.ask() == b"third: hi"
        assert await house.process.end(signal.SIGTERM) == 0


async def test_a_mounted_config_map_that_turns_is_taken(tmp_path):
    """Kubernetes: flows.toml → ..data/flows.toml, and ..data → a folder that is exchanged."""
    mount = tmp_path / "mount"
    for name, text in (("..1", FIRST), ("..2", SECOND)):
        (mount / name).mkdir(parents=True)
        (mount / name / "flows.toml").write_text(text)
        os.utime(mount / name / "flows.toml", (1, 1))
    (mount / "..data").symlink_to("..1")
    (mount / "flows.toml").symlink_to("..data/flows.toml")
    async with up(tmp_path, flows=mount / "flows.toml") as house:
        assert await house.ask() == b"first: hi"
        (mount / "..tmp").symlink_to("..2")
        (mount / "..tmp").rename(mount / "..data")
        await house.reloaded(1)
        assert await house.ask() == b"second: hi"


async def test_a_bad_file_is_told_and_the_old_flows_go_on(tmp_path):
    async with up(tmp_path) as house:
        bad = FIRST.replace('reply = "say/${user}/say"', 'reply = "say/{user}/say"')
        house.replace(bad)
        await house.reloaded(1, "refused")
        (line,) = [one for one in house.log.splitlines() if "is refused" in one]
        assert "the flows from before go on" in line
        assert "flows.toml:4: " in line  # its line
        assert "did you mean ${user}?" in line  # and its cure
        ready = await house.get("/readyz")
        assert ready.status_code == 200
        flows = ready.json()["flows"]
        assert flows["ok"] is True
        assert "flows.toml:4: " in flows["warning"]
        assert counter((await house.get("/metrics")).text, "emqx_gpt_flows_refused") == 1
        assert await house.ask() == b"first: hi"
        house.process.process.send_signal(signal.SIGHUP)  # said again, since somebody asked
        await house.reloaded(2, "refused")
        house.replace(FIRST)
        await house.reloaded(1, "same")
        assert "is mended: the flows are as before" in house.log
        assert "flows" not in (await house.get("/readyz")).json()
        house.flows.unlink()
        await house.reloaded(3, "refused")
        assert "flows.toml: there is no such file" in house.log
        house.flows.write_bytes(b"# " + b"x" * (5 << 20))
        await house.reloaded(4, "refused")
        assert "has more than 4 MB" in house.log
        key = (
            SECOND
            + 'model = "p/m"\n[providers.p]\nbase_url = "http://p/v1"\napi_key_env = "P_KEY"\n'
        )
        house.replace(key)
        await house.reloaded(5, "refused")
        assert "P_KEY: is not set" in house.log
        (tmp_path / ".env").write_text("P_KEY=a-key-of-the-provider\n")
        assert await house.ask() == b"first: hi"
        house.process.process.send_signal(signal.SIGHUP)
        await house.reloaded(1)  # the key is there now
        assert "a-key-of-the-provider" not in house.log


async def test_sighup_reaches_all_processes_with_requests_in_hand(tmp_path, shared_database):
    options = ("--workers", "2")
    async with up(tmp_path, *options, DATABASE_URL=shared_database, LOG_LEVEL="debug") as house:
        await eventually(lambda: len(house.process.workers) == 2)

        def started() -> bool:
            return house.log.count("ready: 1 flows") == 2

        await eventually(started)
        held = gate(ok("from before"))
        house.model.script(held)
        await house.client.publish("chat/bob/ask", b"hi")
        await house.model.wait_for_calls(1)
        house.replace(SECOND)
        house.process.process.send_signal(signal.SIGHUP)
        await eventually(lambda: house.log.count("is in force: changed chat") == 2)
        assert await house.ask() == b"second: hi"
        held.release()
        assert (await message(house.client))[1] == b"from before"
        assert house.log.count("INFO emqx-gpt.flows") <= 1  # said once, for all
        assert await house.process.end(signal.SIGTERM) == 0


async def test_apply_goes_along_where_emqx_has_to_know(tmp_path):
    async with up(tmp_path, "--apply") as house:
        await eventually(lambda: "EMQX's half is up to date" in house.log)
        assert await house.ask() == b"first: hi"
        house.replace(SECOND)  # only ours
        await house.reloaded(1)
        house.replace(SECOND + OTHER)
        await house.reloaded(2)
        await eventually(lambda: house.log.count("EMQX's half is up to date") == 2)
        assert "added other; EMQX is brought along" in house.log
        await house.client.publish("other/ada/ask", b"hi")
        assert (await message(house.client))[0] == "other/ada/say"
        house.replace(OTHER)
        await house.reloaded(3)
        await eventually(lambda: house.log.count("EMQX's half is up to date") == 3)
        await house.client.publish("chat/ada/ask", b"nobody listens any more")
        await house.client.publish("other/ada/ask", b"hi")
        assert (await message(house.client))[0] == "other/ada/say"
        found = (await house.get("/requests")).json()["requests"]
        assert "nobody listens any more" not in [one["text"] for one in found]


class Load:
    """Questions one after the other, each of a user of its own, and who heard what."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.sent = 0
        self.heard: dict[str, list[bytes]] = {}
        self._going = True

    async def __aenter__(self) -> Load:
        self._asking = asyncio.create_task(self._ask())
        self._listening = asyncio.create_task(self._listen())
        return self

    async def _ask(self) -> None:
        while self._going:
            await self.house.client.publish(f"chat/u{self.sent}/ask", b"hi")
            self.sent += 1
            await asyncio.sleep(0.005)

    async def _listen(self) -> None:
        while True:
            topic, said = await self.house.client.messages.get()
            self.heard.setdefault(topic, []).append(said)

    async def __aexit__(self, *_: object) -> None:
        self._going = False
        await self._asking
        await eventually(lambda: len(self.heard) == self.sent)

        async def none_open() -> bool:
            board = (await self.house.get("/metrics")).text
            return counter(board, "emqx_gpt_backlog") == 0

        await eventually(none_open)
        self._listening.cancel()


async def test_a_hundred_reloads_under_load_lose_nothing_and_answer_nothing_twice(tmp_path):
    texts = [CHAT % ("say", f"s{number}") for number in range(2)]
    async with up(tmp_path, text=texts[0]) as house:
        async with Load(house) as load:
            sizes = {}
            for number in range(1, 101):
                house.replace(texts[number % 2])
                house.process.process.send_signal(signal.SIGHUP)
                await house.reloaded(number)
                sizes[number] = resident(house.process.workers[0])
        assert load.sent > 100
        assert {len(said) for said in load.heard.values()} == {1}
        assert {said for (said,) in load.heard.values()} == {b"s0: hi", b"s1: hi"}
        assert len(house.model.calls) == load.sent
        assert sizes[100] - sizes[50] < 15_000_000, sizes


async def test_a_process_that_is_killed_between_goes_by_the_file_as_it_is(tmp_path):
    texts = [CHAT % ("say", f"s{number}") for number in range(8)]
    async with up(tmp_path, text=texts[0]) as house:
        async with Load(house) as load:
            for number in range(1, 8):
                house.replace(texts[number])
                house.process.process.send_signal(signal.SIGHUP)
                if number == 4:
                    os.kill(house.process.workers[0], signal.SIGKILL)
                    await eventually(lambda: house.log.count("ready: 1 flows") == 2)
                    continue
                await house.reloaded(number if number < 4 else number - 4)
        assert set(load.heard) == {f"say/u{number}/say" for number in range(load.sent)}
        assert house.process.process.poll() is None
        assert await house.ask() == b"s7: hi"


async def test_a_closed_terminal_still_ends_it(tmp_path):
    """SIGHUP of a terminal that is gone is no wish to read the flows again."""
    async with up(tmp_path) as house:
        env = {**house.process._env, "PORT": "0", "DATABASE_URL": f"sqlite:///{tmp_path}/two.db"}
        ours, theirs = pty.openpty()
        started = subprocess.Popen(
            [sys.executable, "-c", _IN_TERMINAL, *house.process.command],
            stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=tmp_path,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        said = b""
        while b"ready: " not in said:
            said += await asyncio.to_thread(os.read, ours, 4096)
        os.close(ours)
        assert await asyncio.to_thread(started.wait, 30) == 0


_IN_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # of tests under nohup too
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
