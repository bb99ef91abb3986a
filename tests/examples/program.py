"""A program of an example, and what it has said so far."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

PATIENCE = 60.0  # seconds until a program says what it has to


class Program:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.said = ""
        self._process = process

    async def says(self, pattern: str, seconds: float = PATIENCE) -> str:
        """Wait for a line in which the pattern is found; returns the line."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                while (found := re.search(f"^.*(?:{pattern}).*$", self.said, re.M)) is None:
                    piece = await self._process.stdout.read(4096)
                    assert piece, f"it ended before {pattern!r}:\n{self.said}"
                    self.said += piece.decode(errors="replace")
        except TimeoutError:
            raise AssertionError(f"not said: {pattern!r}\n{self.said}") from None
        return found[0]


@contextlib.asynccontextmanager
async def program(
    *command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> AsyncIterator[Program]:
    """Run it, with all that it starts; end it afterwards."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield Program(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
