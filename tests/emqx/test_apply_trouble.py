"""Apply where something is wrong, late or busy: SQL, probe, versions, replicas."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import pytest

from service.demo.standin.broker import StandIn
from service.emqx.apply import apply, apply_when_ready
from service.emqx.broker_run import ApplyError
from service.emqx.look import compare, read, waiting_messages
from service.emqx.management_api import EmqxAdmin, Version
from service.emqx.resources import Desired
from service.errors import BrokerError
from tests.contract.webhook import Webhook
from tests.emqx.conftest import publish

Build = Callable[..., Desired]


async def test_a_broken_sql_is_refused_before_anything_is_made(
    admin: EmqxAdmin, build: Build
) -> None:
    desired = build()
    rules = {**desired.rules}
    rules["emqx_gpt_chat"] = {**rules["emqx_gpt_chat"], "sql": 'SELECT id FROM "x" WHERE ('}
    broken = dataclasses.replace(desired, rules=rules)
    with pytest.raises(ApplyError, match="SQL of rule emqx_gpt_chat") as caught:
        await apply(admin, broken)
    assert caught.value.code == "sql_refused"
    assert len(caught.value.report.not_done) == 8
    assert (await read(admin, "emqx_gpt")).found == {}


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
    left = await read(admin, "emqx_gpt")
    assert (left.found, left.rules) == ({}, ())


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


async def test_messages_that_wait_are_counted_before_a_restart(
    admin: EmqxAdmin, build: Build, webhook: Webhook
) -> None:
    await apply(admin, build())
    webhook.answer = lambda _: 503
    await publish(admin, "lab/ada/ask", "hi")
    await asyncio.to_thread(webhook.wait_posts, 3)
    assert await waiting_messages(admin, await compare(admin, build())) == 0
    changed = await compare(admin, build(token="tok-2"))
    async with asyncio.timeout(20):  # EMQX's gauges are up to five seconds old
        while await waiting_messages(admin, changed) != 1:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


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
            assert len((await waiting).done) == 8
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


async def test_a_where_that_the_sample_message_does_not_fit_is_no_error(
    admin: EmqxAdmin, build: Build
) -> None:
    text = '[flows.a]\nrequest = "a"\nreply = "b"\nwhere = "lower(payload.cmd) = \'on\'"'
    assert len((await apply(admin, build(text))).done) == 6


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
