"""Another client, who only wants to be served: what it has to wait while somebody attacks."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

from tests.rig import WEBHOOK, environment


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def waits(port: int, seconds: float, pause: float = 0.01) -> list[float]:
    """How long each of its webhooks waited for a 202, in seconds. Fails on any other answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found: list[float] = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        fields = {"id": f"n{time.monotonic_ns()}", "topic": "nobody/asked", "payload": "x"}
        body = json.dumps(fields).encode()
        head = (
            "POST /webhook HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {WEBHOOK}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        began = time.monotonic()
        writer.write(head.encode() + body)
        async with asyncio.timeout(20):
            answer = await reader.readuntil(b"}")
        found.append(time.monotonic() - began)
        assert answer.startswith(b"HTTP/1.1 202"), answer
        await asyncio.sleep(pause)
    writer.close()
    return found


def attacker(module: str, name: str, *args: object) -> subprocess.Popen[bytes]:
    """An attack in a process of its own, which ends by itself."""
    command = [sys.executable, "-m", f"tests.attacks.{module}", name, *map(str, args)]
    return subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE)
