"""The pages over HTTP: who may see them, what headers they have, how they fail."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest

from service.web.console.render import markdown, money, pretty, share, took
from tests.fakes.model import status
from tests.rig import OPERATOR, rig

PAGES = (
    "/",
    "/console/requests",
    "/console/conversations",
    "/console/dead",
    "/console/flows",
    "/console/acts",
)


@contextlib.asynccontextmanager
async def logged_in(url: str, token: str = OPERATOR) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url) as client:
        answer = await client.post("/login", data={"token": token, "next": "/console/flows"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/flows")
        yield client


async def test_nobody_sees_a_page_without_a_token(database: str) -> None:
    async with rig(database) as house, httpx.AsyncClient(base_url=house.url) as stranger:
        for path in (*PAGES, "/console/requests/nope", "/console/flows/nope"):
            answer = await stranger.get(path)
            assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={path}")
        for path in ("/login", "/console/static/console.css", "/console/static/vendor/htmx.min.js"):
            assert (await stranger.get(path)).status_code == 200
        for path in ("/console/static/../render.py", "/console/static/%2e%2e/render.py"):
            assert (await stranger.get(path)).status_code in (303, 404)


@pytest.mark.parametrize("path", [*PAGES, "/login", "/console/requests/nope"])
async def test_no_page_runs_or_loads_what_is_not_ours(database: str, path: str) -> None:
    async with rig(database) as house, logged_in(house.url) as client:
        answer = await client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert "data:" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "style=" not in answer.text
        assert "onclick" not in answer.text


async def test_a_wrong_address_is_a_page_that_says_so(database: str) -> None:
    async with rig(database) as house, logged_in(house.url) as client:
        for path, code in (
            ("/console/requests/nope", 404),
            ("/console/flows/nope", 404),
            ("/console/conversation?flow=chat&conversation=nope", 404),
            ("/console/conversation", 400),
            ("/console/requests?since=yesterday", 400),
            ("/console/requests?colour=red", 400),
            ("/console/acts?before=x", 400),
        ):
            answer = await client.get(path)
            assert (path, answer.status_code) == (path, code)
            assert answer.headers["content-type"].startswith("text/html")
            assert 'role="alert"' in answer.text


async def test_the_door_leads_nowhere_else(database: str) -> None:
    async with rig(database) as house, httpx.AsyncClient(base_url=house.url) as stranger:
        for to in ("https://evil.example", "//evil.example", "/\\evil.example"):
            answer = await stranger.get("/login", params={"next": to})
            assert 'name="next" value="/"' in answer.text
            answer = await stranger.get("/console/set", params={"theme": "dark", "next": to})
            assert answer.headers["location"] == "/"
        answer = await stranger.get("/console/set", params={"theme": "<b>", "lang": "xx"})
        assert "set-cookie" not in answer.headers


async def test_pages_stay_while_the_database_is_away(database: str) -> None:
    async with rig(database) as house, logged_in(house.url) as client:
        await house.service.store.close()
        answer = await client.get("/console/requests")
        assert answer.status_code == 503
        assert "Not now" in answer.text


async def test_filters_of_a_page_are_those_of_the_api(database: str, quick: None) -> None:
    async with rig(database, max_attempts=1) as house, logged_in(house.url) as client:
        async with house.mqtt() as device:
            for number in range(60):
                await device.publish(f"chatgpt/request/u{number % 3}", f"n{number}.".encode())
            await house.ended(60)
            house.model.behave(lambda body: status(400))
            await device.publish("chatgpt/request/u1", b"fails")
            await house.ended(61)
        page = (await client.get("/console/requests")).text
        assert page.count('<td class="said">') == 50
        assert 'rel="next"' in page
        page = (await client.get("/console/requests?conversation=u1&flow=chat&state=done")).text
        assert page.count('<td class="said">') == 20
        assert "/requests/export?state=done&amp;flow=chat&amp;conversation=u1" in page
        page = (await client.get("/console/dead")).text
        assert page.count('class="what"') == 1


def test_markdown_is_made_of_nothing_but_what_we_make() -> None:
    text = markdown(
        "<b>x</b> [a](javascript:alert(1)) ![i](http://x/y.png) <http://ok.example> &lt;"
    )
    assert "<b>" not in text
    assert 'href="javascript' not in text
    assert "<img" not in text
    assert 'rel="noopener noreferrer nofollow" target="_blank"' in text
    assert markdown("x" * 200_000).startswith("<pre>")
    assert "<script" not in markdown("<script>" * 20_000)
    deep = markdown("> " * 5000 + "x" + "\n" + "- " * 5000 + "y")
    assert "x" in deep


def test_figures_are_short_and_true() -> None:
    assert [took(ms) for ms in (None, 3, 1500, 61_000, 3_700_000, 200_000_000)] == [
        *("–", "3 ms", "1.5 s", "1 min 1 s", "1 h 1 min", "2 d 7 h"),
    ]
    assert [money(usd) for usd in (None, 0, 0.00123, 0.0000012, 12.5)] == [
        *("–", "$0.00", "$0.0012", "$0.000001", "$12.50"),
    ]
    assert [share(value) for value in (None, 1, 0.9999, 0.5)] == ["–", "100 %", "99.9 %", "50 %"]
    assert pretty('{"a":1}') == '{\n  "a": 1\n}'
    assert pretty("plain") == "plain"
