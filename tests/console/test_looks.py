"""What is shown of odd content: bytes, long words, other directions, nothing at all."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

from playwright.async_api import expect

from service.operations.timeline import timeline
from service.web.console.conversation import binary, exchanges
from service.web.console.render import markdown
from tests.console.conftest import PHONE, browsing, fresh
from tests.console.test_browser import ask
from tests.console.test_pages import logged_in
from tests.fakes.model import ok, status, tool_calls
from tests.rig import ROOT, rig

PRICES = '\n[prices]\n"gpt-5.4-mini" = { input = 0.75, output = 4.5 }\n'
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(128, 256)) * 20
WIDE = "document.documentElement.scrollWidth - innerWidth"


async def test_bytes_are_named_and_not_shown(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        async with house.mqtt() as client:
            await client.publish("parse/tank/in", b"\x00\x17 level=\xff\xfe??")
            await client.publish("cameras/door/snapshot", PICTURE)
        requests = await house.ended(2)
        page = await fresh(house, made)
        await expect(page.locator("#newest .q")).to_have_text(["[no text]"] * 2)
        for path in ("/console/requests", "/console/conversations", "/console/dead"):
            await page.goto(path)
            assert "\ufffd" not in await page.locator("body").inner_text()
        for request in requests:
            await page.goto(f"/console/requests/{request['id']}")
            await expect(page.locator("h1")).to_contain_text("[no text]")
            main = page.locator("main")
            await expect(main).to_contain_text("characters that are no text")
            assert "\ufffd" not in await main.inner_text()
            # It would come back as something else.
            await expect(page.get_by_text("Edit, then retry")).to_have_count(0)


async def test_long_words_and_wide_tables_stay_inside(database: str) -> None:
    table = "| a | b |\n|---|---|\n| " + "x" * 300 + " | 1000 |\n"
    async with rig(database) as house, browsing() as made:
        house.model.script(ok("w" * 3000), ok(table))
        found = await ask(house, "y" * 3000, "a table, please")
        for size in (PHONE, {"width": 320, "height": 640}, {"width": 1360, "height": 860}):
            page = await fresh(house, made, size=size)
            talk = "/console/conversation?flow=chat&conversation=ada"
            for path in ("/", "/console/requests", "/console/conversations", talk, *_of(found)):
                await page.goto(path)
                assert (size, path, await page.evaluate(WIDE)) == (size, path, 0)
            for path in (talk, _of(found)[0]):
                await page.goto(path)
                await expect(page.locator(".scroll > table")).to_be_visible()


def _of(found: list[dict[str, str]]) -> list[str]:
    return [f"/console/requests/{one['id']}" for one in found]


async def test_a_fresh_install_says_what_to_do(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        page = await fresh(house, made)
        for path in ("/", "/console/requests"):
            await page.goto(path)
            none = page.locator(".none")
            await expect(none).to_contain_text("Publish to a request topic, or try a flow.")
            text, link = await none.bounding_box(), await none.get_by_role("link").bounding_box()
            assert text is not None
            assert link is not None
            assert link["x"] > text["x"] + text["width"] / 2  # in the same line
        await expect(page.get_by_text("Export as JSON lines")).to_have_count(0)


async def test_on_a_phone_the_page_one_is_on_is_seen_in_the_menu(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        page = await fresh(house, made, "/console/flows", size=PHONE)
        here = page.locator("nav [aria-current=page]")
        await expect(here).to_be_in_viewport(ratio=1)
        card, legend = page.locator(".card").first, page.locator(".u-legend")
        outer, inner = await card.bounding_box(), await legend.bounding_box()
        assert outer is not None
        assert inner is not None
        assert inner["y"] + inner["height"] < outer["y"] + outer["height"]


async def test_fields_of_a_filter_stand_in_one_line(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        page = await fresh(house, made, "/console/requests", size={"width": 1920, "height": 900})
        shown = ".filters input:not([type=hidden]), .filters select"
        tops = await page.locator(shown).evaluate_all(
            "all => all.map((one) => one.getBoundingClientRect().top)"
        )
        assert len(tops) == 7
        assert len(set(tops)) == 1


async def test_what_a_flow_spent_is_money(database: str) -> None:
    flows = (ROOT / "flows.toml").read_text() + PRICES
    async with rig(database, flows=flows) as house, logged_in(house.url) as client:
        house.model.script(ok("yes", usage=(40, 10)))
        await ask(house, "hi")
        page = (await client.get("/console/flows")).text
        assert '<td class="num">$0.000075</td>' in page


async def test_what_was_ignored_is_no_fault_and_was_told_to_nobody(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        async with house.mqtt() as client:
            for number in (1, 2):
                await client.publish("sensors/boiler/telemetry", b'{"temperature": 45}')
                await house.ended(number)
        (request,) = await house.requests(state="ignored")
        page = await fresh(house, made)
        said = page.locator("#newest li", has_text="ignored").locator(".a")
        await expect(said).to_have_text("cooldown")
        await expect(said).not_to_have_class("a fault")
        await page.goto(f"/console/requests/{request['id']}")
        await expect(page.locator(".fall")).not_to_contain_text("told the sender")
        await expect(page.get_by_role("alert")).to_have_count(0)


async def test_a_request_without_a_conversation_leads_to_its_flow(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        body = {"id": "1", "topic": "who/knows", "payload": "anybody?", "flow": "gone"}
        assert (await house.webhook(body)).status_code == 202
        page = await fresh(house, made, "/console/conversations")
        await page.locator(".talks a").click()
        await expect(page).to_have_url(f"{house.url}/console/requests?flow=gone")
        await page.locator("a.whole").click()
        await expect(page.locator(".facts")).to_contain_text("gone")
        await expect(page.locator(".facts a")).to_have_count(0)  # there is no such flow to open


async def test_a_huge_payload_is_cut_and_can_be_had_whole(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        (request,) = await ask(house, "z" * 900_000)
        page = await fresh(house, made, f"/console/requests/{request['id']}")
        await expect(page.locator("main")).to_contain_text("The first 200,000 of 900,000")
        link = page.get_by_role("link", name="All of it, as JSON")
        assert await link.get_attribute("href") == f"/requests/{request['id']}"
        assert len(await page.content()) < 300_000


def test_links_of_a_reply_lead_to_other_sites_only() -> None:
    inside = ("/console/set?lang=zh", "//x.example", "#main")
    odd = ("data:image/png;base64,aa", "blob:http://x", "view-source:http://x")
    for to in (*inside, *odd, "javascript:alert(1)", "&#106;avascript:x"):
        assert "<a" not in markdown(f"[x]({to})"), to
        assert "<a" not in markdown(f"[x][r]\n\n[r]: {to}"), to
    for to in ("https://x.example/a?b=c", "HTTP://x.example", "mailto:ada@x.example"):
        assert "<a" in markdown(f"[x]({to})"), to


def test_a_small_text_makes_no_huge_table() -> None:
    """Short rows are filled up to the header's width."""
    text = "|" + "a|" * 100 + "\n|" + "-|" * 100 + "\n" + "|a\n" * 6000
    assert len(text) < 20_000
    assert len(markdown(text)) < 2 * len(text)
    assert "<table>" in markdown("|a|b|\n|-|-|\n|1|2|\n")


