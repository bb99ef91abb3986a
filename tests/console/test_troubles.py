"""A page that is open while something goes wrong, and what becomes of it afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

from playwright.async_api import Page, Route, expect

from tests.console.conftest import browsing, fresh
from tests.console.test_browser import ask
from tests.databases import Postgres
from tests.fakes.model import gate, ok, status
from tests.rig import eventually, rig

HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
FOCUSED = "(document.activeElement.closest('li, tr')?.innerText || '').split('\\n')[0]"


async def dead(house: Any, count: int) -> None:
    """Failed requests `question 0.`, `question 1.`, …"""
    house.model.behave(lambda body: status(400))
    for number in range(count):
        await ask(house, f"question {number}.", user=f"u{number}", count=number + 1)


async def test_a_session_that_ends_meanwhile_says_so_and_leads_to_the_door(database: str) -> None:
    async with rig(database, max_attempts=1) as house, browsing() as made:
        made.may_fail = True
        await dead(house, 2)
        page = await fresh(house, made, "/console/dead")
        await page.context.clear_cookies()
        await page.locator(".dead li").first.get_by_role("button", name="Retry").click()
        await expect(page.locator("#told")).to_have_text("The session is over. Log in")
        async with page.expect_response(lambda answer: "/login?" in answer.url):
            await page.get_by_label("Text").fill("question 1")
        await expect(page.locator(".dead li")).to_have_count(2)  # what was found stays
        await page.locator("#told").get_by_role("link", name="Log in").click()
        await expect(page).to_have_url(f"{house.url}/login?next=%2Fconsole%2Fdead")


async def test_pages_come_back_with_the_database(shared_database: str, postgres: Postgres) -> None:
    name = shared_database.partition("?")[0].rpartition("/")[2]

    async def sql(text: str) -> None:
        await asyncio.to_thread(postgres.run, text)

    async with rig(shared_database) as house, browsing() as made:
        made.may_fail = True
        await ask(house, "first", "second")
        page = await fresh(house, made, "/console/requests")
        other = await page.context.new_page()
        await sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            ends = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname='{name}'"
            await sql(ends)
            await other.goto("/console/flows")
            await expect(other.get_by_role("heading", level=1)).to_have_text("Not now")
            await page.get_by_label("Text").fill("second")
            await expect(page.locator("#told")).to_contain_text("does not answer now")
            await expect(page.locator("tbody tr")).to_have_count(2)
            pulse = other.locator("#pulse")
            await expect(pulse).to_have_text("no database", timeout=40_000)
        finally:
            await sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await expect(other.get_by_role("heading", level=1)).to_have_text(
            "Flows and models", timeout=40_000
        )
        await expect(pulse).to_have_text("live")
        await page.get_by_label("Text").fill("second ")
        await page.get_by_label("Text").fill("second")
        await expect(page.locator("tbody tr")).to_have_count(1)


async def test_a_page_that_nobody_sees_keeps_no_connection(database: str) -> None:
    """A browser has six for all pages of a host: with seven pages open the eighth would hang."""
    async with rig(database) as house, browsing() as made:
        held = gate(ok("late"))
        house.model.behave(lambda body: held)
        async with house.mqtt() as client:
            await client.publish("chatgpt/request/ada", b"slow?")
        (request,) = await house.stored(1)
        page = await fresh(house, made, f"/console/requests/{request['id']}")
        await expect(page.locator("h1 .state")).to_have_text("answering")
        live = house.service.live
        assert live.pages == 1
        await page.evaluate(HIDE, True)
        await eventually(lambda: live.pages == 0)
        held.release()
        await house.ended(1)
        await page.evaluate(HIDE, False)
        await expect(page.locator("h1 .state")).to_have_text("done")  # it caught up
        assert live.pages == 1


async def test_a_page_for_which_there_is_no_room_tries_again(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        made.may_fail = True
        page = await fresh(house, made, "/console/requests")

        async def full(route: Route) -> None:
            await route.fulfill(status=503, body="{}")

        await page.route("**/events", full)
        await page.reload()
        await expect(page.locator(".pulse.off")).to_be_visible()
        await page.unroute("**/events")
        await expect(page.locator(".pulse.on")).to_be_visible()


async def test_after_an_act_the_focus_stays_where_it_was(database: str, quick: None) -> None:
    async with rig(database, max_attempts=1) as house, browsing() as made:
        await dead(house, 6)
        house.model.behave(lambda body: ok("fine now"))
        page = await fresh(house, made, "/console/dead")
        rows = page.locator(".dead li")
        await rows.nth(2).get_by_role("button", name="Retry").focus()
        await page.keyboard.press("Enter")
        await expect(rows).to_have_count(5)
        assert await page.evaluate(FOCUSED) == "question 2."  # which took its place
        await rows.nth(2).get_by_role("button", name="Forget").focus()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Enter")
        await expect(rows).to_have_count(4)
        assert await page.evaluate(FOCUSED) == "question 1."
        await page.goto("/console/flows")
        await page.get_by_role("button", name="Pause story").focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="Resume story")).to_be_focused()


async def test_a_list_that_changes_leaves_the_focus_alone(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        await ask(house, "lamp?", "heat?")
        page = await fresh(house, made)
        link = page.locator("#newest li", has_text="lamp?").get_by_role("link")
        await link.focus()
        await page.evaluate(
            "window.lost = 0; document.addEventListener('focusout', () => { window.lost++; })"
        )
        await ask(house, "three", count=3)
        await expect(page.locator("#newest li", has_text="three").locator(".state")).to_have_text(
            "done"
        )
        await expect(link).to_be_focused()
        assert await page.evaluate("window.lost") == 0


async def test_a_page_that_is_loaded_anew_goes_on_with_its_retries(
    database: str, quick: None
) -> None:
    async with rig(database, max_attempts=1) as house, browsing() as made:
        made.may_fail = True
        await dead(house, 5)
        house.model.behave(lambda body: ok("fine now"))
        page = await fresh(house, made, "/console/dead")
        held = asyncio.Event()

        async def late(route: Route) -> None:
            await held.wait()
            await route.continue_()

        await page.route("**/jobs/*", late)
        await page.get_by_role("button", name="Retry all that the filter finds").click()
        await expect(page.locator(".job")).to_be_visible()
        await page.reload()
        held.set()
        await expect(page.locator("#told")).to_contain_text("5 retried")
        await expect(page.locator("#found .none")).to_be_visible()


# The box to ask


async def talk(house: Any, made: Any) -> Page:
    await ask(house, "My name is Ada.")
    return await fresh(house, made, "/console/conversation?flow=chat&conversation=ada")


async def test_a_reply_is_read_out_once_and_laid_out_when_it_is_whole(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        page = await talk(house, made)
        house.model.behave(lambda body: ok("It is **very** hot in here now", pace=0.15))
        box = page.get_by_label("Ask as the device would")
        await box.fill("Is it hot?")
        await box.press("Enter")
        turn = page.locator(".turn").last
        await expect(turn.locator(".bubble.model")).to_contain_text("**very**")
        assert await turn.get_attribute("aria-busy") == "true"
        await expect(turn.locator(".bubble.model strong")).to_have_text("very")
        assert await turn.get_attribute("aria-busy") == "false"


async def test_enter_that_ends_a_composition_does_not_ask(database: str) -> None:
    """Of an input method: Safari says only its key code."""
    async with rig(database) as house, browsing() as made:
        page = await talk(house, made)
        box = page.get_by_label("Ask as the device would")
        await box.fill("今天")
        for options in ("isComposing: true", "keyCode: 229"):
            await box.evaluate(
                f"(box) => box.dispatchEvent(new KeyboardEvent('keydown', {{ key: 'Enter',"
                f" bubbles: true, cancelable: true, {options} }}))"
            )
        await box.press("Shift+Enter")
        assert await box.input_value() == "今天\n"
        await box.press("Enter")
        await expect(page.locator(".turn")).to_have_count(2)
        await house.ended(2)


async def test_a_question_that_nobody_took_stays_in_the_box(database: str) -> None:
    async with rig(database, max_body=2000) as house, browsing() as made:
        made.may_fail = True
        page = await talk(house, made)
        box = page.get_by_label("Ask as the device would")
        await box.fill("long " * 500)
        await box.press("Enter")
        await expect(page.locator(".bubble.fault")).to_contain_text("MAX_BODY")
        assert await box.input_value() == "long " * 500


async def test_a_reply_that_is_cut_off_says_so(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        page = await talk(house, made)

        async def cut(route: Route) -> None:
            headers = {"content-type": "text/event-stream", "location": "/requests/abc"}
            await route.fulfill(body='data: {"delta": "half of"}\n\n', headers=headers)

        await page.route("**/ask/chat", cut)
        box = page.get_by_label("Ask as the device would")
        await box.fill("Is it hot?")
        await box.press("Enter")
        await expect(page.locator(".bubble.fault")).to_contain_text("the request goes on")


async def test_what_a_device_asks_meanwhile_is_told_in_its_conversation(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        page = await talk(house, made)
        box = page.get_by_label("Ask as the device would")
        await box.fill("a draft")
        await ask(house, "of someone else", user="eve", count=2)
        await ask(house, "from the device", count=3)
        await page.locator("#fresh").click()
        await expect(page.locator(".turn")).to_have_count(2)
        assert await box.input_value() == "a draft"


async def test_a_flow_is_tried_at_each_of_its_topics(database: str) -> None:
    flows = """
        [defaults]
        model = "gpt-5.4-mini"
        [flows.many]
        request = ["any/+/thing/#", "other/${room}/in"]
        reply = "out"
    """
    async with rig(database, flows=flows) as house, browsing() as made:
        page = await fresh(house, made, "/console/flows/many")
        await expect(page.get_by_label("room", exact=True)).to_be_hidden()
        await page.get_by_label("Payload").fill("hi")
        await page.get_by_role("button", name="Ask").click()
        await expect(page.locator('.turn[data-ended="yes"]')).to_have_count(1)
        await page.get_by_label("Topic").select_option("other/${room}/in")
        await page.get_by_label("room", exact=True).fill("kitchen")
        await page.get_by_role("button", name="Ask").click()
        await expect(page.locator('.turn[data-ended="yes"]')).to_have_count(2)
        found = await house.ended(2)
        assert [one["topic"] for one in found] == ["other/kitchen/in", "any/console/thing/console"]


async def test_what_is_paused_elsewhere_is_seen_without_loading_anew(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        page = await fresh(house, made, "/console/flows")
        assert (await house.http.post("/flows/story/pause")).status_code == 200
        await expect(page.get_by_role("button", name="Resume story")).to_be_visible(timeout=25_000)
        await expect(page.locator("#chart canvas")).to_have_count(1)
