"""Who may call what: tokens, sessions, the guard of acts by cookie, attempts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest

from service.web.auth import COOKIE
from tests.rig import OPERATOR, OPERATOR_AUTH, Rig, rig

VIEWER_AUTH = {"authorization": "Bearer vera:look"}


def browser(house: Rig) -> httpx.AsyncClient:
    """Comes without a token, keeps cookies, follows nothing."""
    return httpx.AsyncClient(base_url=house.url)


@contextlib.asynccontextmanager
async def logged_in(
    house: Rig, token: str = OPERATOR
) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    async with browser(house) as client:
        answer = await client.post("/login", json={"token": token})
        assert answer.status_code == 200, answer.text
        yield client, answer.json()["csrf"]


def code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


async def test_a_viewer_looks_and_changes_nothing(database: str) -> None:
    async with rig(database, viewer_token="vera:look") as house:
        for path in ("/requests", "/acts", "/session", "/conversations/chat/ada"):
            answer = await house.http.get(path, headers=VIEWER_AUTH)
            assert answer.status_code == 200, (path, answer.text)
        assert answer.json()["turns"] == []
        for method, path in (
            ("POST", "/ask/chat"),
            ("POST", "/requests/x/retry"),
            ("DELETE", "/conversations/chat/ada"),
        ):
            answer = await house.http.request(method, path, headers=VIEWER_AUTH, json={"text": "?"})
            assert (answer.status_code, code(answer)) == (403, "viewer"), path
        assert await house.requests() == []


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer operator-toke", "Basic é"])
async def test_who_has_no_token_sees_nothing(database: str, header: str | None) -> None:
    async with rig(database, viewer_token="vera:look") as house, browser(house) as client:
        headers = {} if header is None else {"authorization": header.encode("latin-1")}
        for path in ("/requests", "/acts", "/events", "/session", "/requests/x"):
            answer = await client.get(path, headers=headers)
            assert answer.status_code == 401, path


async def test_a_session_is_what_its_token_is(database: str) -> None:
    async with (
        rig(database, viewer_token="vera:look") as house,
        logged_in(house, "vera:look") as (client, csrf),
    ):
        who = (await client.get("/session")).json()
        assert who == {"name": "vera", "role": "viewer", "csrf": csrf}
        answer = await client.post("/ask/chat", json={"text": "?"}, headers={"x-csrf-token": csrf})
        assert (answer.status_code, code(answer)) == (403, "viewer")


async def test_the_cookie_is_for_this_site_alone(database: str) -> None:
    async with rig(database) as house, browser(house) as client:
        plain = await client.post("/login", json={"token": OPERATOR})
        behind = await client.post(
            "/login", json={"token": OPERATOR}, headers={"x-forwarded-proto": "https"}
        )
    said = plain.headers["set-cookie"].lower()
    assert "httponly" in said
    assert "samesite=strict" in said
    assert "secure" not in said
    assert "secure" in behind.headers["set-cookie"].lower()
    assert OPERATOR not in said


async def test_an_act_by_cookie_needs_its_word(database: str) -> None:
    async with (
        rig(database) as house,
        logged_in(house) as (client, csrf),
        logged_in(house) as (_, strange),
    ):
        path = "/conversations/chat/ada"
        for headers in ({}, {"x-csrf-token": ""}, {"x-csrf-token": strange}):
            answer = await client.delete(path, headers=headers)
            assert (answer.status_code, code(answer)) == (403, "csrf"), headers
        assert (await client.delete(path, headers={"x-csrf-token": csrf})).status_code == 200
        # A form has it as a field.
        assert (await client.post("/logout", data={"csrf": strange})).status_code == 403
        answer = await client.post("/logout", data={"csrf": csrf})
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        assert COOKIE not in client.cookies
        assert (await client.get("/requests")).status_code == 401


async def test_a_session_outlives_a_restart_but_not_its_token(database: str) -> None:
    async with (
        rig(database, operator_token="ada:one,bob:two") as house,
        logged_in(house, "ada:one") as (client, _),
    ):
        cookie = client.cookies[COOKIE]
    for tokens, status in (("bob:two,ada:one", 200), ("bob:two", 401), ("ada:two", 401)):
        async with rig(database, operator_token=tokens) as house, browser(house) as client:
            client.cookies.set(COOKIE, cookie)
            assert (await client.get("/requests")).status_code == status, tokens


@pytest.mark.parametrize("change", ["cut", "other", "AAAA.BBBB.CCCC"])
async def test_a_forged_session_is_none(database: str, change: str) -> None:
    async with rig(database) as house, logged_in(house) as (client, _):
        cookie = client.cookies[COOKIE]
        client.cookies.clear()
        other = cookie[:-9] + ("x" if cookie[-9] != "x" else "y") + cookie[-8:]
        forged = {"cut": cookie[:-1], "other": other}.get(change, change)
        client.cookies.set(COOKIE, forged)
        assert (await client.get("/requests")).status_code == 401


async def test_a_form_is_sent_on_but_never_away(database: str) -> None:
    async with rig(database) as house, browser(house) as client:
        for to, goes in (
            ("/requests?state=failed", "/requests?state=failed"),
            ("//evil.example/", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example/", "/"),
            ("/\r\nset-cookie: a=b", "/"),
        ):
            answer = await client.post("/login", data={"token": OPERATOR, "next": to})
            assert (answer.status_code, answer.headers["location"]) == (303, goes), to
        answer = await client.post("/login", data={"token": "wrong", "next": "/acts"})
        assert answer.headers["location"] == "/login?error=unauthorized&next=/acts"
        assert "set-cookie" not in answer.headers


async def test_attempts_are_limited(database: str) -> None:
    async with rig(database) as house, browser(house) as client:
        for _ in range(10):
            assert (await client.post("/login", json={"token": "guess"})).status_code == 401
        answer = await client.post("/login", json={"token": OPERATOR})
        assert (answer.status_code, code(answer)) == (429, "too_many_attempts")
        assert 0 < int(answer.headers["retry-after"]) <= 300
        assert (await client.get("/requests", headers=OPERATOR_AUTH)).status_code == 200


async def test_acts_are_written_down_by_name(database: str) -> None:
    async with rig(database, operator_token="ada:one,two") as house, browser(house) as client:
        ada = {"authorization": "Bearer ada:one"}
        nameless = {"authorization": "Bearer two"}
        await client.delete("/conversations/chat/u/1", headers=ada)
        await client.post("/requests/nobody/retry", headers=nameless)
        await client.get("/requests", headers=ada)
        acts = (await client.get("/acts", headers=ada)).json()["acts"]
        seen = [(one["who"], one["act"], one["target"], one["result"]) for one in acts]
        assert seen == [
            ("operator-2", "retry", "nobody", "not_found"),
            ("ada", "forget conversation", "chat/u/1", "ok"),
        ]
        first = (await client.get("/acts?limit=1", headers=ada)).json()
        rest = (await client.get(f"/acts?before={first['next']}", headers=ada)).json()
        assert first["acts"] + rest["acts"] == acts


async def test_a_login_may_come_in_pieces(database: str) -> None:
    """Browsers send head and body apart."""
    body = b'{"token": "operator-token"}'
    head = (
        "POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    async with rig(database) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        for piece in (head.encode(), body[:9], body[9:]):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)  # so that they are read apart
        async with asyncio.timeout(10):
            assert b" 200 " in await reader.readline()
        writer.close()
        await writer.wait_closed()
