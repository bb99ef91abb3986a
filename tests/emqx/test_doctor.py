"""Doctor: verdicts from settings and counters, and the walk along a real chain."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from service.cli.emqx_doctor import ask_models
from service.emqx import findings
from service.emqx import resources as wanted
from service.emqx.apply import apply
from service.emqx.doctor import Doctor, healthy
from service.emqx.findings import Finding, Level
from service.emqx.loop import Loop, suitable
from service.emqx.management_api import EmqxAdmin
from service.emqx.publish_api import Emqx
from service.emqx.resources import Desired
from tests.emqx import readback
from tests.emqx.conftest import FLOWS, flows_of
from tests.fakes.model_server import Server, bound, config
from tests.rig import OPERATOR, WEBHOOK, Rig, load_flows, make_settings, rig


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """An ASGI application on a port of its own."""
    listener = bound(0)
    server = Server(config(app))
    task = asyncio.create_task(server.serve([listener]))
    await server.up.wait()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.leaving.set()
        await task


def options(**changed: Any) -> dict[str, Any]:
    action = readback.action()
    action["resource_opts"] |= changed
    return action


def words(found: list[Finding] | Any) -> list[tuple[str, str]]:
    return [(str(one.level), one.title) for one in found]


@pytest.mark.parametrize(
    ("connector", "action", "said"),
    [
        ({}, {}, ["ok request_ttl and health checks of a"]),
        ({}, {"request_ttl": "45s"}, ["fail request_ttl of a"]),
        ({}, {"request_ttl": "infinity"}, ["ok request_ttl and health checks of a"]),
        ({"health_check_interval": "15s"}, {}, ["warn health checks of a"]),
        ({"health_check_interval": "10m"}, {"request_ttl": "5m"}, ["fail request_ttl of a"]),
        (
            {},
            {"dispatch_strategy": "random"},
            ["ok request_ttl and health checks of a", "fail dispatch_strategy of a"],
        ),
    ],
)
def test_settings(connector: dict[str, Any], action: dict[str, Any], said: list[str]) -> None:
    opts = {"resource_opts": {"health_check_interval": "2s", **connector}}
    found = list(findings.settings("a", opts, options(**action)))
    assert [" ".join(pair) for pair in words(found)] == said


def test_a_body_template_is_a_fault() -> None:
    action = options()
    action["parameters"]["body"] = "${payload}"
    opts = {"resource_opts": {"health_check_interval": 2000}}
    found = list(findings.settings("a", opts, action))
    assert words(found)[-1] == ("fail", "body template of a")


def test_a_connector_that_does_not_keep_order() -> None:
    assert list(findings.pool({"pool_type": "hash"}, {"pool_type": "hash"})) == []
    assert list(findings.pool({"pool_type": "random"}, {"pool_type": "random"})) == []
    (found,) = findings.pool({"pool_type": "hash"}, {"pool_type": "random"})
    assert "out of order" in found.detail


CALM = {"matched": 10, "success": 10, "queuing": 0, "inflight": 0}


@pytest.mark.parametrize(
    ("before", "after", "level", "said"),
    [
        ({}, {}, "ok", "10 delivered, nothing lost"),
        ({}, {"matched": 13, "dropped": 3, "dropped.expired": 3}, "warn", "3 expired"),
        ({}, {"matched": 12, "failed": 2}, "warn", "2 failed: a connection broke"),
        ({}, {"matched": 12, "dropped": 2, "dropped.queue_full": 2}, "warn", "buffer was full"),
        # All delivered, and the gauges lag: seen on a real EMQX.
        ({"queuing": 886, "inflight": 4}, {"queuing": 886, "inflight": 4}, "ok", "none waits"),
        ({"matched": 15}, {"matched": 15}, "fail", "5 messages wait, without any progress"),
        ({"matched": 15}, {"matched": 15, "success": 11}, "ok", "4 messages wait, and they move"),
        ({}, {"matched": 14}, "ok", "4 messages wait"),
        # Taken, and nothing else counted: seen on EMQX 6.2.2.
        ({"matched": 6010}, {"matched": 6010}, "fail", "switch the action off and on"),
    ],
)
def test_action_counters(
    before: dict[str, float], after: dict[str, float], level: str, said: str
) -> None:
    (found,) = findings.action_counters({"a": {**CALM, **before}}, {"a": {**CALM, **after}})
    assert found.level == level
    assert said in found.detail + found.hint


@pytest.mark.parametrize(
    ("conf", "said"),
    [
        (None, "missing"),
        ({"enable": False, "actions": ["http:a"]}, "switched off"),
        ({"enable": True, "actions": ["http:b"]}, "does not send to http:a"),
        ({"enable": True, "actions": ["http:b", "http:a"]}, None),
    ],
)
def test_rules(conf: dict[str, Any] | None, said: str | None) -> None:
    found = findings.rule("r", conf, ["http:a"])
    assert (found is None) if said is None else (found is not None and said in found.detail)


def test_rule_counters() -> None:
    assert list(findings.rule_counters("r", {"failed.exception": 0, "matched": 9})) == []
    (raised,) = findings.rule_counters("r", {"failed.exception": 3})
    assert raised.level == Level.WARN
    assert "is_num" in raised.hint
    (away,) = findings.rule_counters("r", {"actions.failed.out_of_service": 1})
    assert "switched off" in away.detail


@pytest.mark.parametrize(
    ("resource", "level", "said"),
    [
        ({"status": "connected"}, "ok", ""),
        ({"status": "connected", "enable": False}, "fail", "switched off"),
        ({"status": "disconnected", "status_reason": "econnrefused"}, "fail", "econnrefused"),
        (
            {
                "status": "inconsistent",
                "node_status": [
                    {"node": "a@1", "status": "connected"},
                    {"node": "b@2", "status": "disconnected"},
                ],
            },
            "fail",
            "inconsistent on b@2",
        ),
    ],
)
def test_status(resource: dict[str, Any], level: str, said: str) -> None:
    found = findings.status("connector", "a", resource, "http://127.0.0.1:8000")
    assert found.level == level
    assert said in found.detail
    assert ("container" in found.hint) == (level == "fail" and "enable" not in resource)


@pytest.mark.parametrize(
    ("text", "name", "flow"),
    [
        (FLOWS, None, "chat"),
        (FLOWS, "camera", "camera"),
        (FLOWS, "none", None),
        ('[flows.a]\nrequest = "a"\nreply = "b"\nwhere = "qos = 1"', None, None),
        (
            '[flows.a]\nrequest = "a"\nreply = "b"\n[flows.c]\nrequest = "c/${x}"\nreply = "d"',
            None,
            "c",
        ),
    ],
)
def test_which_flow_is_tried(text: str, name: str | None, flow: str | None) -> None:
    found = suitable(flows_of(text), name)
    assert (found.name if found else None) == flow


def test_the_shipped_flows_can_be_tried() -> None:
    found = suitable(load_flows(None))
    assert found is not None
    assert found.name == "chat"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(f"sqlite:///{tmp_path / 'test.db'}", flows=FLOWS) as running:
        yield running


@contextlib.asynccontextmanager
async def doctor(
    house: Rig, *, token: str = WEBHOOK, operator: str = OPERATOR, **changed: Any
) -> AsyncIterator[Doctor]:
    flows = flows_of(FLOWS)
    desired: Desired = wanted.build(flows, to=wanted.target(house.url, token))
    emqx = Emqx(house.broker.rest_url, ("key", "secret"))
    try:
        async with EmqxAdmin(
            changed.pop("emqx_url", house.broker.rest_url), ("key", "secret")
        ) as a:
            loop = Loop(emqx, suitable(flows), house.url, operator, arrives=5, ends=20)
            settings = {"publisher": emqx, "loop": loop, "pause": 0.3, **changed}
            yield Doctor(a, desired, **settings)
    finally:
        await emqx.close()


async def seen(examined: Doctor) -> list[Finding]:
    return [finding async for finding in examined.examine()]


async def test_a_sound_chain(house: Rig) -> None:
    async def models() -> list[Finding]:
        settings = make_settings(openai_api_key="sk-test", openai_base_url=house.model.base_url)
        text = FLOWS + f'\n[defaults]\nmodel = "{house.model.models[0]}"'
        return await ask_models(settings, flows_of(text))

    async with doctor(house, models=models) as examined:
        found = await seen(examined)
    last = found[-1]
    assert last.level == Level.OK, last
    assert "flow chat: stored after" in last.detail
    assert "done after" in last.detail
    assert healthy(found), found
    assert [one.title for one in found if one.level == Level.OK][:4] == [
        "EMQX reachable, key valid",
        "key for publishing valid",
        "in step with flows.toml",
        "webhook reachable from EMQX (http:emqx_gpt)",
    ]


async def test_the_test_leaves_no_memory(house: Rig) -> None:
    async with doctor(house) as examined:
        found = await seen(examined)
    assert found[-1].level == Level.OK
    (row,) = await house.requests(flow="chat")
    assert row["conversation"].startswith("doctor-")
    answer = await house.http.get(f"/conversations/chat/{row['conversation']}")
    assert answer.json()["turns"] == []


async def test_a_wrong_model_key_is_said_at_once_and_no_message_is_sent(house: Rig) -> None:
    async def models() -> list[Finding]:
        return [findings.fail("model's key", "wrong")]

    async with doctor(house, models=models) as examined:
        found = await seen(examined)
    assert found[-1].level == Level.SKIP
    assert "the model can't answer" in found[-1].detail


async def test_a_service_that_does_not_know_the_flow_is_named(house: Rig) -> None:
    """It was started with another flows.toml; EMQX has the new one already."""
    more = FLOWS + '\n[flows.fresh]\nrequest = "fresh/${user}"\nreply = "said/${user}"\n'
    flows = flows_of(more)
    desired = wanted.build(flows, to=wanted.target(house.url, WEBHOOK))
    emqx = Emqx(house.broker.rest_url, ("key", "secret"))
    async with EmqxAdmin(house.broker.rest_url, ("key", "secret")) as admin:
        await apply(admin, desired)
        loop = Loop(emqx, suitable(flows, "fresh"), house.url, OPERATOR, arrives=5, ends=2)
        found = await seen(Doctor(admin, desired, emqx, loop=loop))
    await emqx.close()
    assert found[-1].level == Level.FAIL
    assert "does not know flow fresh" in found[-1].detail
    assert found[-1].hint == "restart the service"


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        ([{"id": "m", "object": "model"}], "warn"),
        ({"error": "Unexpected endpoint or method. (GET /models)"}, "warn"),
        ("<html>Open WebUI</html>", "warn"),
        ({"object": "list", "data": [{"id": "models/m"}]}, "ok"),
        ({"object": "list", "data": None}, "warn"),
        ([None, 5], "warn"),
    ],
)
async def test_whatever_a_models_server_lists_there_is_a_finding(answer: Any, level: str) -> None:
    async def list_models(_: Request) -> Response:
        return HTMLResponse(answer) if isinstance(answer, str) else JSONResponse(answer)

    async with serving(Starlette(routes=[Route("/v1/models", list_models)])) as url:
        settings = make_settings(openai_api_key="sk-test", openai_base_url=f"{url}/v1")
        flows = flows_of('[flows.a]\nrequest = "a"\nreply = "b"\nmodel = "m"')
        (found,) = await ask_models(settings, flows)
    assert found.level in (level, Level.OK if isinstance(answer, list) else level), found


async def test_no_broker(house: Rig) -> None:
    async with doctor(house, emqx_url="http://127.0.0.1:9") as examined:
        found = await seen(examined)
    assert words(found) == [
        ("fail", "EMQX reachable"),
        ("ok", "webhook here, token equal"),
        ("skip", "a message through the whole loop"),
    ]


async def test_another_token(house: Rig) -> None:
    async with doctor(house, token="another") as examined:  # noqa: S106
        found = await seen(examined)
    assert ("fail", "token equal") in words(found)
    assert ("fail", "webhook here, token equal") in words(found)
    assert found[-1].level == Level.SKIP
    assert "another" not in "".join(one.detail.replace("another token", "") for one in found[:3])


async def test_a_missing_half_and_a_switched_off_rule(house: Rig) -> None:
    async with doctor(house) as examined:
        admin = examined.admin
        rule = await admin.get("rule", "emqx_gpt_chat")
        assert rule is not None
        kept = {key: rule[key] for key in ("sql", "actions", "description")}
        await admin.replace("rule", "emqx_gpt_chat", {**kept, "enable": False})
        found = await seen(examined)
        assert ("fail", "rule emqx_gpt_chat") in words(found)
        assert ("warn", "in step") in words(found)
        for ident in ("emqx_gpt_chat", "emqx_gpt_alarm", "emqx_gpt_camera"):
            await admin.delete("rule", ident)
        await admin.delete("action", "http:emqx_gpt")
        found = await seen(examined)
        (missing,) = [one for one in found if one.title == "connectors and actions"]
        assert missing.detail == "missing: action http:emqx_gpt"


async def test_a_rule_that_raised(house: Rig) -> None:
    async with httpx.AsyncClient(auth=("key", "secret")) as http:
        body = {"topic": "sensors/x/telemetry", "payload": "no JSON"}
        await http.post(f"{house.broker.rest_url}/api/v5/publish", json=body)
    async with doctor(house, loop=None) as examined:
        found = await seen(examined)
    (raised,) = [one for one in found if one.level == Level.WARN]
    assert raised.title == "rule emqx_gpt_alarm"
    assert raised.detail.startswith("it raised on 1 messages")


async def test_a_service_that_is_not_asked_with_the_right_token(house: Rig) -> None:
    async with doctor(house, operator="wrong") as examined:
        found = await seen(examined)
    assert found[-1].level == Level.FAIL
    assert "OPERATOR_TOKEN" in found[-1].detail
    async with doctor(house, operator="") as examined:
        found = await seen(examined)
    assert found[-1].level == Level.SKIP


async def test_models_that_are_not_there(house: Rig) -> None:
    settings = make_settings(openai_api_key="sk-test", openai_base_url=house.model.base_url)
    flows = flows_of('[flows.a]\nrequest = "a"\nreply = "b"\nmodel = "gpt-3.5-turbo"')
    (found,) = await ask_models(settings, flows)
    assert found.level == Level.FAIL
    assert "does not list gpt-3.5-turbo" in found.detail
    nowhere = make_settings(openai_api_key="sk-test", openai_base_url="http://127.0.0.1:9/v1")
    (found,) = await asyncio.wait_for(ask_models(nowhere, flows), 15)
    assert found.level == Level.FAIL
    assert found.hint.startswith("OPENAI_API_KEY")
