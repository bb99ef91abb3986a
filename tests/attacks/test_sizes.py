"""Servers behind us that mean harm: an answer costs no more memory than MAX_ANSWER allows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from service.emqx.management_api import EmqxAdmin
from service.emqx.publish_api import Emqx
from service.errors import BrokerError
from tests.attacks.hostile import ANSWERS, GZIP, JSON, bomb, endless, head, hostile, once
from tests.attacks.neighbour import percentile, waits
from tests.process import house
from tests.rig import OPERATOR, eventually

GROWTH = 40 << 20  # bytes
PATIENCE = 1.0  # seconds, p99 of the neighbour, on machines busy with other tests
LIGHT = """
[flows.light]
request = "light/${user}"
reply = "light/${user}/said"
stream = "light/${user}/stream"
model = "gpt-4.1-mini"
timeout = "20s"

[flows.other]
request = "other/${user}"
reply = "other/${user}/said"
model = "gpt-4.1-mini"

[[flows.light.tools]]
name = "set_light"
description = "Switch a lamp"
topic = "lamps/${room}/set"
parameters = { type = "object", properties = { room = { type = "string" } }, required = ["room"] }
"""


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_without_end_ends(tmp_path: Path, name: str) -> None:
    reply, code = ANSWERS[name]
    flows = tmp_path / "flows.toml"
    flows.write_text(LIGHT)
    async with (
        hostile(reply) as (address, seen),
        house(tmp_path, FLOWS=str(flows), OPENAI_BASE_URL=f"{address}/v1") as (process, *_),
        httpx.AsyncClient(headers={"authorization": f"Bearer {OPERATOR}"}) as http,
    ):
        await waits(process.port, 1.0)
        before = process.memory()
        process.forget_peak()
        asked = await http.post(
            f"{process.url}/ask/light",
            json={"topic": "light/ada", "text": "on", "publish": False},
            headers={"prefer": "respond-async"},
        )
        assert asked.status_code in (200, 202), asked.text
        id = asked.json()["id"]

        async def failed() -> dict[str, object] | None:
            found = (await http.get(f"{process.url}/requests/{id}")).json()
            return found if found["attempts"] else None

        waiting = asyncio.create_task(waits(process.port, 2.0))
        found = await eventually(failed, 30)
        assert found["attempts"][0]["result"] == code
        p99 = percentile(await waiting, 0.99)
        grown = process.peak() - before
        print(f"ANSWER {name}: p99 {p99 * 1000:.1f} ms, {grown / 1e6:.0f} MB")
        assert grown < GROWTH
        assert p99 < PATIENCE
        assert seen
        log = process.log.read_text()
        assert "Traceback" not in log
        assert "secret" not in log


async def test_what_answers_at_emqx_url_is_bounded(tmp_path: Path) -> None:
    for reply in (endless(head(JSON), b'["'), once(head(JSON, GZIP), bomb(b'["'))):
        async with hostile(reply) as (address, _):
            emqx, admin = Emqx(address, ("key", "secret")), EmqxAdmin(address, ("key", "secret"))
            for call in (emqx.ping(), emqx.retained("a"), admin.rules(), admin.running()):
                with pytest.raises(BrokerError) as raised:
                    await call
                assert raised.value.code == "broker_strange"
            await emqx.close()
            await admin.close()
