"""`serve` on loopback without tokens: it makes its own, and no page of the browser gets in."""

from __future__ import annotations

import json
import signal
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from dotenv import dotenv_values

from service.demo.play import Client
from service.demo.standin.broker import StandIn
from service.emqx.config_file import render_filled
from tests.fakes.model import FakeModel
from tests.process import Process
from tests.rig import eventually, load_flows, message

BODY = {"id": "1", "topic": "chatgpt/request/ada", "payload": "hi"}


@pytest.fixture
async def serving(tmp_path: Path) -> AsyncIterator[tuple[Process, StandIn]]:
    async with StandIn() as broker, FakeModel() as model:
        process = Process(tmp_path, broker, model, WEBHOOK_TOKEN="", OPERATOR_TOKEN="")
        try:
            await process.start()
            yield process, broker
        finally:
            await process.end(signal.SIGKILL)


async def test_tokens_are_made_kept_and_wanted(serving, tmp_path):
    process, broker = serving
    env = tmp_path / ".env"
    made = dotenv_values(env)
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    log = process.log.read_text()
    assert str(env) in log
    assert made["WEBHOOK_TOKEN"] not in log
    async with httpx.AsyncClient(base_url=process.url) as http:
        for path in ("/requests", "/conversations/chat/ada"):
            assert (await http.get(path)).status_code == 401
        auth = {"authorization": f"Bearer {made['OPERATOR_TOKEN']}"}
        assert (await http.get("/requests", headers=auth)).status_code == 200
        # EMQX drops a message on 401, and keeps it on 503.
        answer = await http.post("/webhook", json=BODY)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_applied")
        assert answer.headers["retry-after"]
        wrong = {"authorization": "Bearer wrong"}
        assert (await http.post("/webhook", json=BODY, headers=wrong)).status_code == 401
        assert (await http.get("/requests", headers=auth)).json()["requests"] == []
    await process.end(signal.SIGTERM)
    await process.start()
    assert dotenv_values(env) == made


async def test_an_emqx_without_token_keeps_its_messages_until_it_has_one(serving, tmp_path):
    process, broker = serving
    found = load_flows(None)
    old = render_filled(found, process.url, "x").replace('authorization = "Bearer x"\n', "")
    assert "authorization" not in old
    await broker.load(old)
    client = Client("127.0.0.1", broker.mqtt_port)
    await client.connect()
    try:
        await client.subscribe(["chatgpt/response/#"])
        await client.publish("chatgpt/request/ada", b"early")
        await eventually(lambda: "webhook answered 503" in process.log.read_text())
        async with httpx.AsyncClient(base_url=broker.rest_url, auth=("key", "secret")) as rest:
            at = "/api/v5/actions/http:emqx_gpt_ordered/metrics"
            metrics = (await rest.get(at)).json()["metrics"]
        # Kept: neither given up nor dropped.
        assert (metrics["matched"], metrics["failed"], metrics["dropped"]) == (1, 0, 0)
        token = dotenv_values(tmp_path / ".env")["WEBHOOK_TOKEN"]
        await broker.load(render_filled(found, process.url, token))
        await client.publish("chatgpt/request/ada", b"now")
        assert await message(client) == ("chatgpt/response/ada", b"echo: now")
    finally:
        await client.close()


PAGES: dict[str, Callable[[str], dict[str, str]]] = {
    "rebound": lambda url: {"host": "evil.example:8000"},
    "another site": lambda url: {"origin": "http://evil.example"},
    "a sandbox": lambda url: {"origin": "null"},
    "another port here": lambda url: {"origin": "http://127.0.0.1:3000"},
    "a picture": lambda url: {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
}


@pytest.mark.parametrize("page", PAGES)
async def test_pages_of_other_sites_get_nothing(serving, tmp_path, page):
    process, _ = serving
    made = dotenv_values(tmp_path / ".env")
    once = httpx.Limits(max_keepalive_connections=0)  # who is not trusted is not kept for long
    async with httpx.AsyncClient(base_url=process.url, limits=once) as http:
        strange = PAGES[page](process.url)
        auth = {"authorization": f"Bearer {made['OPERATOR_TOKEN']}"}
        for path in ("/healthz", "/readyz", "/metrics", "/requests", "/nowhere"):
            answer = await http.get(path, headers={**auth, **strange})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin"), path
        answer = await http.post("/ask/chat", json={"text": "hi"}, headers={**auth, **strange})
        assert answer.status_code == 403
        answer = await http.post("/webhook", json=BODY, headers=strange)
        assert answer.status_code in (400, 503)  # what EMQX knows; nothing was stored
        if page != "rebound":
            token = {"authorization": f"Bearer {made['WEBHOOK_TOKEN']}"}
            answer = await http.post("/webhook", json=BODY, headers={**token, **strange})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "origin")
        assert (await http.get("/requests", headers=auth)).json()["requests"] == []


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_only_json_is_taken(serving, tmp_path, kind):
    process, _ = serving
    made = dotenv_values(tmp_path / ".env")
    said = {} if kind is None else {"content-type": kind}
    async with httpx.AsyncClient(base_url=process.url) as http:
        auth = {"authorization": f"Bearer {made['OPERATOR_TOKEN']}", **said}
        answer = await http.post("/ask/chat", content=b'{"text": "hi"}', headers=auth)
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "content_type")
        auth = {"authorization": f"Bearer {made['WEBHOOK_TOKEN']}", **said}
        answer = await http.post("/webhook", content=json.dumps(BODY), headers=auth)
        # A rule made by hand may name no type; with the token it is taken all the same.
        assert answer.status_code == (202 if kind is None else 400)


async def test_names_behind_a_proxy_are_let_in(tmp_path):
    async with StandIn() as broker, FakeModel() as model:
        process = Process(tmp_path, broker, model, ALLOWED_HOSTS="gpt.example.com, b.example:8443")
        try:
            await process.start()
            async with httpx.AsyncClient(base_url=process.url) as http:
                for name in ("gpt.example.com", "b.example:8443"):
                    page = {"host": name, "origin": f"https://{name}"}
                    assert (await http.get("/healthz", headers=page)).status_code == 200
                answer = await http.get("/healthz", headers={"host": "c.example"})
                assert "ALLOWED_HOSTS" in answer.json()["error"]["message"]
        finally:
            await process.end(signal.SIGKILL)
