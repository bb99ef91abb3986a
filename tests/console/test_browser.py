"""What an operator does, in a real browser."""

from __future__ import annotations

import json
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.console.conftest import PHONE, browsing, fresh, log_in
from tests.fakes.model import gate, ok, status, tool_calls
from tests.rig import OPERATOR_AUTH, eventually, rig

PAGES = (
    "/",
    "/console/requests",
    "/console/conversations",
    "/console/conversation?flow=chat&conversation=ada",
    "/console/dead?state=failed",
    "/console/flows",
    "/console/flows/chat",
    "/console/flows/home",
    "/console/acts",
)
HOSTILE = '<img src=x onerror=alert(1)><script>alert(2)</script>"\' hx-get="/x" ${payload}'
MARKDOWN = (
    "# Title\n\n[a](javascript:alert(3)) ![b](http://192.0.2.9/c.png) <b onclick=alert(4)>c</b>\n\n"
    "[d](https://example.org/) | x |\n\n- **bold**\n\n```\n<i>code</i>\n```\n"
)


async def ask(house: Any, *texts: str, user: str = "ada", count: int | None = None) -> list[Any]:
    """Publish to the chat; the requests once they have ended."""
    async with house.mqtt() as client:
        for text in texts:
            await client.publish(f"chatgpt/request/{user}", text.encode())
    return await house.ended(count or len(texts))


async def test_log_in_watch_a_request_open_its_waterfall(database: str) -> None:
    """By keyboard alone."""
    async with rig(database) as house, browsing() as made:
        held = gate(ok("Hello, Ada!", usage=(12, 3)))
        house.model.behave(lambda body: held)
        page = await made.open(house.url)
        await page.goto("/console/requests?flow=chat")
        await expect(page).to_have_title("Log in · emqx-gpt")
        await page.keyboard.type("wrong")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text("No such token.")
        await page.keyboard.type("operator-token")
        await page.keyboard.press("Enter")
        await expect(page).to_have_url(f"{house.url}/console/requests?flow=chat")
        await page.get_by_role("link", name="Live").focus()
        await page.keyboard.press("Enter")
        await page.wait_for_selector(".pulse.on")
        async with house.mqtt() as client:
            await client.publish("chatgpt/request/ada", b"Who are you?")
        row = page.locator("#newest li", has_text="Who are you?")
        await expect(row.locator(".state")).to_have_text("answering")
        held.release()
        await expect(row.locator(".state")).to_have_text("done")
        await expect(row).to_contain_text("Hello, Ada!")
        await row.get_by_role("link").focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_contain_text("Who are you?")
        steps = page.locator(".fall > li b")
        names = await steps.all_inner_texts()
        assert [name for name in names if name not in ("begun", "waited")] == [
            *("received", "stored", "model", "answered", "published", "ended"),
        ]
        await expect(page.locator(".said")).to_have_text("Hello, Ada!")
        await expect(page.locator(".facts")).to_contain_text("12 → 3")


