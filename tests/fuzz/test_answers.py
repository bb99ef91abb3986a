"""Bad answers by the hundred: each request ends, with a reply or a reason, and nothing stays."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from tests.fuzz.answers import Answers
from tests.fuzz.scale import times
from tests.process import house
from tests.rig import OPERATOR, WEBHOOK, counter, eventually

GROWTH = 60 << 20  # bytes; and what the allocator keeps of ten thousand answers of odd sizes:
KEPT = 12 << 10  # bytes for each (objects do not grow in number)
FLOWS = """
[flows.ask]
request = "ask/${user}"
reply = "say/${user}"
model = "gpt-4.1-mini"
conversation = "all"
deadline = "5s"
timeout = "3s"

[[flows.ask.tools]]
name = "switch"
description = "Switch a lamp"
topic = "lamps/${room}/set"
parameters = { type = "object", properties = { room = { type = "string" } }, required = ["room"] }
"""


@contextlib.asynccontextmanager
async def bad_model(seed: int) -> AsyncIterator[str]:
    answers = Answers(seed)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
            writer.write(answers.answer())
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


async def test_bad_answers_do_no_harm(tmp_path: Path) -> None:
    count = times(200)
    flows = tmp_path / "flows.toml"
    flows.write_text(FLOWS)
    settings = {"FLOWS": str(flows), "MAX_ATTEMPTS": "2", "MAX_CONCURRENCY": "64"}
    async with (
        bad_model(7) as address,
        house(tmp_path, OPENAI_BASE_URL=address, **settings) as (process, *_),
        httpx.AsyncClient(timeout=30) as http,
    ):

        async def ask(first: int, many: int) -> None:
            for number in range(first, first + many):
                fields = {"id": f"q{number}", "topic": f"ask/u{number}", "payload": "hello"}
                headers = {"authorization": f"Bearer {WEBHOOK}"}
                answer = await http.post(
                    f"{process.url}/webhook", content=json.dumps(fields), headers=headers
                )
                assert answer.status_code == 202

        async def ended() -> bool:
            text = (await http.get(f"{process.url}/metrics")).text
            return counter(text, "emqx_gpt_ended_total") >= asked

        asked = 50
        await ask(0, asked)
        await eventually(ended, 20)
        before = process.memory()
        for first in range(50, 50 + count, 1_000):
            many = min(1_000, 50 + count - first)
            asked += many
            await ask(first, many)
            await eventually(ended, 60 + many)
        grown = process.memory() - before
        text = (await http.get(f"{process.url}/metrics")).text
        lines = [line for line in text.splitlines() if line.startswith("emqx_gpt_ended_total{")]
        codes = Counter(line.split('error="')[1].split('"')[0] for line in lines)
        assert "internal" not in codes
        assert len(codes) > 4, codes  # many kinds of bad, and some that were good enough
        assert grown < GROWTH + KEPT * count
        log = process.log.read_text("utf-8", "replace")
        assert "Traceback" not in log
        assert "internal error" not in log
        headers = {"authorization": f"Bearer {OPERATOR}"}
        first = await http.get(f"{process.url}/requests?limit=200", headers=headers)
        assert all(
            one["state"] in ("done", "failed", "expired") for one in first.json()["requests"]
        )
