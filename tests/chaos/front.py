"""The front that we ship, in Debian's HAProxy, before services on any ports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.chaos.processes import free_port
from tests.rig import ROOT

CONFIG = ROOT / "haproxy"
TEMPLATE = '  server-template replica 10 "${BACKEND}"\n'


@contextlib.asynccontextmanager
async def front(ports: Sequence[int], log: Path) -> AsyncIterator[int]:
    """Its port. Only the line that names the replicas differs: there is no name server here."""
    home = log.parent / "haproxy"
    shutil.copytree(CONFIG, home)
    config = home / "haproxy.cfg"
    text = config.read_text("utf-8")
    assert TEMPLATE in text
    servers = "".join(f"  server replica{port} 127.0.0.1:{port}\n" for port in ports)
    config.write_text(text.replace(TEMPLATE, servers), "utf-8")
    port = free_port()
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *("haproxy", "-db", "-f", str(config)),
            env={**os.environ, "LISTEN": f"127.0.0.1:{port}"},
            stdout=out,
            stderr=out,
        )
        try:
            await _listening(process, port, log)
            yield port
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _listening(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    async with asyncio.timeout(20):
        while True:
            assert process.returncode is None, f"HAProxy ended; see {log}"
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)
