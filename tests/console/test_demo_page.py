"""The console of `emqx-gpt demo`: the way in that it prints, and all that an operator does."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from playwright.async_api import Page, expect

from tests.console.conftest import browsing
from tests.demo.test_demo import Demo, demo
from tests.rig import ROOT, eventually


async def on_screen(running: Demo, text: str) -> None:
    """Wait until it has been shown."""
    assert running.process.stdout is not None
    async with asyncio.timeout(90):
        while text not in running.screen:
            running.screen += (await running.process.stdout.read(4096)).decode(errors="replace")


async def listed(page: Page, query: str) -> bool:
    """Whether the question is in the list that a filter finds."""
    await page.goto(f"/console/requests?{query}")
    return "Still there?" in await page.locator("#found").inner_text()


async def test_the_play_is_watched_and_the_demo_is_run_from_the_page(tmp_path: Path) -> None:
    async with demo(tmp_path, (ROOT / "flows.toml").read_text()) as running, browsing() as made:
        await on_screen(running, "broker ")
        lines = [line.split() for line in running.screen.splitlines() if "://" in line]
        assert lines[0][0] == "page"  # the address comes first
        address = re.search(r"http://\S+/login#\S+", running.screen)
        assert address is not None
        url, _, token = address[0].partition("/login")
        page = await made.open(url, theme="dark")
        await page.goto(f"/login{token}")
        await page.wait_for_selector(".pulse.on")
        assert token[1:] not in page.url
        await expect(page.locator("#newest .state").first).to_be_visible(timeout=60_000)
        await on_screen(running, "Ctrl-C ends")
        await expect(page.locator("#newest li .state.done").first).to_be_visible()
        await expect(page.locator("#alarms")).to_be_empty()

        await running.ask("chatgpt/request/grace", "Are you there?")
        row = page.locator("#newest li", has_text="Are you there?")
        await expect(row.locator(".state")).to_have_text("done")
        await row.get_by_role("link").click()
        await expect(page.locator(".fall li.ok")).to_have_count(1)
        await page.locator(".facts a", has_text="grace").click()
        await page.get_by_label("Ask as the device would").fill("And now?")
        await page.keyboard.press("Enter")
        await expect(page.locator('.turn[data-ended="yes"] .bubble.model')).not_to_be_empty()

        await page.goto("/console/flows")
        await page.get_by_role("button", name="Pause chat").click()
        await expect(page.get_by_role("button", name="Resume chat")).to_be_visible()
        await running.ask("chatgpt/request/grace", "Still there?")
        await eventually(lambda: listed(page, "flow=chat&state=queued"))
        await page.goto("/console/flows")
        await page.get_by_role("button", name="Resume chat").click()
        await eventually(lambda: listed(page, "flow=chat&state=done&text=Still"))
        await page.get_by_role("link", name="中文").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("请求")
