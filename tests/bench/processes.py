"""Child processes of a bench: started, asked, stopped. Each on a free port of loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from tests.rig import ROOT, command, environment

START = 40.0  # seconds a process may take until it answers
TREE = "BENCH_TREE"  # another checkout of the service, to compare

FLOWS = """
[providers.slow]
base_url = "{model}/paused/0/v1"

[flows.chat]
request = "chat/request/${{user}}"
reply = "chat/response/${{user}}"
system = "You are a helpful assistant."
history = {{ messages = 10, ttl = "24h", reset = ["/reset", "/new"] }}

[flows.told]
request = "told/request/${{user}}"
reply = "told/response/${{user}}"
stream = "told/stream/${{user}}"

[flows.later]
model = "slow/gpt-5.4-mini"
request = "later/request/${{user}}"
reply = "later/response/${{user}}"
history = {{ messages = 10 }}

[flows.kept]
request = "kept/${{device}}/ask"
reply = "kept/${{device}}/say"
system = "${{recent}}"
recent = {{ topic = "kept/${{device}}/telemetry", messages = 20 }}

[flows.loose]
model = "slow/gpt-5.4-mini"
request = "loose/request/${{user}}"
reply = "loose/response/${{user}}"
"""


class Child:
    """A helper process that says its port first."""

    def __init__(self, module: str, *args: str) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", module, *args],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.port = 0

    async def start(self) -> Child:
        self.port = int(await self._line())
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def ask(self, line: str) -> str:
        """One line in, one line out."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(line + "\n")
        self._popen.stdin.flush()
        return await self._line()

    async def _line(self) -> str:
        assert self._popen.stdout is not None
        line = await asyncio.to_thread(self._popen.stdout.readline)
        if not line:
            raise RuntimeError(f"{self._popen.args} ended")
        return line

    def stop(self) -> None:
        stop(self._popen)


def stop(popen: subprocess.Popen[Any]) -> None:
    """End it now; nothing here needs a farewell."""
    popen.kill()
    popen.wait()
    for pipe in (popen.stdin, popen.stdout):
        if pipe is not None:
            pipe.close()


class Ends:
    """The fake model and the fake EMQX."""

    def __init__(self, model: Child, emqx: Child) -> None:
        self.model = model
        self.emqx = emqx
        self._http = httpx.AsyncClient(timeout=None)

    async def wait(self, count: int, timeout: float) -> int:
        """Until so many replies were published; how many there were in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._http.get(f"{self.emqx.url}/wait/{count}")
        return int((await self._http.get(f"{self.emqx.url}/count")).json())

    async def published(self) -> dict[str, Any]:
        """Payloads and when they came, since the last look."""
        return dict((await self._http.get(f"{self.emqx.url}/notes")).json())

    async def asked(self) -> dict[str, Any]:
        """Questions, when they came and were answered, since the last look."""
        return dict((await self._http.get(f"{self.model.url}/notes")).json())

    async def close(self) -> None:
        await self._http.aclose()


class Service:
    """`emqx-gpt serve`, one process, on a database of its own."""

    def __init__(self, folder: Path, ends: Ends, *, model: str, **env: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._log = folder / "service.log"
        flows = folder / "flows.toml"
        flows.write_text(FLOWS.format(model=ends.model.url))
        self.folder = folder
        values = {
            "OPENAI_API_KEY": "sk-bench",
            "OPENAI_BASE_URL": ends.model.url + model,
            "EMQX_URL": ends.emqx.url,
            "EMQX_API_KEY": "key",
            "EMQX_API_SECRET": "secret",
            "WEBHOOK_TOKEN": "webhook-token",
            "OPERATOR_TOKEN": "operator-token",
            "MAX_BACKLOG": "3000000",
            "FLOWS": str(flows),
            "PORT": str(self.port),
        }
        if tree := os.environ.get(TREE):
            values["PYTHONPATH"] = tree
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command("serve"),
                cwd=folder,
                env=environment(**(values | env)),
                stdout=log,
                stderr=log,
            )

    async def start(self) -> Service:
        ends = time.monotonic() + START
        async with httpx.AsyncClient() as http:
            while time.monotonic() < ends:
                if self.process.poll() is not None:
                    break
                with contextlib.suppress(httpx.HTTPError):
                    await http.get(f"http://127.0.0.1:{self.port}/healthz")
                    return self
                await asyncio.sleep(0.05)
        raise RuntimeError("the service did not start:\n" + self._log.read_text()[-2000:])

    def memory(self) -> float:
        """Resident MB."""
        pids = ",".join(map(str, self._pids()))
        said = subprocess.run(["ps", "-o", "rss=", "-p", pids], capture_output=True, check=True)
        return sum(map(int, said.stdout.split())) / 1024

    def cpu(self) -> float:
        """Seconds of CPU that it has used, all its threads together."""
        stats = (Path(f"/proc/{pid}/stat").read_text() for pid in self._pids())
        fields = [stat.rpartition(")")[2].split() for stat in stats]
        ticks = sum(int(one[11]) + int(one[12]) for one in fields)
        return ticks / os.sysconf("SC_CLK_TCK")

    def _pids(self) -> list[int]:
        """The process that looks after the service, and the service."""
        pid = self.process.pid
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, below)]

    def stop(self) -> None:
        stop(self.process)


@contextlib.asynccontextmanager
async def ends_up() -> AsyncIterator[Ends]:
    model, emqx = Child("tests.bench.ends", "model"), Child("tests.bench.ends", "emqx")
    try:
        ends = Ends(await model.start(), await emqx.start())
        yield ends
        await ends.close()
    finally:
        model.stop()
        emqx.stop()