def test_a_page_lays_out_so_much_and_shows_the_rest_as_it_is() -> None:
    one = {"payload": "?", "reasoning": None, "reply": "r" * 20_000}
    found = exchanges([dict(one) for _ in range(8)])
    assert [each["laid_out"] for each in found] == [False] * 3 + [True] * 5


def test_text_is_told_from_bytes() -> None:
    assert binary(PICTURE.decode("utf-8", "replace"))
    assert binary("a\0b")
    assert not binary("")
    assert not binary("a \ufffd in a text that is otherwise fine, \u202e שלום 😀")


async def test_a_run_begins_before_its_model_is_asked(database: str) -> None:
    """Be it in the same millisecond."""
    async with rig(database) as house:
        (request,) = await ask(house, "hi")
        row = await house.service.store.request(request["id"])
        assert row is not None
        (attempt,) = row.attempts
        row = replace(row, attempts=(replace(attempt, at=row.trace["runs"][0]["begun"]),))
        events = [one["what"] for one in timeline(row, None, None, (), now=0, stopped=None)]
        assert events.index("begun") < events.index("attempt")


async def test_many_tool_calls_are_folded(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        for calls, shown in ((2, 2), (9, 0)):
            call = ("set_light", {"room": "kitchen", "on": True})
            house.model.script(tool_calls([call] * calls), ok("Done."))
            async with house.mqtt() as client:
                await client.publish("home/ada/ask", b"Light!")
            found = await house.ended(1 if shown else 2)
            page = await fresh(house, made, f"/console/requests/{found[0]['id']}")
            await expect(page.locator(".fall > li.tool")).to_have_count(calls)
            await expect(page.locator(".fall details[open]")).to_have_count(shown)


async def test_a_wait_that_is_over_claims_no_cause_that_nobody_noted(database: str) -> None:
    """It was a pause, and might have been a full house."""
    async with rig(database) as house, browsing() as made:
        await house.http.post("/flows/chat/pause")
        async with house.mqtt() as client:
            await client.publish("chatgpt/request/ada", b"hi")
        await house.stored(1)
        await house.move(60_000)
        await house.http.post("/flows/chat/resume")
        (request,) = await house.ended(1)
        page = await fresh(house, made, f"/console/requests/{request['id']}")
        await expect(page.locator(".fall > li.waited").first).to_contain_text("for its turn")


async def test_a_long_act_stays_inside(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        await house.http.post("/requests/retry", json={"filter": {"text": "q" * 190}})
        for size in (PHONE, {"width": 1360, "height": 860}):
            page = await fresh(house, made, "/console/acts", size=size)
            await expect(page.locator("tbody")).to_contain_text("q" * 190)
            wide = "(one) => one.scrollWidth - one.clientWidth"
            if size is not PHONE:
                assert await page.locator(".card.scroll").evaluate(wide) == 0
            lines = "(one) => one.getBoundingClientRect().height"
            assert await page.locator("tbody time").first.evaluate(lines) < 30


async def test_a_mistyped_address_is_a_page_too(database: str) -> None:
    async with rig(database) as house, logged_in(house.url) as client:
        answer = await client.get("/console/request")
        assert answer.status_code == 404
        assert "no page at /console/request" in answer.text
        assert answer.headers["content-type"].startswith("text/html")
        assert (await client.get("/console/static/console.css")).status_code == 200
        assert (await client.get("/console/static/nope.css")).status_code == 404


async def test_dates_are_written_as_the_browser_writes_them(database: str) -> None:
    async with rig(database) as house, browsing() as made:
        (request,) = await ask(house, "hi")
        came = datetime.fromisoformat(request["accepted_at"]).astimezone(ZoneInfo("Europe/Berlin"))
        dates = {"en-GB": f"{came:%d/%m/%Y}", "en-US": f"{came.month}/{came.day}/{came:%y}"}
        for language, date in dates.items():
            path = f"/console/requests/{request['id']}"
            page = await fresh(house, made, path, language=language)
            await expect(page.locator(".facts time")).to_contain_text(date)


async def test_who_was_told_of_a_failure_was_told_no_tokens(database: str) -> None:
    async with rig(database, max_attempts=1) as house, browsing() as made:
        house.model.behave(lambda body: status(400))
        (request,) = await ask(house, "hi")
        page = await fresh(house, made, f"/console/requests/{request['id']}")
        told = page.locator(".fall > li", has_text="told the sender")
        await expect(told).not_to_contain_text("tokens")
