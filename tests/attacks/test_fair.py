"""One client that floods: others are taken and answered all the same."""

from __future__ import annotations

import asyncio
import json
import time

import httpx

from service.demo.play import Client
from service.emqx.config_file import render_filled
from service.flows.load import load
from tests.fakes.model import delay
from tests.process import Process, house
from tests.rig import WEBHOOK, counter, eventually, message

FLOWS = """
[flows.chat]
request = "chat/${user}/ask"
reply = "chat/${user}/say"
model = "gpt-test"
%s
"""


async def flood(process: Process, count: int) -> list[dict[str, int]]:
    """So many questions of one client, each in a conversation of its own; the answers."""
    headers = {"authorization": f"Bearer {WEBHOOK}"}
    limits = httpx.Limits(max_connections=8)
    patience = httpx.Timeout(30, pool=None)  # all of them wait for the eight connections
    async with httpx.AsyncClient(headers=headers, timeout=patience, limits=limits) as http:

        async def one(number: int) -> dict[str, int]:
            fields = {
                "id": f"f{number}",
                "topic": f"chat/f{number}/ask",
                "payload": "x",
                "clientid": "flooder",
            }
            answer = await http.post(f"{process.url}/webhook", content=json.dumps(fields))
            assert answer.status_code == 202
            return answer.json()  # type: ignore[no-any-return]

        return list(await asyncio.gather(*(one(number) for number in range(count))))


async def asked(client: Client, user: str) -> float:
    """Seconds until the reply."""
    began = time.monotonic()
    await client.publish(f"chat/{user}/ask", b"hello")
    assert (await message(client, 60))[0] == f"chat/{user}/say"
    return time.monotonic() - began


async def waits(tmp_path, keys: str) -> tuple[float, float]:
    """What another one waits alone, and with 600 of a flooder's before it: 15 s of work."""
    flows = tmp_path / "flows.toml"
    flows.write_text(FLOWS % keys)
    settings = {"FLOWS": str(flows), "MAX_CONCURRENCY": "8"}
    async with house(tmp_path, **settings) as (process, broker, model, client):
        model.behave(lambda body: delay(0.2))
        await client.subscribe(["chat/ada/say", "chat/bob/say"])
        await broker.load(render_filled(load(flows), process.url, WEBHOOK))
        alone = await asked(client, "ada")
        await flood(process, 600)
        beside = await asked(client, "bob")
        print(f"FAIR {keys or 'without order'}: alone {alone:.2f} s, beside a flood {beside:.2f} s")
        return alone, beside


async def test_who_asks_once_is_not_kept_waiting_by_a_flood(tmp_path) -> None:
    for keys in ("history = { messages = 4 }", ""):
        folder = tmp_path / ("a" if keys else "b")
        folder.mkdir()
        alone, beside = await waits(folder, keys)
        assert beside < alone + 3.0  # and not the fifteen that stand before it


async def test_a_flood_takes_its_part_of_the_backlog_and_leaves_the_rest(tmp_path) -> None:
    flows = tmp_path / "flows.toml"
    flows.write_text(FLOWS % "")
    settings = {"FLOWS": str(flows), "MAX_CONCURRENCY": "1", "MAX_BACKLOG": "1000"}
    async with house(tmp_path, **settings) as (process, broker, model, client):
        model.behave(lambda body: delay(30.0))
        await client.subscribe(["chat/f0/say", "chat/+/say"])
        answers = await flood(process, 1_500)
        taken = sum(answer["accepted"] for answer in answers)
        refused = sum(answer.get("refused", 0) for answer in answers)
        assert 500 <= taken <= 600  # half of the backlog, while nobody else wants it
        assert taken + refused == 1_500
        said = (await message(client))[1]
        assert said == b"No answer: too many of your messages wait already."
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {WEBHOOK}"}) as http:
            for number in range(50):
                fields = {"id": f"o{number}", "topic": f"chat/o{number}/ask", "payload": "x"}
                body = json.dumps(fields | {"clientid": f"other{number}"})
                answer = await http.post(f"{process.url}/webhook", content=body)
                assert answer.json()["accepted"] == 1

            async def told() -> bool:
                text = (await http.get(f"{process.url}/metrics")).text
                return counter(text, "emqx_gpt_refused_total", code="share") == refused

            await eventually(told)
        lines = [line for line in process.log.read_text().splitlines() if "part of the" in line]
        assert len(lines) == 1
