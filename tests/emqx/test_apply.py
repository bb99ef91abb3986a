"""Apply and remove against the stand-in: order, completion, races, what is not ours."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import pytest

from service.demo.standin.broker import StandIn
from service.emqx import names
from service.emqx.apply import ApplyError, apply, compare, read, remove
from service.emqx.management_api import EmqxAdmin
from service.emqx.plan import Do
from service.emqx.render import to_hocon
from service.emqx.resources import Desired
from tests.contract.webhook import Webhook
from tests.emqx.conftest import FLOWS, publish

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


async def test_a_token_loaded_by_hand_is_put_in_again(
    admin: EmqxAdmin, build: Build, broker: StandIn
) -> None:
    desired = build()
    says = {**desired.connector, "description": names.CONNECTOR_SAYS}
    await broker.load(to_hocon(dataclasses.replace(desired, connector=says)))
    assert (await compare(admin, desired)).in_step
    assert (await apply(admin, desired)).done == ["changed connector http:emqx_gpt"]
    assert (await apply(admin, desired)).done == []


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
