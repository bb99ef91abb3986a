"""Bad webhooks by the thousand: each is answered, and none of them leaves anything behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from tests.fuzz.scale import times
from tests.fuzz.storm import Storm, post
from tests.process import house
from tests.rig import WEBHOOK

CONNECTIONS = 8
GROWTH = 30 << 20  # bytes: what caches may take; one kept body in fifty would be more


async def sent(port: int, seed: int, count: int) -> Counter[int]:
    """`count` requests on one connection, eight under way; their statuses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    storm, statuses, under_way = Storm(seed), Counter[int](), asyncio.Semaphore(8)
    writer.write(post(WEBHOOK, b"{}"))  # from here on it is none of a stranger
    await reader.readuntil(b"}}")

    async def read() -> None:
        for _ in range(count):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = head.split("content-length: ")[1].split("\r\n")[0]
            await reader.readexactly(int(length))
            statuses[int(head.split(" ")[1])] += 1
            under_way.release()

    reading = asyncio.create_task(read())
    for _ in range(count):
        await under_way.acquire()
        writer.write(storm.request(WEBHOOK))
    async with asyncio.timeout(120):
        await reading
    writer.close()
    return statuses


async def test_bad_webhooks_do_no_harm(tmp_path: Path) -> None:
    each = times(2_000) // CONNECTIONS
    async with house(tmp_path) as (process, _, _, client):

        async def round(of: int, first: int) -> Counter[int]:
            storms = (sent(process.port, first + n, of) for n in range(CONNECTIONS))
            return sum(await asyncio.gather(*storms), Counter[int]())

        await round(50, 1_000)  # warm
        before = process.memory()
        statuses = await round(each, 1)
        grown = process.memory() - before
        assert sum(statuses.values()) == each * CONNECTIONS
        assert set(statuses) <= {202, 400, 401, 413, 503}
        assert statuses[400] > each
        assert statuses[202] > 0
        assert grown < GROWTH
        await client.publish("chatgpt/request/ada", b"still there?")
        async with asyncio.timeout(60):
            while (await client.messages.get())[1] != b"echo: still there?":
                pass
        log = process.log.read_text("utf-8", "replace")
        assert "Traceback" not in log
        assert "internal error" not in log
        assert len(log.splitlines()) < 300
