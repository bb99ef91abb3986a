"""The service as a process of its own, before a stand-in for EMQX and a fake model."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from service.demo.play import Client
from service.demo.standin.broker import StandIn
from service.emqx.config_file import render_filled
from tests.fakes.model import FakeModel
from tests.rig import OPERATOR, ROOT, WEBHOOK, command, environment, eventually, load_flows


def free_port() -> int:
    """Below those that the kernel gives to whoever asks for any: it stays free until it is used."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Process:
    """`emqx-gpt serve` as a child process that tests may kill."""

    def __init__(self, folder: Path, broker: StandIn, model: FakeModel, **env: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"service-{self.port}.log"
        self.command = command("serve")
        self._folder = folder
        usual = {
            "OPENAI_API_KEY": "sk-test",
            "OPENAI_BASE_URL": model.base_url,
            "EMQX_URL": broker.rest_url,
            "EMQX_API_KEY": "key",
            "EMQX_API_SECRET": "secret",
            "WEBHOOK_TOKEN": WEBHOOK,
            "OPERATOR_TOKEN": OPERATOR,
            "PORT": str(self.port),
            "FLOWS": str(ROOT / "flows.toml"),
        }
        self._env = environment(**(usual | env))

    async def start(self, *options: str) -> None:
        self.launch(*options)
        await eventually(self._up, 60)

    def launch(self, *options: str) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, *options], cwd=self._folder, env=self._env, stderr=log, stdout=log
            )

    async def _up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient() as http:
                return (await http.get(f"{self.url}/healthz")).status_code == 200
        return False

    @property
    def workers(self) -> list[int]:
        """The pids of those that serve, below the one that looks after them."""
        pid = self.process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def memory(self) -> int:
        """What they hold of the machine's memory now, in bytes."""
        return sum(map(resident, (self.process.pid, *self.workers)))

    def forget_peak(self) -> None:
        """`peak` looks from now on."""
        for pid in (self.process.pid, *self.workers):
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """The most that each of them held, together, in bytes."""
        return sum(resident(pid, "VmHWM:") for pid in (self.process.pid, *self.workers))

    async def end(self, number: int) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, 60)


def resident(pid: int, what: str = "VmRSS:") -> int:
    """Bytes of memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(
        int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(what)
    )


@contextlib.asynccontextmanager
async def house(
    folder: Path, **env: str
) -> AsyncIterator[tuple[Process, StandIn, FakeModel, Client]]:
    async with StandIn() as broker, FakeModel() as model:
        process = Process(folder, broker, model, **env)
        client = Client("127.0.0.1", broker.mqtt_port)
        try:
            await process.start()
            await broker.load(render_filled(load_flows(None), process.url, WEBHOOK))
            await client.connect()
            await client.subscribe(["chatgpt/response/#"])
            yield process, broker, model, client
        finally:
            await client.close()
            await process.end(signal.SIGKILL)
