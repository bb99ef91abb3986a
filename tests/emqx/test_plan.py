"""Desired × actual → plan: what is a difference, and what only looks like one."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from service.emqx import reply_rule, resource_names
from service.emqx.compare import differences, milliseconds, squeezed
from service.emqx.plan import Actual, Do, Plan, plan
from service.emqx.resources import Desired, build, target
from service.emqx.write import changed
from service.errors import BrokerError
from service.flows import Flows
from tests.emqx import readback

URL = "http://gpt.example.com:8000"


@pytest.fixture
def desired(flows: Flows) -> Desired:
    return build(flows, to=target(URL, "tok-1"))


def changes(found: Plan) -> list[tuple[str, str, list[str]]]:
    return [
        (step.do.value, step.ident, [field.path for field in step.fields]) for step in found.pending
    ]


def test_an_untouched_broker_shows_no_difference(desired: Desired) -> None:
    found = plan(desired, readback.untouched(desired))
    assert changes(found) == []
    assert found.in_step
    assert {step.do for step in found.steps} == {Do.LEAVE}
    assert found.notes == ()


def test_an_empty_broker_gets_everything_rules_last(desired: Desired) -> None:
    found = plan(desired, Actual())
    assert [step.kind for step in found.steps] == [
        *["connector"] * 2,
        *["action"] * 2,
        *["rule"] * 4,
    ]
    assert {step.do for step in found.steps} == {Do.CREATE}


@pytest.mark.parametrize(
    ("differing", "paths"),
    [
        ({"resource_opts": {"health_check_interval": 2000}}, []),
        (
            {"resource_opts": {"health_check_interval": "15s"}},
            ["resource_opts.health_check_interval"],
        ),
        ({"url": URL + "/"}, []),
        ({"url": "http://old:8000"}, ["url"]),
        ({"pool_size": "8"}, []),
        ({"pool_size": 1, "enable": False}, ["enable", "pool_size"]),
        ({"headers": {"Authorization": "******", "Content-Type": "application/json"}}, []),
        ({"headers": {"authorization": "Bearer tok-1", "content-type": "application/json"}}, []),
        (
            {"headers": {"authorization": "Bearer old", "content-type": "text/plain"}},
            ["headers.authorization", "headers.content-type"],
        ),
        ({"headers": None}, ["headers.authorization", "headers.content-type"]),
        (
            {"description": "emqx-gpt: the service's webhook (token 00000000)"},
            ["headers.authorization"],
        ),
        ({"description": "emqx-gpt: the service's webhook"}, []),
        ({"pool_type": "hash"}, ["pool_type"]),
        ({"description": "emqx-gpt: mine now"}, ["description"]),
        ({"ssl": {"enable": True, "verify": "verify_peer"}, "tags": ["a"]}, []),
    ],
)
def test_connector(desired: Desired, differing: dict[str, Any], paths: list[str]) -> None:
    have = readback.connector(desired, **differing)
    found = plan(desired, readback.changed(readback.untouched(desired), "connector", have))
    assert [field.path for step in found.steps for field in step.fields] == paths
    assert "tok-1" not in str(found.as_json())
    assert "Bearer" not in str(found.as_json())


@pytest.mark.parametrize(
    ("differing", "paths"),
    [
        ({"inflight_window": 1}, ["resource_opts.inflight_window"]),
        ({"dispatch_strategy": "random"}, ["resource_opts.dispatch_strategy"]),
        ({"dispatch_strategy": "per_clientid"}, []),
        ({"request_ttl": "3600s"}, []),
        ({"request_ttl": "60m"}, []),
        ({"request_ttl": 3_600_000}, []),
        ({"request_ttl": "infinity"}, ["resource_opts.request_ttl"]),
        ({"max_buffer_bytes": "1MB", "worker_pool_size": 4}, []),
    ],
)
def test_action(desired: Desired, differing: dict[str, Any], paths: list[str]) -> None:
    have = readback.action()
    have["resource_opts"] |= differing
    found = plan(desired, readback.changed(readback.untouched(desired), "action", have))
    assert [field.path for step in found.steps for field in step.fields] == paths


def test_a_body_template_has_to_go(desired: Desired) -> None:
    have = readback.action()
    have["parameters"]["body"] = '{"payload": "${payload}"}'
    fields = differences(desired.actions[readback.PLAIN], have)
    assert [(field.path, field.want) for field in fields] == [("parameters.body", None)]


def test_an_authorization_header_of_the_action_goes_before_ours(desired: Desired) -> None:
    have = readback.action()
    have["parameters"]["headers"]["Authorization"] = "******"
    wanted = desired.actions[readback.PLAIN]
    (field,) = differences(wanted, have)
    assert (field.path, field.want) == ("parameters.headers.Authorization", None)
    mended = changed("action", have, wanted)
    assert differences(wanted, mended) == ()
    assert mended["parameters"]["headers"]["accept"] == "application/json"


def test_a_fallback_of_somebody_else_stays_beside_ours(desired: Desired) -> None:
    wanted = desired.with_fallback().actions[readback.PLAIN]
    theirs = {"kind": "republish", "args": {"topic": "lost", "payload": "${.}"}}
    have = readback.action(fallback_actions=[theirs], tags=["mine"])
    assert [field.path for field in differences(wanted, have)] == ["fallback_actions"]
    mended = changed("action", have, wanted)
    assert mended["fallback_actions"] == [
        theirs,
        {"kind": "reference", "type": "http", "name": "emqx_gpt_again"},
    ]
    assert mended["tags"] == ["mine"]
    assert differences(wanted, mended) == ()


def test_the_fallback_is_an_action_like_the_first_on_the_same_connector(desired: Desired) -> None:
    plain, ordered = readback.PLAIN, readback.ORDERED
    actions = desired.with_fallback().actions
    assert list(actions) == [f"{plain}_again", plain, f"{ordered}_again", ordered]
    for ident in (plain, ordered):
        again = actions[f"{ident}_again"]
        assert "fallback_actions" not in again
        for key in ("connector", "parameters", "resource_opts"):
            assert again[key] == actions[ident][key]


def test_a_key_of_the_reply_rule_is_compared_and_never_shown(
    flows: Flows, desired: Desired
) -> None:
    rotated = build(flows, to=target(URL, "tok-2", "tok-1"))
    steps = plan(rotated, readback.untouched(desired)).doing(Do.CHANGE)
    assert [(step.ident, step.fields[0].path) for step in steps] == [
        ("http:emqx_gpt", "headers.authorization"),
        ("http:emqx_gpt_ordered", "headers.authorization"),
        ("emqx_gpt_reply", "sql"),
    ]
    for token in ("tok-1", "tok-2"):
        assert reply_rule.key(token, "emqx_gpt") not in str(plan(rotated, Actual()).as_json())
        key = reply_rule.key(token, "emqx_gpt")
        assert key not in str([step.fields for step in steps])
    other = build(flows, to=target(URL, "tok-2"))
    (reply,) = [s for s in plan(other, readback.untouched(desired)).pending if s.kind == "rule"]
    assert (reply.fields[0].have, reply.fields[0].want) == (
        "another REPLY_KEY",
        "the current REPLY_KEY",
    )


@pytest.mark.parametrize(
    ("differing", "paths"),
    [
        ({"enable": False}, ["enable"]),
        ({"sql": 'SELECT * FROM "x"'}, ["sql"]),
        ({"actions": ["http:emqx_gpt", {"function": "console"}]}, ["actions"]),
        ({"actions": []}, ["actions"]),
        ({"name": "called so in the dashboard"}, []),
    ],
)
def test_rule(desired: Desired, differing: dict[str, Any], paths: list[str]) -> None:
    actual = readback.untouched(desired)
    rules = tuple(
        {**rule, **differing} if rule["id"] == "emqx_gpt_chat" else rule for rule in actual.rules
    )
    found = plan(desired, dataclasses.replace(actual, rules=rules))
    assert [field.path for step in found.steps for field in step.fields] == paths


def test_the_reply_rule_is_compared_inside_its_action(desired: Desired) -> None:
    actual = readback.untouched(desired)
    reply = readback.rule(desired, "emqx_gpt_reply")
    reply["actions"][0]["args"]["topic"] = "elsewhere"
    rules = (reply, *(rule for rule in actual.rules if rule["id"] != "emqx_gpt_reply"))
    assert changes(plan(desired, dataclasses.replace(actual, rules=rules))) == [
        ("change", "emqx_gpt_reply", ["actions"])
    ]


def test_whose_is_it(desired: Desired) -> None:
    actual = readback.untouched(desired)
    theirs = [
        readback.rule(desired, "emqx_gpt_chat", id="emqx_gpt_b_chat"),  # ours, of another prefix
        readback.rule(desired, "emqx_gpt_chat", id="emqx_gpt_x", description="not marked"),
        {
            "id": "tap",
            "from": ["emqx-gpt/reply/emqx_gpt"],
            "actions": ["http:tap"],
            "description": "",
        },
        {"id": "far", "from": ["t"], "actions": ["http:far"], "description": ""},
    ]
    gone = readback.rule(
        desired, "emqx_gpt_chat", id="emqx_gpt_old", description=resource_names.flow_says("old")
    )
    found = plan(desired, dataclasses.replace(actual, rules=(*actual.rules, *theirs, gone)))
    assert changes(found) == [("delete", "emqx_gpt_old", [])]
    assert [step.ident for step in found.doing(Do.FOREIGN)] == [
        "emqx_gpt_b_chat",
        "emqx_gpt_x",
        "tap",
    ]


@pytest.mark.parametrize("kind", ["connector", "action", "rule"])
def test_a_taken_name(desired: Desired, kind: str) -> None:
    actual = readback.untouched(desired)
    if kind == "rule":
        rules = tuple({**rule, "description": "mine"} for rule in actual.rules)
        actual = dataclasses.replace(actual, rules=rules)
    else:
        found = {key: {**body, "description": ""} for key, body in actual.found.items()}
        actual = dataclasses.replace(actual, found=found)
    found = plan(desired, actual)
    assert not found.in_step
    assert found.pending == ()
    with pytest.raises(BrokerError, match=kind) as caught:
        found.refuse_taken()
    assert caught.value.code == "broker_name_taken"


def test_without_a_token_there_is_a_note_and_no_difference(flows: Flows, desired: Desired) -> None:
    found = plan(build(flows), readback.untouched(desired))
    assert found.in_step
    assert "not compared" in found.notes[0]
    by_hand = readback.connector(desired, description=resource_names.CONNECTOR_SAYS)
    loaded = readback.changed(readback.untouched(desired), "connector", by_hand)
    found = plan(desired, loaded)
    assert found.in_step
    assert "loaded by hand" in found.notes[0]
    forced = [
        ("change", "http:emqx_gpt", ["headers.authorization"]),
        ("change", "http:emqx_gpt_ordered", ["headers.authorization"]),
    ]
    assert changes(plan(desired, loaded, force=True)) == forced
    assert changes(plan(desired, readback.untouched(desired), force=True)) == forced


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("10m", 600_000),
        ("1h30m", 5_400_000),
        ("600s", 600_000),
        (600_000, 600_000),
        ("2S", 2000),
        ("500ms", 500),
        ("infinity", "infinity"),
        (True, "true"),
    ],
)
def test_durations(text: object, ms: object) -> None:
    assert milliseconds(text) == ms


def test_white_space_counts_only_in_quotes() -> None:
    assert squeezed(" SELECT  a\n  FROM \"a  b\"\tWHERE x = 'c  d' ") == (
        "SELECT a FROM \"a  b\" WHERE x = 'c  d'"
    )


def test_fingerprints() -> None:
    assert (
        resource_names.fingerprint("a")
        == resource_names.fingerprint("a")
        != resource_names.fingerprint("b")
    )
    assert resource_names.fingerprint("a") != resource_names.fingerprint("a", "other")
    marked = resource_names.with_fingerprint(resource_names.CONNECTOR_SAYS, "12ab34cd")
    assert resource_names.fingerprint_in(marked) == "12ab34cd"
    assert resource_names.fingerprint_in(resource_names.CONNECTOR_SAYS) is None
