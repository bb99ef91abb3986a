"""Canaries: no secret is shown anywhere, no payload or reply is in the log, whatever fails."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest

from service.operations.logs import JsonFormatter, TextFormatter
from tests.e2e.conftest import QUICK
from tests.fakes.emqx import FaultyRest, answer
from tests.fakes.model import FakeModel, Step, garbage, ok, page, reset, status, wrong_shape
from tests.rig import OPERATOR_AUTH, message, rig

SECRETS = {
    "openai_api_key": "sk-canary-openai-0001",
    "webhook_token": "canary-webhook-token-0003",
    "operator_token": "canary-operator-token-0004",
}
OTHER = "sk-canary-provider-0005"
URL_PASSWORD = "canary-url-password-0006"
PAYLOAD, SYSTEM, REPLY = "canary payload of ada", "canary prompt of ours", "canary reply to ada"
FLOWS = f"""
[flows.chat]
request = "chatgpt/request/${{user}}"
reply = "chatgpt/response/${{user}}"
system = "{SYSTEM}"
history = {{ messages = 2, ttl = "1h" }}
deadline = "2s"
timeout = "500ms"
"""
KEYS = " ".join([*SECRETS.values(), OTHER])
"""What a hostile server says back; it knows at least the key that it was sent."""


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that is logged at INFO, as text and as JSON."""
    stream = io.StringIO()
    root, ours = logging.getLogger(), logging.getLogger("emqx-gpt")
    before = ours.level
    handlers = []
    for form in (TextFormatter("%(levelname)s %(name)s: %(message)s"), JsonFormatter()):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(form)
        handlers.append(handler)
        root.addHandler(handler)
    ours.setLevel("INFO")
    yield stream
    ours.setLevel(before)
    for handler in handlers:
        root.removeHandler(handler)


def clean_of(where: str, text: str, *canaries: str) -> None:
    found = [canary for canary in canaries if canary in text]
    assert not found, f"{where} shows {found}: {text[-2000:]}"


ENDS: dict[str, Step | None] = {
    "success": ok(REPLY),
    "401": status(401, message=f"Incorrect API key provided: {KEYS}"),
    "400": status(400, message=f"bad key {KEYS}"),
    "429": status(429, retry_after=0, message=f"wait, {KEYS}"),
    "500": status(500, message=f"at http://root:{URL_PASSWORD}@db/x with {KEYS}"),
    "page": page(502, f"<title>{KEYS}</title>".encode()),
    "bad JSON": garbage(f'{{"a": "{KEYS}'.encode()),
    "wrong shape": wrong_shape(json.dumps({"error": KEYS}).encode()),
    "reset": reset(),
    "refused connection": None,
}


@pytest.mark.parametrize("end", ENDS)
async def test_no_canary_is_shown(
    end: str, any_database: str, log: io.StringIO, quick: None
) -> None:
    async with rig(
        any_database, flows=FLOWS, environ={"OTHER_KEY": OTHER}, max_attempts=2, **SECRETS
    ) as house:
        auth = {"authorization": f"Bearer {SECRETS['operator_token']}"}
        house.http.headers.update(auth)
        hook = {"authorization": f"Bearer {SECRETS['webhook_token']}"}
        from service import safe_text

        safe_text.hide([OTHER])
        step = ENDS[end]
        if step is None:
            await house.model.stop()
        else:
            house.model.behave(lambda call: step)
        async with house.mqtt("chatgpt/response/ada") as ada:
            body = {"id": "1", "topic": "chatgpt/request/ada", "payload": PAYLOAD, "flow": "chat"}
            assert (await house.webhook(body, headers=hook)).status_code == 202
            if end != "success":
                await seen_trouble(house)
                await house.move(60_000, holding=True)
            (request,) = await house.ended()
            told = (await message(ada))[1].decode()
        assert (request["state"] == "done") == (end == "success")
        secrets = [*SECRETS.values(), OTHER, URL_PASSWORD]
        clean_of("the device", told, *secrets)
        for path in ("/readyz", "/metrics", "/healthz"):
            text = (await house.http.get(path)).text
            clean_of(path, text, *secrets, PAYLOAD, SYSTEM, REPLY, "ada")
        shown = await house.http.get(f"/requests/{request['id']}")
        clean_of("a request", shown.text, *secrets)
        clean_of("the log", log.getvalue(), *secrets, PAYLOAD, SYSTEM, REPLY)


async def seen_trouble(house) -> None:
    """The model was asked, or can't be."""
    from tests.rig import eventually

    async def look() -> bool:
        (request,) = await house.requests()
        return request["ended_at"] is not None or bool(
            (await house.request(request["id"]))["attempts"]
        )

    await eventually(look)


@pytest.mark.parametrize("code", [400, 401, 402, 403, 404, 429, 500])
async def test_a_question_that_the_server_repeats_is_not_in_the_log(
    code: int, database: str, log: io.StringIO, quick: None
) -> None:
    async with rig(database, flows=FLOWS, max_attempts=2) as house:
        step = status(code, message=f"can't: {PAYLOAD} {SYSTEM}", retry_after=0)
        house.model.behave(lambda call: step)
        body = {"id": "1", "topic": "chatgpt/request/ada", "payload": PAYLOAD, "flow": "chat"}
        assert (await house.webhook(body)).status_code == 202
        await seen_trouble(house)
        await house.move(60_000, holding=True)
        (request,) = await house.ended()
        assert PAYLOAD in json.dumps(await house.request(request["id"]))
        assert "error=" in log.getvalue()
        clean_of("the log", log.getvalue(), PAYLOAD, SYSTEM)


