"""Apply and remove against the stand-in: order, completion, races, what is not ours."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import pytest

from service.demo.standin.broker import StandIn
from service.emqx import findings, reply_rule, resource_names
from service.emqx.apply import apply
from service.emqx.broker_run import ApplyError
from service.emqx.config_file import to_hocon
from service.emqx.look import compare, read
from service.emqx.management_api import EmqxAdmin
from service.emqx.plan import Do
from service.emqx.remove import remove
from service.emqx.resources import Desired
from tests.contract.webhook import Webhook
from tests.emqx.conftest import FLOWS, TOKEN, publish
from tests.rig import eventually

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
            "created connector http:emqx_gpt_ordered",
            "created action http:emqx_gpt",
            "created action http:emqx_gpt_ordered",
            "created rule emqx_gpt_chat",
            "created rule emqx_gpt_alarm",
            "created rule emqx_gpt_camera",
            "created rule emqx_gpt_reply",
        ]
    )
    assert (await compare(admin, build())).in_step
    assert (await apply(admin, build())).done == []
    assert (await remove(admin)).done[-2:] == [
        "deleted connector http:emqx_gpt",
        "deleted connector http:emqx_gpt_ordered",
    ]
    left = await read(admin, "emqx_gpt")
    assert (left.found, left.rules) == ({}, ())
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


async def test_a_webhook_that_is_away_changes_nothing(
    admin: EmqxAdmin, build: Build, webhook: Webhook
) -> None:
    webhook.refuse()
    with pytest.raises(ApplyError, match="In a container 127.0.0.1 is the container") as caught:
        await apply(admin, build(), wait=0.5)
    assert caught.value.code == "webhook_not_connected"
    assert caught.value.report.done == []
    assert (await read(admin, "emqx_gpt")).found == {}
    webhook.listen()
    assert len((await apply(admin, build())).done) == 8


async def test_an_applied_half_whose_webhook_is_away_is_not_in_step(
    admin: EmqxAdmin, build: Build, webhook: Webhook
) -> None:
    await apply(admin, build())
    webhook.refuse()

    async def away() -> bool:
        connector = await admin.get("connector", "http:emqx_gpt") or {}
        return connector["status"] != "connected"

    await eventually(away)
    with pytest.raises(ApplyError) as caught:
        await apply(admin, build(), wait=0.5)
    assert caught.value.code == "webhook_not_connected"


async def test_what_is_masked_is_written_anew_by_force(admin: EmqxAdmin, build: Build) -> None:
    await apply(admin, build())
    assert (await apply(admin, build(), force=True)).done == [
        "changed connector http:emqx_gpt",
        "changed connector http:emqx_gpt_ordered",
    ]


async def test_an_older_installation_is_brought_along(
    admin: EmqxAdmin, build: Build, webhook: Webhook
) -> None:
    """One connector, one action with a window of 1, a reply rule that obeys anybody's will."""
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    says = resource_names.with_fingerprint(
        resource_names.CONNECTOR_SAYS, resource_names.fingerprint(TOKEN)
    )
    await admin.create(
        "connector",
        "http:emqx_gpt",
        {
            "description": says,
            "url": webhook.url,
            "headers": headers,
            "resource_opts": {"health_check_interval": "2s"},
        },
    )
    await admin.create(
        "action",
        "http:emqx_gpt",
        {
            "description": "emqx-gpt: messages of all flows",
            "connector": "emqx_gpt",
            "parameters": {"method": "post", "path": "/webhook"},
            "resource_opts": {"inflight_window": 1, "request_ttl": "1h"},
        },
    )
    old = 'SELECT json_decode(payload) AS p FROM "emqx-gpt/reply" WHERE is_null(peerhost)'
    await admin.create(
        "rule",
        "emqx_gpt_reply",
        {
            "description": resource_names.REPLY_SAYS,
            "sql": old,
            "actions": [dict(reply_rule.ACTION)],
        },
    )
    (relay,) = findings.open_relays(await admin.rules())
    assert "last will" in relay.detail
    done = (await apply(admin, build())).done
    assert "changed action http:emqx_gpt" in done
    assert "changed rule emqx_gpt_reply" in done
    assert list(findings.open_relays(await admin.rules())) == []
    assert (await compare(admin, build())).in_step


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
                "inflight_window": 1,
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
        ("connector", ["headers.authorization"]),
        ("connector", ["headers.authorization"]),
        ("rule", ["sql"]),
    ]
    assert "tok-2" not in str(todo.as_json())
    await apply(admin, build(token="tok-2"))
    await publish(admin, "lab/ada/ask", "hi")
    await asyncio.to_thread(webhook.wait, bool)


async def test_a_token_loaded_by_hand_is_put_in_again_by_force(
    admin: EmqxAdmin, build: Build, broker: StandIn
) -> None:
    desired = build()
    says = {
        ident: {**body, "description": resource_names.without_fingerprint(str(body["description"]))}
        for ident, body in desired.connectors.items()
    }
    await broker.load(to_hocon(dataclasses.replace(desired, connectors=says)))
    assert (await compare(admin, desired)).in_step
    assert (await apply(admin, desired)).done == []
    assert len((await apply(admin, desired, force=True)).done) == 2
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
