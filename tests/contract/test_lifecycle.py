"""Apply, diff, remove, by what any broker shows of them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator

import pytest

from service.emqx.broker_run import ApplyError
from service.emqx.config_file import to_hocon
from service.emqx.look import compare, read
from service.emqx.management_api import EmqxAdmin
from service.emqx.remove import remove
from service.errors import BrokerError
from tests.contract.conftest import Setup


def test_diff_after_apply_is_empty(fresh: Setup) -> None:
    plan = fresh.call(lambda admin: compare(admin, fresh.desired))
    assert plan.in_step, plan.as_json()
    assert plan.notes == ()


def test_a_second_apply_does_nothing(fresh: Setup) -> None:
    assert fresh.apply() == []


def test_remove_leaves_no_trace(fresh: Setup) -> None:
    before = _names(fresh)
    done = fresh.call(lambda admin: remove(admin, fresh.desired.prefix)).done
    assert len(done) >= 4 + len(fresh.desired.rules)
    left = fresh.call(lambda admin: read(admin, fresh.desired.prefix))
    assert left.found == {}
    after = _names(fresh)
    mine = {name for name in before if name.startswith(fresh.desired.prefix)}
    assert len(mine) == len(done)
    assert after == before - mine


def _names(fresh: Setup) -> set[str]:
    rules = fresh.call(lambda admin: admin.rules())
    found = {rule["id"] for rule in rules}
    for path in ("/connectors", "/actions"):
        found |= {f"{item['name']} {path}" for item in fresh.rest("GET", path).json()}
    return found


def test_what_the_file_says_is_what_apply_makes(bare: Setup) -> None:
    """The import of emqx/README.md, and no difference after it but the fallback of 5.9."""
    answer = bare.load(to_hocon(bare.desired))
    assert (answer.status_code, answer.text) == (200, "")
    plan = bare.call(lambda admin: compare(admin, bare.desired))
    differing = {field.path for step in plan.pending for field in step.fields}
    assert plan.in_step or differing == {"fallback_actions"}, plan.as_json()


def test_a_file_with_placeholders_is_refused(bare: Setup) -> None:
    answer = bare.load(to_hocon(bare.with_token(None)))
    assert answer.status_code == 400
    assert "failed_to_resolve" in answer.text
    ident = f"http:{bare.desired.prefix}"
    assert bare.call(lambda admin: admin.get("connector", ident)) is None


def test_drift_is_seen_and_mended(fresh: Setup) -> None:
    ident = f"http:{fresh.desired.prefix}"

    async def spoil(admin: EmqxAdmin) -> None:
        action = await admin.get("action", ident)
        assert action is not None
        await admin.replace(
            "action",
            ident,
            {
                "connector": action["connector"],
                "description": action["description"],
                "parameters": {**action["parameters"], "body": "${payload}", "max_retries": 3},
                "resource_opts": {**action["resource_opts"], "inflight_window": 7},
                **{key: action[key] for key in ("fallback_actions",) if key in action},
            },
        )
        rule = await admin.get("rule", fresh.rule("chat"))
        assert rule is not None
        await admin.replace(
            "rule",
            fresh.rule("chat"),
            {key: rule[key] for key in ("sql", "actions", "description")} | {"enable": False},
        )

    fresh.call(spoil)
    plan = fresh.call(lambda admin: compare(admin, fresh.desired))
    assert {(step.kind, field.path) for step in plan.pending for field in step.fields} == {
        ("action", "resource_opts.inflight_window"),
        ("action", "parameters.body"),
        ("rule", "enable"),
    }
    fresh.apply()
    action = fresh.call(lambda admin: admin.get("action", ident))
    assert action is not None
    assert action["parameters"]["max_retries"] == 3
    assert "body" not in action["parameters"]


def test_a_rotated_token_is_seen_applied_and_never_shown(fresh: Setup) -> None:
    token = f'new-"quoted\\-{fresh.run_id}'
    desired = fresh.with_token(token)
    plan = fresh.call(lambda admin: compare(admin, desired))
    assert [field.path for step in plan.pending for field in step.fields] == [
        "headers.authorization",
        "headers.authorization",
        "sql",
    ]
    fresh.webhook.token = token
    fresh.apply(desired)
    with fresh.device("rotator") as device:
        device.publish(f"{fresh.root}/chat/u/ask", "hello")
    fresh.webhook.wait(lambda bodies: len(bodies) == 1)
    connector = fresh.call(lambda admin: admin.get("connector", f"http:{desired.prefix}"))
    assert token not in str(connector)


def test_a_path_in_front_of_the_webhook(bare: Setup) -> None:
    """PUBLIC_URL behind a proxy: EMQX joins the connector's path and the action's."""
    url = f"{bare.webhook.url}/behind/proxy"
    connectors = {ident: {**each, "url": url} for ident, each in bare.desired.connectors.items()}
    desired = dataclasses.replace(bare.desired, connectors=connectors)
    bare.webhook.path = "/behind/proxy/webhook"
    bare.apply(desired, check_webhook=False)
    with bare.device("a") as device:
        device.publish(f"{bare.root}/chat/a/ask", "hello")
    bare.webhook.wait(lambda bodies: len(bodies) == 1)


@pytest.fixture
def theirs(bare: Setup) -> Iterator[str]:
    """A rule of somebody else's under the name that ours needs."""
    ident = bare.rule("chat")
    body = {"sql": f'SELECT * FROM "{bare.root}/x"', "actions": [], "description": "theirs"}
    bare.call(lambda admin: admin.create("rule", ident, body))
    try:
        yield ident
    finally:
        bare.call(lambda admin: admin.delete("rule", ident))


def test_what_is_somebody_elses_stays(bare: Setup, theirs: str) -> None:
    with pytest.raises(ApplyError) as caught:
        bare.apply()
    assert caught.value.code == "broker_name_taken"
    assert caught.value.report.done == []
    assert bare.call(lambda admin: remove(admin, bare.desired.prefix)).done == []
    rule = bare.call(lambda admin: admin.get("rule", theirs))
    assert rule is not None
    assert rule["description"] == "theirs"


def test_a_wrong_key_is_told_from_a_missing_broker(bare: Setup) -> None:
    async def ask(url: str) -> str:
        async with EmqxAdmin(url, (bare.broker.key[0], "wrong")) as admin:
            try:
                await compare(admin, bare.desired)
            except BrokerError as error:
                return error.code
        return "no error"

    assert asyncio.run(ask(bare.broker.url)) == "broker_unauthorized"
    assert asyncio.run(ask("http://127.0.0.1:9")) == "broker_unreachable"


def test_sql_that_the_broker_refuses(bare: Setup) -> None:
    ident = bare.rule("chat")
    rules = {**bare.desired.rules}
    rules[ident] = {**rules[ident], "sql": f'SELEC id FROM "{bare.root}/x"'}
    desired = dataclasses.replace(bare.desired, rules=rules)
    with pytest.raises(ApplyError) as caught:
        bare.apply(desired)
    assert caught.value.code == "sql_refused"
    assert "syntax error" in caught.value.message
    assert bare.call(lambda admin: admin.get("connector", f"http:{desired.prefix}")) is None


def test_a_webhook_that_the_broker_does_not_reach(bare: Setup) -> None:
    bare.webhook.refuse()
    with pytest.raises(ApplyError) as caught:
        bare.apply(wait=3)
    assert caught.value.code == "webhook_not_connected"
    assert caught.value.report.done == []
    assert bare.call(lambda admin: read(admin, bare.desired.prefix)).found == {}
    bare.webhook.listen()
    assert len(bare.apply()) >= 4 + len(bare.desired.rules)
