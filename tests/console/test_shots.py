"""The pictures of the READMEs; SCREENSHOTS names the folder they are kept in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from playwright.async_api import Page, expect

from tests.console.conftest import PHONE, browsing, fresh
from tests.fakes.model import gate, ok, status, tool_calls
from tests.rig import ROOT, rig

PRICES = '\n[prices]\n"gpt-5.4-mini" = { input = 0.75, output = 4.5 }\n'
ASKED = (
    ("chatgpt/request/ada", "My name is Ada, and my boiler hums.", "Hello Ada! A **humming** boiler"
     " is mostly one of three things:\n\n1. air in the pipes: bleed the radiators\n2. the pump"
     " runs too fast\n3. limescale in the heat exchanger\n\nDoes it hum all the time?"),
    ("sensors/boiler/telemetry", '{"temperature": 45.5}', "Attention please: sensor boiler reads"
     " 45.5 °C, 5.5 °C over its limit."),
    ("/xiaomi/chatgpt", "小爱机器人今天星期几", "今天是星期四。"),
    ("parse/tank/in", "tank 3 abt two thirds full, 18C", '{"summary": "tank 3, two thirds full,'
     ' 18 °C", "readings": [{"quantity": "level", "value": 66.7, "unit": "%"},'
     ' {"quantity": "temperature", "value": 18, "unit": "°C"}]}'),
    ("story/leo/ask", "a lighthouse and a robot", "Once upon a time a small robot kept a lighthouse"
     " clean. One night the lamp went out …"),
    ("ask/panel-7", "What is MQTT?", "A light publish/subscribe protocol for devices."),
    ("chatgpt/request/ada", "Only when it starts. What do I do?", "Then it is most likely air."
     " Bleed the radiators, from the lowest to the highest."),
)  # fmt: skip


def _kept(name: str, tmp_path: Path) -> Path:
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.png"


async def _live(house: Any) -> str:
    """A house that has seen something of each kind; the id of a request with a tool call."""
    async with house.mqtt() as client:
        for number, (topic, question, answer) in enumerate(ASKED, 1):
            house.model.script(ok(answer, usage=(180 + 37 * number, 24 + 9 * number)))
            await client.publish(topic, question.encode())
            await house.ended(number)
        call = tool_calls([("set_light", {"room": "kitchen", "on": True, "brightness": 60})])
        house.model.script(status(503, message="overloaded"), call, ok("The kitchen is lit."))
        await client.publish("home/ada/ask", b"Light up the kitchen, but not too bright.")
        found = await house.ended(len(ASKED) + 1)
        house.model.script(status(400, message="this model takes no pictures"))
        await client.publish("parse/tank/in", b"\x00\x17 level=??")
        await house.ended(len(ASKED) + 2)
    return str(found[0]["id"])


async def _shot(page: Page, path: Path, *, full: bool = False) -> None:
    await page.wait_for_selector(".pulse.on")
    picture = await page.screenshot(path=path, full_page=full, animations="disabled")
    assert len(picture) > 20_000


async def test_pictures(database: str, tmp_path: Path, quick: None) -> None:
    flows = (ROOT / "flows.toml").read_text() + PRICES
    async with rig(database, flows=flows, store_prompts=True) as house, browsing() as made:
        lit = await _live(house)
        held = gate(ok("…"))
        house.model.behave(lambda body: held)
        async with house.mqtt() as client:
            for user in ("eve", "bob"):
                await client.publish(f"chatgpt/request/{user}", b"Is the window open?")
        await house.stored(len(ASKED) + 4)
        desk = await fresh(house, made, theme="dark")
        await expect(desk.locator("#newest li")).to_have_count(len(ASKED) + 4)
        await _shot(desk, _kept("console-live", tmp_path))
        await desk.goto(f"/console/requests/{lit}")
        await _shot(desk, _kept("console-request", tmp_path))
        await desk.goto("/console/flows")
        await _shot(desk, _kept("console-flows", tmp_path))
        phone = await fresh(house, made, size=PHONE)
        await _shot(phone, _kept("console-phone-live", tmp_path))
        conversation = "/console/conversation?flow=chat&conversation=ada"
        await phone.goto(conversation)
        await _shot(phone, _kept("console-phone", tmp_path))
        # The same for README.zh-CN.md.
        desk = await fresh(house, made, theme="dark", language="zh-CN")
        await expect(desk.locator("#newest li")).to_have_count(len(ASKED) + 4)
        await _shot(desk, _kept("console-live.zh-CN", tmp_path))
        phone = await fresh(house, made, size=PHONE, language="zh-CN")
        await phone.goto(conversation)
        await _shot(phone, _kept("console-phone.zh-CN", tmp_path))
        held.release()
