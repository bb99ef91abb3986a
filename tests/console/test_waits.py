"""What tool calls wait for, in a real browser: a person says yes, or what became of a command."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from tests.console.conftest import PHONE, browsing, fresh, log_in
from tests.console.test_browser import _violations
from tests.e2e.test_waiting import ASK, DOOR, HEAD, LAMP, LIT, PIN, SAY, commands, state
from tests.fakes.model import ok, tool_calls
from tests.rig import message, rig

UNLOCK = tool_calls([("unlock", {"name": "front"})])
ONCE = HEAD + LAMP + "at_most_once = true\n"
WIDE = "document.documentElement.scrollWidth - innerWidth"


async def asked(house: Any, client: Any) -> str:
    house.model.script(UNLOCK, ok("It is open."))
    await client.publish(ASK, b"open the front door")
    return str((await state(house))["id"])


async def unknown(house: Any, client: Any) -> str:
    """A request with a command of which nobody knows what became."""
    house.model.script(tool_calls([("lamp", LIT)]), ok("I do not know."))
    await client.publish(ASK, b"light")
    await message(client)
    id = str((await state(house))["id"])
    await house.move(20_001)
    await house.ended()
    return id


async def test_a_person_is_answered_for_by_keyboard_alone(database: str) -> None:
    environ = {"DOOR_PIN": "4711"}
    async with (
        rig(database, flows=HEAD + PIN, environ=environ) as house,
        browsing() as made,
        house.mqtt("door/#", SAY) as client,
    ):
        made.may_fail = True  # the wrong PIN is a 403
        id = await asked(house, client)
        page = await fresh(house, made, f"/console/requests/{id}")
        await expect(page.locator("h1 .state")).to_have_text("waiting")
        card = page.locator("#waits")
        await expect(card.locator(".question")).to_contain_text("May I do this: unlock")
        await expect(page.locator(".fall")).to_contain_text("for a person's word")
        pin = page.get_by_label("PIN")
        assert await pin.get_attribute("type") == "password"
        await pin.focus()
        await page.keyboard.type("1234")
        await page.keyboard.press("Enter")
        await expect(page.locator("#told")).to_contain_text("that is the wrong PIN")
        await pin.fill("4711")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("button", name="Yes, do it")).to_be_focused()
        await page.keyboard.press("Enter")
        assert (await message(client))[0] == "door/front/set"
        await expect(page.locator("h1 .state")).to_have_text("done")
        await expect(card).to_contain_text("operator")
        await expect(card.locator("pre")).to_have_text("yes")
        assert await card.locator("button").count() == 0
        assert "4711" not in await page.content()


async def test_a_no_is_a_click(database: str) -> None:
    async with (
        rig(database, flows=HEAD + DOOR) as house,
        browsing() as made,
        house.mqtt(SAY) as client,
    ):
        id = await asked(house, client)
        page = await fresh(house, made, f"/console/requests/{id}")
        assert await page.get_by_label("PIN").count() == 0
        await page.get_by_role("button", name="No", exact=True).click()
        await expect(page.locator("h1 .state")).to_have_text("done")
        assert await commands(house, "door/front/set") == []


async def test_what_sleeps_is_seen_on_the_live_page_and_found(database: str) -> None:
    async with (
        rig(database, flows=HEAD + DOOR) as house,
        browsing() as made,
        house.mqtt(SAY) as client,
    ):
        await asked(house, client)
        page = await fresh(house, made)
        await expect(page.locator("#newest .state")).to_have_text("waiting")
        small = page.locator('[data-show="inbox.small"]')
        await expect(small).to_have_text("1 for devices and people")
        await page.goto("/console/requests?state=waiting")
        await expect(page.locator("tbody tr")).to_have_count(1)


async def test_what_nobody_knows_is_settled_and_then_retried(database: str) -> None:
    async with (
        rig(database, flows=ONCE) as house,
        browsing() as made,
        house.mqtt("lamp/+/set", SAY) as client,
    ):
        made.may_fail = True  # the retry is a 409
        id = await unknown(house, client)
        page = await fresh(house, made, f"/console/requests/{id}")
        await page.get_by_role("button", name="Retry", exact=True).click()
        await expect(page.locator("#told")).to_contain_text("must not be repeated")
        card = page.locator("#unsettled")
        await expect(card).to_contain_text('"room":"attic"')
        await card.get_by_role("button", name="It was not done").click()
        await expect(card).to_have_count(0)
        await expect(page.locator(".fall > li.tool")).to_contain_text("refused (operator)")
        house.model.script(ok("Once more."))
        await page.get_by_role("button", name="Retry", exact=True).click()
        await expect(page.locator("h1 .state")).to_have_text("done")


@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
async def test_axe_finds_nothing_and_nothing_is_too_wide(database: str, language: str) -> None:
    environ = {"DOOR_PIN": "4711"}
    async with (
        rig(database, flows=ONCE + PIN, environ=environ) as house,
        browsing() as made,
        house.mqtt("lamp/+/set") as client,
    ):
        ids = [await unknown(house, client), await asked(house, client)]
        axe = Axe()
        for theme, size in (("dark", None), ("light", PHONE)):
            options: dict[str, Any] = {"theme": theme, "language": language}
            page = await made.open(house.url, **options, **({"size": size} if size else {}))
            await log_in(page)
            for id in ids:
                await page.goto(f"/console/requests/{id}")
                await page.wait_for_selector(".pulse.on")
                assert await page.locator("form.say").count() == 1
                assert (id, await _violations(axe, page)) == (id, [])
                assert await page.evaluate(WIDE) == 0
        await page.goto("/")
        await page.wait_for_selector("#newest .state.waiting")
        assert await _violations(axe, page) == []


async def test_who_may_only_look_has_no_button(database: str) -> None:
    async with (
        rig(database, flows=HEAD + DOOR, viewer_token="only-looking") as house,
        browsing() as made,
        house.mqtt(SAY) as client,
    ):
        id = await asked(house, client)
        page = await log_in(await made.open(house.url), "only-looking", f"/console/requests/{id}")
        await expect(page.locator("#waits .question")).to_be_visible()
        assert await page.locator("main button").count() == 0