async def test_an_open_request_goes_on_before_ones_eyes(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        held = gate(ok("late"))
        house.model.behave(lambda body: held)
        async with house.mqtt() as client:
            await client.publish("chatgpt/request/ada", b"slow?")
        (request,) = await house.stored(1)
        page = await fresh(house, made, f"/console/requests/{request['id']}")
        await expect(page.locator("h1 .state")).to_have_text("answering")
        held.release()
        await expect(page.locator("h1 .state")).to_have_text("done")
        await expect(page.locator(".said")).to_have_text("late")


async def test_tool_calls_are_shown_with_what_came_of_them(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        house.model.script(
            tool_calls([("set_light", {"room": "kitchen", "on": True})]), ok("It is on.")
        )
        async with house.mqtt() as client:
            await client.publish("home/ada/ask", b"Light up the kitchen.")
        (request,) = await house.ended(1)
        page = await fresh(house, made, f"/console/requests/{request['id']}")
        tool = page.locator(".fall > li.tool")
        await expect(tool).to_contain_text("set_light")
        await expect(tool).to_contain_text("home/devices/kitchen/light/set")
        await expect(tool.locator("pre").first).to_contain_text('"room": "kitchen"')
        assert await page.locator(".fall svg.bar .fill").count() >= 6


async def test_ask_and_see_the_reply_stream(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        await ask(house, "My name is Ada.")
        page = await fresh(house, made, "/console/conversation?flow=chat&conversation=ada")
        await expect(page.locator(".bubble.user")).to_have_text("My name is Ada.")
        words = "one two three four five six seven eight nine ten"
        house.model.behave(lambda body: ok(words, pace=0.15))
        await page.keyboard.press("/")
        await page.keyboard.type("Count!")
        await page.keyboard.press("Enter")
        said = page.locator(".turn:last-child .bubble.model")
        await expect(said).to_contain_text("two")
        assert "ten" not in await said.inner_text()  # it comes piece by piece
        await expect(said).to_have_text(words)
        (newest, _) = await house.ended(2)
        assert (newest["text"], newest["conversation"]) == ("Count!", "ada")
        await page.reload()
        await expect(page.locator(".bubble")).to_have_count(4)


async def test_a_flow_is_tried_from_its_form(database: str) -> None:
    async with rig(database) as house, browsing() as made, house.mqtt("#") as client:
        house.model.behave(lambda body: ok("Sensor is hot."))
        page = await fresh(house, made, "/console/flows/alarm")
        await page.get_by_label("device", exact=True).fill("boiler")
        await page.get_by_label("Payload").fill('{"temperature": 41}')
        await page.get_by_label("publish the reply").check()
        await page.get_by_role("button", name="Ask").click()
        await expect(page.locator(".bubble.model")).to_have_text("Sensor is hot.")
        (request,) = await house.ended(1)
        assert request["topic"] == "sensors/boiler/telemetry"
        topic, _ = await client.messages.get()
        assert topic == "alerts/boiler"


async def test_dead_letters_are_retried_edited_and_forgotten(
    any_database: str, quick: None
) -> None:
    async with rig(any_database, max_attempts=1) as house, browsing() as made:
        house.model.behave(lambda body: status(400, message="no such field"))
        texts = [f"question {number}" for number in range(30)]
        for number, text in enumerate(texts):
            await ask(house, text, user=f"u{number}", count=number + 1)
        page = await fresh(house, made, "/console/dead")
        await expect(page.locator("nav .count")).to_have_text("30")
        await expect(page.locator(".dead li")).to_have_count(30)
        await page.get_by_label("Text").fill("question 1")
        await expect(page.locator(".dead li")).to_have_count(11)
        first = page.locator(".dead li", has_text="question 19")
        await first.get_by_role("button", name="Forget").click()
        await page.get_by_role("button", name="Really?").click()
        await expect(page.locator(".dead li")).to_have_count(10)
        house.model.behave(lambda body: ok("fine now"))
        await page.get_by_role("button", name="Retry all that the filter finds").click()
        await expect(page.locator("#told")).to_contain_text("10 retried")
        await expect(page.locator("#found .none")).to_be_visible()
        done = await eventually(lambda: _done(house, 10))
        assert {one["text"] for one in done} == {text for text in texts if "n 1" in text} - {
            "question 19"
        }
        await page.goto("/console/dead")
        await page.get_by_role("link", name="question 20").click()
        await page.get_by_text("Edit, then retry").click()
        await page.get_by_label("Asked instead").fill("a better question")
        await page.get_by_role("button", name="Retry with this").click()
        await expect(page.locator("h1 .state")).to_have_text("done")
        await expect(page.locator("h1")).to_contain_text("a better question")
        await page.goto("/console/acts")
        acts = page.locator("tbody tr")
        await expect(acts.first).to_contain_text("retry")
        await expect(acts.first).to_contain_text("(edited)")
        assert "forget" in await page.locator("tbody").inner_text()


async def _done(house: Any, count: int) -> list[Any]:
    found = await house.requests(limit=500, state="done")
    return found if len(found) == count else []


async def test_a_flow_is_paused_and_goes_on(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        page = await fresh(house, made, "/console/flows")
        pause = page.get_by_role("button", name="Pause chat")
        await pause.focus()
        await page.keyboard.press("Enter")
        resume = page.get_by_role("button", name="Resume chat")
        await expect(resume).to_be_visible()
        async with house.mqtt() as client:
            await client.publish("chatgpt/request/ada", b"anybody?")
        (request,) = await house.stored(1)
        await page.goto("/")
        await expect(page.locator("#alarms")).to_contain_text("The flow chat is paused")
        await expect(page.locator('[data-show="inbox.big"]')).to_have_text("1")
        await page.goto(f"/console/requests/{request['id']}")
        await expect(page.locator(".fall")).to_contain_text("paused by a person")
        await page.goto("/console/flows")
        await resume.click()
        await expect(pause).to_be_visible()
        await house.ended(1)


async def test_language_and_theme_are_chosen_and_kept(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        await ask(house, "hi")
        page = await fresh(house, made, "/console/requests")
        ground = "getComputedStyle(document.body).backgroundColor"
        light = await page.evaluate(ground)
        await page.get_by_role("link", name="Dark", exact=True).click()
        await expect(page).to_have_url(f"{house.url}/console/requests")
        assert await page.evaluate(ground) != light
        await page.get_by_role("link", name="中文").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("请求")
        await expect(page.locator("td .state")).to_have_text("完成")
        await page.goto("/console/flows")
        await expect(page.get_by_role("heading", level=1)).to_have_text("流程与模型")
        assert await page.evaluate("document.documentElement.lang") == "zh-CN"
        chinese = await made.open(house.url, language="zh-CN")
        await chinese.goto("/")
        await expect(chinese.get_by_role("heading", level=1)).to_have_text("登录")


@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
async def test_nothing_for_axe_to_find_and_nothing_too_wide(database: str, language: str) -> None:
    flows = None
    async with rig(database, flows=flows, max_attempts=1, store_prompts=True) as house:
        await _lively(house)
        requests = await house.requests(limit=50)
        one = [f"/console/requests/{request['id']}" for request in requests[:4]]
        async with browsing() as made:
            axe = Axe()
            for theme, size in (("dark", None), ("light", PHONE)):
                options: dict[str, Any] = {"theme": theme, "language": language}
                page = await made.open(house.url, **options, **({"size": size} if size else {}))
                await page.goto("/login")
                assert await _violations(axe, page) == []
                await log_in(page)
                for path in (*PAGES, *one):
                    await page.goto(path)
                    await page.wait_for_selector(".pulse.on")
                    assert (path, await _violations(axe, page)) == (path, [])
                    wide = "document.documentElement.scrollWidth - innerWidth"
                    assert (path, await page.evaluate(wide)) == (path, 0)


async def _violations(axe: Axe, page: Page) -> list[Any]:
    found = await axe.run(page)
    return [
        (one["id"], [node["html"][:200] for node in one["nodes"]])
        for one in found.response["violations"]
    ]


async def _lively(house: Any) -> None:
    house.model.behave(lambda body: ok(MARKDOWN, usage=(1200, 340)))
    await ask(house, "Hello, what can you do?", "And what is MQTT?", "Thank you.")
    house.model.behave(None)
    house.model.script(tool_calls([("set_light", {"room": "kitchen", "on": True})]), ok("Done."))
    async with house.mqtt() as client:
        await client.publish("home/ada/ask", b"Light up the kitchen.")
    await house.ended(4)
    house.model.behave(lambda body: status(400, message="a field it does not know"))
    await ask(house, "this fails", user="eve", count=5)
    await house.http.post("/flows/story/pause")


async def test_what_devices_and_models_write_is_only_text(database: str) -> None:
    """No script of theirs runs, no host of theirs is asked: `browsing` would tell."""
    async with rig(database) as house, browsing() as made:
        house.model.behave(lambda body: ok(MARKDOWN + HOSTILE))
        topic = "chatgpt/request/<img src=x onerror=alert(5)>"
        body = {"id": "1", "topic": topic, "payload": HOSTILE, "clientid": HOSTILE}
        assert (await house.webhook({**body, "flow": "chat"})).status_code == 202
        (request,) = await house.ended(1)
        page = await fresh(house, made)
        await expect(page.locator("#newest .q")).to_have_text(HOSTILE)
        talk = "/console/conversations"
        for path in ("/console/requests", f"/console/requests/{request['id']}", talk):
            await page.goto(path)
            await page.wait_for_selector(".pulse.on")
            assert HOSTILE.split("onerror")[0] in await page.locator("main").inner_text()
        await page.locator(".talks a").click()
        said = page.locator(".bubble.model")
        await expect(said.locator("strong")).to_have_text("bold")
        await expect(said.locator("h1")).to_have_text("Title")
        links = await said.locator("a").evaluate_all("all => all.map((a) => [a.href, a.rel])")
        assert [href for href, _ in links if href.startswith("javascript:")] == []
        assert all("noopener" in rel for _, rel in links)
        assert (
            await page.locator("main img, main script:not([type='application/json'])").count() == 0
        )
        assert await page.locator("main [onerror], main [onclick], main [hx-get='/x']").count() == 0


async def test_who_may_only_look_sees_no_buttons(database: str) -> None:
    async with rig(database, viewer_token="only-looking") as house, browsing() as made:
        house.model.behave(lambda body: status(400))
        await ask(house, "fails")
        page = await log_in(await made.open(house.url), "only-looking", "/console/dead")
        await expect(page.locator(".dead li")).to_have_count(1)
        assert await page.locator("main button").count() == 0
        await expect(page.locator(".who")).to_contain_text("may only look")
        await page.goto("/console/flows")
        assert await page.locator("main button").count() == 0
        await page.goto("/console/flows/chat")
        assert await page.locator("form.try").count() == 0


async def test_it_reads_without_any_script(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        await ask(house, "hi")
        page = await made.open(house.url, scripts=False)
        await page.goto("/console/requests")
        await page.get_by_label("Token").fill("operator-token")
        await page.get_by_role("button", name="Log in").click()
        await expect(page.locator("tbody tr")).to_have_count(1)
        await page.get_by_label("Text").fill("nothing like that")
        await page.get_by_role("button", name="Filter").click()
        await expect(page.locator(".none")).to_be_visible()


async def test_new_requests_are_told_and_a_page_without_the_service_says_so(database: str) -> None:
    async with browsing() as made:
        made.may_fail = True
        async with rig(database) as house:
            await ask(house, "first")
            page = await fresh(house, made, "/console/requests")
            await ask(house, "second", count=2)
            await page.locator("#fresh").click()
            await expect(page.locator("tbody tr")).to_have_count(2)
            await page.get_by_label("State").select_option("failed")
            await expect(page.locator("#found .none")).to_be_visible()
            assert page.url.endswith("state=failed&flow=&conversation=&error=&since=&until=") or (
                "state=failed" in page.url
            )
        await expect(page.locator(".pulse.off")).to_be_visible()


async def test_a_lost_session_leads_to_the_door(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        made.may_fail = True
        page = await fresh(house, made, "/console/flows")
        await page.get_by_role("button", name="Log out").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
        await page.goto("/console/acts")
        await expect(page).to_have_url(f"{house.url}/login?next=/console/acts")
        answer = await house.http.get("/acts", headers=OPERATOR_AUTH)
        acts = json.loads(answer.content)["acts"]
        assert [one["act"] for one in acts] == ["login"]
