"""Apply and remove against the stand-in: order, completion, races, what is not ours."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import httpx
import pytest

from service.broker.apply import ApplyError, apply, apply_when_ready, compare, read, remove
from service.broker.desired import Desired
from service.broker.plan import Do
from service.clients.emqx_admin import EmqxAdmin, Version
from service.demo.broker import StandIn
from service.errors import BrokerError
from tests.broker.conftest import FLOWS
from tests.contract.webhook import Webhook

Build = Callable[..., Desired]


async def test_apply_then_nothing_is_left_to_do_and_remove_leaves_no_trace(
    admin: EmqxAdmin, build: Build
) -> None:
    told: list[str] = []
    report = await apply(admin, build(), tell=told.append)
    assert (
        report.done
        == told
        == [
            "created connector http:emqx_gpt",
            "created action http:emqx_gpt",
            "created rule emqx_gpt_chat",
            "created rule emqx_gpt_alarm",
            "created rule emqx_gpt_camera",
            "created rule emqx_gpt_reply",
        ]
    )
    assert (await compare(admin, build())).in_step
    assert (await apply(admin, build())).done == []
    assert (await remove(admin)).done[-2:] == [
        "deleted action http:emqx_gpt",
        "deleted connector http:emqx_gpt",
    ]
    left = await read(admin, "emqx_gpt")
    assert (left.connector, left.action, left.rules) == (None, None, ())
    assert (await remove(admin)).done == []


async def test_what_is_applied_delivers(admin: EmqxAdmin, build: Build, webhook: Webhook) -> None:
    await apply(admin, build())
    await publish(admin, "lab/ada/ask", "hello")
    await publish(admin, "boilers/b", '{"temperature": 41}')
    bodies = await asyncio.to_thread(webhook.wait, lambda bodies: len(bodies) == 2)
    assert {body["flow"] for body in bodies} == {"chat", "alarm"}


async def test_another_owners_resources_stay(admin: EmqxAdmin, build: Build) -> None:
    theirs = {"sql": 'SELECT * FROM "x"', "actions": [], "description": "mine", "enable": True}
    await admin.create("rule", "emqx_gpt_old", theirs)
    await apply(admin, build())
    await remove(admin)
    assert [rule["id"] for rule in await admin.rules()] == ["emqx_gpt_old"]


async def test_a_taken_name_changes_nothing(admin: EmqxAdmin, build: Build) -> None:
    theirs = {"url": "http://127.0.0.1:1", "description": "billing"}
    await admin.create("connector", "http:emqx_gpt", theirs)
    with pytest.raises(ApplyError, match="connector http:emqx_gpt that is not ours") as caught:
        await apply(admin, build())
    assert caught.value.code == "broker_name_taken"
    assert caught.value.report.done == []
    assert (await read(admin, "emqx_gpt")).rules == ()
    assert (await remove(admin)).done == []
    assert await admin.get("connector", "http:emqx_gpt") is not None


async def test_a_broken_sql_is_refused_before_anything_is_made(
    admin: EmqxAdmin, build: Build
) -> None:
    desired = build()
    rules = {**desired.rules}
    rules["emqx_gpt_chat"] = {**rules["emqx_gpt_chat"], "sql": 'SELECT id FROM "x" WHERE ('}
    broken = Desired(
        "emqx_gpt", desired.connector, desired.action, rules, desired.topics, desired.target
    )
    with pytest.raises(ApplyError, match="SQL of rule emqx_gpt_chat") as caught:
        await apply(admin, broken)
    assert caught.value.code == "sql_refused"
    assert len(caught.value.report.not_done) == 6
    assert (await read(admin, "emqx_gpt")).connector is None


async def test_a_webhook_that_is_away_leaves_rules_undone_and_a_second_run_completes(
    admin: EmqxAdmin, build: Build, webhook: Webhook
) -> None:
    webhook.refuse()
    with pytest.raises(ApplyError, match="EMQX does not reach") as caught:
        await apply(admin, build(), wait=0.5)
    assert caught.value.code == "webhook_not_connected"
    assert len(caught.value.report.done) == 2
    assert caught.value.report.not_done[0] == "create rule emqx_gpt_chat"
    webhook.listen()
    assert (await apply(admin, build())).done[0] == "created rule emqx_gpt_chat"


@pytest.mark.parametrize(
    ("token", "code", "said"),
    [("other", "webhook_token", "another WEBHOOK_TOKEN"), ("", "webhook_token", "any token")],
)
async def test_the_probe_finds_a_wrong_token(
    admin: EmqxAdmin,
    build: Build,
    webhook: Webhook,
    token: str,
    code: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if token:
        webhook.token = token
    else:
        monkeypatch.setattr(webhook, "_status", lambda *_: (400, {}))
    with pytest.raises(ApplyError, match=said) as caught:
        await apply(admin, build())
    assert caught.value.code == code
    assert (await read(admin, "emqx_gpt")).rules == ()


@pytest.mark.parametrize(("status", "code"), [(503, "webhook_busy"), (404, "webhook_strange")])
async def test_the_probe_names_other_answers(
    admin: EmqxAdmin,
    build: Build,
    webhook: Webhook,
    status: int,
    code: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhook, "_status", lambda *_: (status, {}))
    with pytest.raises(ApplyError) as caught:
        await apply(admin, build())
    assert caught.value.code == code


async def test_changes_are_made_and_what_we_do_not_name_is_kept(
    admin: EmqxAdmin, build: Build, webhook: Webhook
) -> None:
    await apply(admin, build())
    action = await admin.get("action", "http:emqx_gpt")
    assert action is not None
    await admin.replace(
        "action",
        "http:emqx_gpt",
        {
            "connector": "emqx_gpt",
            "description": action["description"],
            "parameters": {
                "method": "post",
                "path": "/webhook",
                "body": '{"p": "${payload}"}',
                "max_retries": 5,
            },
            "resource_opts": {
                "inflight_window": 100,
                "request_ttl": "45s",
                "health_check_interval": "2s",
                "max_buffer_bytes": "1MB",
            },
        },
    )
    todo = await compare(admin, build())
    assert [field.path for step in todo.pending for field in step.fields] == [
        "resource_opts.inflight_window",
        "resource_opts.request_ttl",
        "parameters.body",
    ]
    assert (await apply(admin, build())).done == ["changed action http:emqx_gpt"]
    action = await admin.get("action", "http:emqx_gpt")
    assert action is not None
    assert action["resource_opts"]["max_buffer_bytes"] == "1MB"
    assert action["parameters"]["max_retries"] == 5
    assert "body" not in action["parameters"]


async def test_a_rotated_token_is_seen_and_sent(
    admin: EmqxAdmin, build: Build, webhook: Webhook
) -> None:
    await apply(admin, build())
    webhook.token = "tok-2"
    todo = await compare(admin, build(token="tok-2"))
    assert [(step.kind, [field.path for field in step.fields]) for step in todo.pending] == [
        ("connector", ["headers.authorization"])
    ]
    assert "tok-2" not in str(todo.as_json())
    await apply(admin, build(token="tok-2"))
    await publish(admin, "lab/ada/ask", "hi")
    await asyncio.to_thread(webhook.wait, bool)


async def test_a_rule_whose_flow_is_gone_is_deleted(admin: EmqxAdmin, build: Build) -> None:
    await apply(admin, build())
    only_chat = FLOWS.partition("[flows.alarm]")[0]
    todo = await compare(admin, build(only_chat))
    assert {step.ident for step in todo.doing(Do.DELETE)} == {"emqx_gpt_alarm", "emqx_gpt_camera"}
    await apply(admin, build(only_chat))
    assert {rule["id"] for rule in await admin.rules()} == {"emqx_gpt_chat", "emqx_gpt_reply"}


async def test_remove_stops_before_anything_if_others_depend_on_it(
    admin: EmqxAdmin, build: Build
) -> None:
    await apply(admin, build())
    theirs = {"sql": 'SELECT * FROM "y"', "actions": ["http:emqx_gpt"], "description": "mine"}
    await admin.create("rule", "by_hand", theirs)
    plan = await compare(admin, build())
    assert plan.in_step
    assert [step.ident for step in plan.doing(Do.FOREIGN)] == ["by_hand"]
    with pytest.raises(ApplyError, match="rule by_hand") as caught:
        await remove(admin)
    assert caught.value.code == "broker_in_use"
    assert len(await admin.rules()) == 5


async def test_replicas_that_start_together_do_not_fight(broker: StandIn, build: Build) -> None:
    async def replica() -> None:
        async with EmqxAdmin(broker.rest_url, ("key", "secret")) as admin:
            await apply_when_ready(admin, build(), give_up=20)

    await asyncio.gather(*(replica() for _ in range(6)))
    async with EmqxAdmin(broker.rest_url, ("key", "secret")) as admin:
        assert (await compare(admin, build())).in_step


async def test_waiting_for_a_broker_that_comes_late(build: Build) -> None:
    broker = StandIn()
    await broker.start()
    port = broker.rest_port
    told: list[str] = []
    await broker.stop()
    async with EmqxAdmin(f"http://127.0.0.1:{port}", ("key", "secret")) as admin:
        said = asyncio.Event()

        def tell(text: str) -> None:
            told.append(text)
            said.set()

        waiting = asyncio.create_task(apply_when_ready(admin, build(), tell=tell))
        await said.wait()
        async with StandIn(rest_port=port):
            assert len((await waiting).done) == 6
    assert "can't be reached" in told[0]


async def test_waiting_ends_at_once_where_waiting_can_not_help(
    broker: StandIn, build: Build
) -> None:
    async with EmqxAdmin(broker.rest_url, ("key", "wrong")) as admin:
        with pytest.raises(ApplyError) as caught:
            await apply_when_ready(admin, build())
    assert caught.value.code == "broker_unauthorized"


async def test_an_old_broker_is_refused(
    admin: EmqxAdmin, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def old() -> Version:
        return Version.parse("5.3.2")

    monkeypatch.setattr(admin, "version", old)
    with pytest.raises(BrokerError, match=r"5\.3\.2 is too old") as caught:
        await compare(admin, build())
    assert caught.value.code == "broker_too_old"


async def publish(admin: EmqxAdmin, topic: str, payload: str) -> None:
    async with httpx.AsyncClient(auth=("key", "secret")) as http:
        answer = await http.post(
            f"{admin.url}/api/v5/publish", json={"topic": topic, "payload": payload}
        )
        assert answer.is_success


async def test_a_where_that_the_sample_message_does_not_fit_is_no_error(
    admin: EmqxAdmin, build: Build
) -> None:
    text = '[flows.a]\nrequest = "a"\nreply = "b"\nwhere = "lower(payload.cmd) = \'on\'"'
    assert len((await apply(admin, build(text))).done) == 4


async def test_a_function_that_emqx_does_not_have_is_refused(
    admin: EmqxAdmin, build: Build
) -> None:
    desired = build()
    rules = {**desired.rules}
    rules["emqx_gpt_chat"] = {
        **rules["emqx_gpt_chat"],
        "sql": 'SELECT no_such(payload) AS x FROM "lab/+/ask"',
    }
    with pytest.raises(ApplyError) as caught:
        await apply(admin, dataclasses.replace(desired, rules=rules))
    assert caught.value.code == "sql_refused"
