"""Desired × actual → plan: what is a difference, and what only looks like one."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from service.emqx import names
from service.emqx.compare import differences, milliseconds, squeezed
from service.emqx.plan import Actual, Do, Plan, plan
from service.emqx.resources import Desired, build, target
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
    assert [step.kind for step in found.steps] == ["connector", "action", *["rule"] * 4]
    assert {step.do for step in found.steps} == {Do.CREATE}


@pytest.mark.parametrize(
    ("changed", "paths"),
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
        ({"description": "emqx-gpt: mine now"}, ["description"]),
        ({"ssl": {"enable": True, "verify": "verify_peer"}, "tags": ["a"]}, []),
    ],
)
def test_connector(desired: Desired, changed: dict[str, Any], paths: list[str]) -> None:
    have = readback.connector(desired, **changed)
    found = plan(desired, dataclasses.replace(readback.untouched(desired), connector=have))
    assert [field.path for step in found.steps for field in step.fields] == paths
    assert "tok-1" not in str(found.as_json())
    assert "Bearer" not in str(found.as_json())


@pytest.mark.parametrize(
    ("changed", "paths"),
    [
        ({"inflight_window": 100}, ["resource_opts.inflight_window"]),
        ({"request_ttl": "3600s"}, []),
        ({"request_ttl": "60m"}, []),
        ({"request_ttl": 3_600_000}, []),
        ({"request_ttl": "infinity"}, ["resource_opts.request_ttl"]),
        ({"max_buffer_bytes": "1MB", "worker_pool_size": 4}, []),
    ],
)
def test_action(desired: Desired, changed: dict[str, Any], paths: list[str]) -> None:
    have = readback.action()
    have["resource_opts"] |= changed
    found = plan(desired, dataclasses.replace(readback.untouched(desired), action=have))
    assert [field.path for step in found.steps for field in step.fields] == paths


def test_a_body_template_has_to_go(desired: Desired) -> None:
    have = readback.action()
    have["parameters"]["body"] = '{"payload": "${payload}"}'
    fields = differences(desired.action, have)
    assert [(field.path, field.want) for field in fields] == [("parameters.body", None)]


@pytest.mark.parametrize(
    ("changed", "paths"),
    [
        ({"enable": False}, ["enable"]),
        ({"sql": 'SELECT * FROM "x"'}, ["sql"]),
        ({"actions": ["http:emqx_gpt", {"function": "console"}]}, ["actions"]),
        ({"actions": []}, ["actions"]),
        ({"name": "called so in the dashboard"}, []),
    ],
)
def test_rule(desired: Desired, changed: dict[str, Any], paths: list[str]) -> None:
    actual = readback.untouched(desired)
    rules = tuple(
        {**rule, **changed} if rule["id"] == "emqx_gpt_chat" else rule for rule in actual.rules
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
        {"id": "tap", "from": ["emqx-gpt/reply"], "actions": ["http:tap"], "description": ""},
        {"id": "far", "from": ["t"], "actions": ["http:far"], "description": ""},
    ]
    gone = readback.rule(
        desired, "emqx_gpt_chat", id="emqx_gpt_old", description=names.flow_says("old")
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
        theirs = {**getattr(actual, kind), "description": ""}
        actual = dataclasses.replace(actual, **{kind: theirs})
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
    by_hand = readback.connector(desired, description=names.CONNECTOR_SAYS)
    found = plan(desired, dataclasses.replace(readback.untouched(desired), connector=by_hand))
    assert found.in_step
    assert "loaded by hand" in found.notes[0]
    # apply can't leave it at that: it may be yesterday's token
    found = plan(
        desired, dataclasses.replace(readback.untouched(desired), connector=by_hand), sure=True
    )
    assert changes(found) == [("change", "http:emqx_gpt", ["headers.authorization"])]
    assert plan(desired, readback.untouched(desired), sure=True).in_step


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
    assert names.fingerprint("a") == names.fingerprint("a") != names.fingerprint("b")
    assert names.fingerprint("a") != names.fingerprint("a", "other")
    marked = names.with_fingerprint(names.CONNECTOR_SAYS, "12ab34cd")
    assert names.fingerprint_in(marked) == "12ab34cd"
    assert names.fingerprint_in(names.CONNECTOR_SAYS) is None
