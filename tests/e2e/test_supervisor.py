"""Looked after from outside: what holds a process up ends that process, and not the service."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from service.demo.play import Client
from service.demo.standin.broker import StandIn
from service.emqx.config_file import render_filled
from tests.fakes.model import FakeModel
from tests.process import Process, house, resident
from tests.rig import OPERATOR_AUTH, WEBHOOK, eventually, load_flows, message


@contextlib.asynccontextmanager
async def stuck(
    folder: Path, *options: str, **env: str
) -> AsyncIterator[tuple[Process, Client, FakeModel]]:
    async with StandIn() as broker, FakeModel() as model:
        process = Process(folder, broker, model, **env)
        process.command = [sys.executable, "-m", "tests.e2e.stuck", "serve"]
        client = Client("127.0.0.1", broker.mqtt_port)
        try:
            await process.start(*options)
            await broker.load(render_filled(load_flows(None), process.url, WEBHOOK))
            await client.connect()
            await client.subscribe(["chatgpt/response/#"])
            yield process, client, model
        finally:
            await client.close()
            await process.end(signal.SIGKILL)


async def requests(process: Process) -> dict[str, tuple[str, str | None]]:
    """State and error of each request, by its conversation."""
    with contextlib.suppress(httpx.HTTPError):
        async with httpx.AsyncClient(headers=OPERATOR_AUTH, timeout=2) as http:
            found = (await http.get(f"{process.url}/requests")).json()["requests"]
            return {
                one["conversation"]: (one["state"], (one["error"] or {}).get("code"))
                for one in found
            }
    return {}


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_a_message_that_holds_a_process_up_does_it_twice_and_hurts_no_other(tmp_path):
    async with stuck(tmp_path) as (process, client, _):
        (first,) = process.workers
        await client.publish("chatgpt/request/evil", b"hang")
        await client.publish("chatgpt/request/ada", b"hi")

        async def ended() -> bool:
            found = await requests(process)
            return len(found) == 2 and all(
                state in ("failed", "done") for state, _ in found.values()
            )

        await eventually(ended, 60)
        found = await requests(process)
        assert found == {"evil": ("failed", "worker_killed"), "ada": ("done", None)}
        assert process.process.poll() is None
        assert process.workers != [first]
        log = process.log.read_text()
        assert log.count("ending it") == 2
        assert "in holding" in log  # where it hung
        assert "hang" not in log.replace("holding", "")  # and nothing of what was sent
        assert await process.end(signal.SIGTERM) == 0


async def test_sigterm_ends_all_though_the_loop_is_stuck(tmp_path):
    async with stuck(tmp_path) as (process, client, _):
        (worker,) = process.workers
        await client.publish("chatgpt/request/evil", b"hang")
        await eventually(lambda: silent(process))
        began = time.monotonic()
        await process.end(signal.SIGTERM)
        assert time.monotonic() - began < 20
        assert gone(worker)


async def silent(process: Process) -> bool:
    try:
        async with httpx.AsyncClient(timeout=0.5) as http:
            await http.get(f"{process.url}/healthz")
    except httpx.HTTPError:
        return True
    return False


async def test_a_lone_process_is_dead_at_once_when_the_one_above_it_is_killed(tmp_path):
    async with house(tmp_path) as (process, _, _, client):
        (worker,) = process.workers
        await process.end(signal.SIGKILL)
        await eventually(lambda: gone(worker) or zombie(worker))
        await eventually(lambda: unused(process.port))
        await process.start()  # on the same port and database
        await client.publish("chatgpt/request/ada", b"hi")
        assert (await message(client))[1] == b"echo: hi"


def unused(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


async def test_a_process_that_died_is_begun_anew_and_calls_wait_for_it(tmp_path):
    async with house(tmp_path) as (process, *_):
        (worker,) = process.workers
        os.kill(worker, signal.SIGKILL)
        async with httpx.AsyncClient(timeout=40) as http:  # nobody is refused meanwhile
            answer = await http.get(f"{process.url}/healthz")
        assert answer.status_code == 200
        assert "starting it again" in process.log.read_text()
        assert await process.end(signal.SIGTERM) == 0


async def test_a_stopped_process_is_not_taken_for_a_stuck_one(tmp_path):
    async with stuck(tmp_path) as (process, *_):
        (worker,) = process.workers
        os.kill(worker, signal.SIGSTOP)
        await asyncio.sleep(6)  # twice as long as it may stand still
        os.kill(worker, signal.SIGCONT)
        assert process.workers == [worker]


async def test_systemd_is_told_what_it_asks_for(tmp_path):
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(place))
        listener.settimeout(30)
        env = {"NOTIFY_SOCKET": str(place), "WATCHDOG_USEC": "10000000"}
        async with house(tmp_path, **env) as (process, *_):
            heard = [await asyncio.to_thread(listener.recv, 100) for _ in range(2)]
            assert heard == [b"READY=1", b"WATCHDOG=1"]
            assert await process.end(signal.SIGTERM) == 0
            said = b""
            while said != b"STOPPING=1":
                said = await asyncio.to_thread(listener.recv, 100)


async def test_what_looks_on_is_small(tmp_path):
    async with house(tmp_path) as (process, *_):
        assert resident(process.process.pid) < 25_000_000