async def test_no_canary_is_shown_when_the_broker_refuses(
    database: str, log: io.StringIO, quick: None
) -> None:
    async with FaultyRest() as rest, rig(database, flows=FLOWS, rest=rest, **SECRETS) as house:
        house.http.headers["authorization"] = f"Bearer {SECRETS['operator_token']}"
        hook = {"authorization": f"Bearer {SECRETS['webhook_token']}"}
        house.model.behave(lambda call: ok(REPLY))
        rest.script(*[answer(400, {"code": "BAD_REQUEST", "message": f"{REPLY} {KEYS}"})] * 8)
        body = {"id": "1", "topic": "chatgpt/request/ada", "payload": PAYLOAD, "flow": "chat"}
        assert (await house.webhook(body, headers=hook)).status_code == 202
        (request,) = await house.ended()
        secrets = [*SECRETS.values(), OTHER]
        clean_of("the log", log.getvalue(), *SECRETS.values(), PAYLOAD, SYSTEM)
        clean_of("a request", json.dumps(request), *SECRETS.values())
        assert secrets


async def test_what_is_told_without_a_token_is_nobody_s_words(database: str) -> None:
    policy = replace(QUICK, account_pause=30.0)
    async with rig(database, flows=FLOWS, policy=policy) as house:
        house.model.behave(lambda call: status(401, message=f"no: {PAYLOAD}"))
        body = {"id": "1", "topic": "chatgpt/request/ada", "payload": PAYLOAD, "flow": "chat"}
        assert (await house.webhook(body)).status_code == 202
        await seen_trouble(house)
        told = await house.http.get("/readyz", headers=OPERATOR_AUTH)
        assert PAYLOAD in told.text  # who may read the inbox is told why
        del house.http.headers["authorization"]
        for headers in ({}, {"authorization": "Bearer wrong"}):
            brief = await house.http.get("/readyz", headers=headers)
            assert brief.status_code == 503
            assert brief.json()["model"] == {"ok": False, "code": "model_unauthorized"}
            assert set(brief.json()["database"]) == {"ok"}
        for path in ("/healthz", "/metrics"):
            clean_of(path, (await house.http.get(path)).text, PAYLOAD, "ada")


async def test_a_flow_that_nobody_knows_is_no_label(database: str) -> None:
    async with rig(database, flows=FLOWS) as house:
        for number in range(20):
            body = {"id": str(number), "topic": "x/y", "payload": "x", "flow": f"made-up-{number}"}
            assert (await house.webhook(body)).status_code == 202
        text = (await house.http.get("/metrics")).text
        assert "made-up" not in text
        assert 'emqx_gpt_accepted_total{flow=""} 20.0' in text


ODD = ["\\ud800", "\\u0000", "\\udfff\\ud800", "\\u202e", "\\u0000\\ud800"]


@pytest.mark.parametrize("odd", ODD)
async def test_names_that_no_database_takes_are_stored_and_answered(
    odd: str, any_database: str, log: io.StringIO, quick: None
) -> None:
    """As a client id, user name, topic level, id, user property, and payload."""
    async with rig(any_database, flows=FLOWS) as house:
        raw = json.dumps(
            {
                "id": "id ODD",
                "topic": "chatgpt/request/ODD",
                "payload": "payload ODD",
                "clientid": "client ODD",
                "username": "user ODD",
                "pub_props": {
                    "Content-Type": "text ODD",
                    "Correlation-Data": "c ODD",
                    "Response-Topic": "r/ODD",
                    "User-Property-Pairs": [{"key": "k ODD", "value": "v ODD"}],
                },
                "flow": "FLOW",
            }
        ).replace("ODD", odd)
        known = raw.replace("FLOW", "chat")
        unknown = raw.replace("FLOW", f"flow {odd}").replace("chatgpt/", "").replace("id ", "n ")
        for body in (known, unknown):
            got = await house.webhook(body.encode())
            assert got.status_code in (202, 400), got.text
            if got.status_code == 202:
                assert (await house.webhook(body.encode())).json()["duplicates"] == 1
        listed = await house.ended(1, flow="chat")
        for one in listed:
            assert one["state"] in ("done", "failed")
            shown = await house.http.get(f"/requests/{one['id']}")
            assert shown.status_code == 200
            text = shown.text.encode()
            assert text
        everything = await house.http.get("/requests")
        assert everything.status_code == 200
        assert "Traceback" not in log.getvalue()
        for line in log.getvalue().split("\n"):
            assert line.isprintable(), line


async def test_the_model_takes_no_name_of_a_device_for_a_secret() -> None:
    """The fakes really say the canaries: a test of the test."""
    async with FakeModel() as model:
        import httpx

        model.script(ENDS["401"])
        async with httpx.AsyncClient() as http:
            url = f"{model.base_url}/chat/completions"
            got = await http.post(url, json={"model": "m", "messages": []})
        assert SECRETS["openai_api_key"] in got.text
