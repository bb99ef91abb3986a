"""The processes under test: started, watched, started again, and ended by their own pid."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import httpx

from tests.chaos.broker import SECRET
from tests.chaos.control import Control
from tests.rig import OPERATOR, OPERATOR_AUTH, ROOT, WEBHOOK, environment

FLOWS = Path(__file__).parent / "flows.toml"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def spawn(
    *args: str, stdout: BinaryIO | int, stderr: BinaryIO, env: Mapping[str, str] | None = None
) -> Process:
    """A Python module as a process that ends when this one does."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *args,
        stdin=PIPE,
        stdout=stdout,
        stderr=stderr,
        env=environment(**env or {}),
        cwd=ROOT,
    )


class Replica:
    """One `emqx-gpt serve` that comes back whenever it ends, as under a supervisor."""

    def __init__(self, number: int, folder: Path, lease: float, **env: str) -> None:
        self.number = number
        self.key = f"key{number}"
        self.port = free_port()
        self.log = folder / f"service{number}.log"
        self.control = Control(folder / f"control{number}")
        self.up = asyncio.Event()
        self.starts = 0
        self.exits: list[int] = []  # exit codes of ends that nobody here brought about
        self.exit_code: int | None = None  # of the last end, on SIGTERM
        self._process: Process | None = None
        self._killed = False
        self._ending = False  # by an orderly restart
        self._closing = False
        self._keeper: asyncio.Task[None] | None = None
        self._http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}", headers=OPERATOR_AUTH, timeout=5
        )
        self._env = {
            "OPENAI_API_KEY": "sk-test",
            "EMQX_API_KEY": self.key,
            "EMQX_API_SECRET": SECRET,
            "WEBHOOK_TOKEN": WEBHOOK,
            "OPERATOR_TOKEN": OPERATOR,
            "PORT": str(self.port),
            "FLOWS": str(FLOWS),
            "GRACE": "10s",
            "CHAOS_LEASE": str(lease),
            "CHAOS_CONTROL": str(self.control.path),
            **env,
        }

    def start(self) -> None:
        self._keeper = asyncio.create_task(self._keep())

    def signal(self, number: int) -> bool:
        """Whether there was a process to send it to, not killed already."""
        if self._process is None or self._process.returncode is not None or self._killed:
            return False
        if number == signal.SIGTERM:
            if self._ending:
                return False
            self._ending = True
            self.up.clear()
        if number == signal.SIGKILL:
            self._killed = True
            self.up.clear()
        self._process.send_signal(number)
        return True

    async def stop(self) -> int | None:
        """SIGTERM: it finishes what is in hand. The exit code, None if it had to be killed."""
        self._closing = True
        if self.signal(signal.SIGTERM) and self._keeper is not None:
            try:
                await asyncio.wait_for(asyncio.shield(self._keeper), 30)
                return self.exit_code
            except TimeoutError:
                pass
        return None

    async def close(self) -> None:
        """Gone for sure."""
        self._closing = True
        self.signal(signal.SIGKILL)
        if self._keeper is not None:
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self._http.aclose()

    async def open_requests(self, most: int) -> int | None:
        """How many requests have not ended, counted up to `most`; None if it can't say now."""
        count = 0
        with contextlib.suppress(httpx.HTTPError, KeyError, ValueError):
            for state in ("queued", "answering", "answered"):
                query = {"state": state, "limit": min(most, 500)}
                while count < most:
                    page = (await self._http.get("/requests", params=query)).json()
                    count += len(page["requests"])
                    if page["next"] is None:
                        break
                    query["before"] = page["next"]
            return count
        return None

    async def _keep(self) -> None:
        while not self._closing:
            self._killed = self._ending = False
            self.starts += 1
            with self.log.open("ab") as log:
                self._process = await spawn(
                    "tests.chaos.serve", "serve", stdout=log, stderr=log, env=self._env
                )
            looking = asyncio.create_task(self._look())
            code = await self._process.wait()
            looking.cancel()
            self.up.clear()
            if self._closing:
                self.exit_code = code
            elif not self._killed and (code or not self._ending):
                self.exits.append(code)
                await asyncio.sleep(0.5)

    async def _look(self) -> None:
        """Nothing tells when a port begins to answer, so ask."""
        while not self.up.is_set():
            with contextlib.suppress(httpx.HTTPError):
                if (await self._http.get("/healthz")).status_code == 200:
                    self.up.set()
            await asyncio.sleep(0.05)


class Model:
    """The fake model; nobody kills it."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "model.jsonl"
        self.url = ""
        self._folder = folder
        self._process: Process | None = None

    async def start(self, seed: int, rate: float, pause: float, slow: float) -> None:
        options = {
            "--seed": seed,
            "--rate": rate,
            "--pause": pause,
            "--slow": slow,
            "--log": self.log,
        }
        args = [str(part) for option in options.items() for part in option]
        with (self._folder / "model.log").open("ab") as log:
            self._process = await spawn("tests.chaos.model", *args, stdout=PIPE, stderr=log)
        assert self._process.stdout is not None
        async with asyncio.timeout(30):
            port = await self._process.stdout.readline()
        self.url = f"http://127.0.0.1:{int(port)}/v1"

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
