"""EMQX's management API: its errors in our words, pages, versions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.emqx.look import read
from service.emqx.management_api import EmqxAdmin, Version
from service.emqx.reasons import reason
from service.errors import BrokerError

RECORDED = Path(__file__).parents[1] / "recordings" / "rest-api.json"
ANSWERS = {one["title"]: one["response"] for one in json.loads(RECORDED.read_text("utf-8"))}


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("publish: qos out of range", "root.qos: Unable to parse string"),
        ("publish: payload is an object", 'root.payload: {"expected":"binary()"}'),
        ("publish: wildcard topic", "topic_name_invalid"),
        ("config: unknown root", "nonsense is no part of EMQX's configuration"),
        ("config: syntax error", "line 1: syntax error before:"),
        ("config: connector without url", "connectors.http.zz.url: required_field"),
        (
            "config: rule with bad SQL",
            'rule_engine.rules.bad.sql: 5: syntax error before: "SELEC"',
        ),
        ("config: action on a missing connector", "the action's connector does not exist"),
        (
            "connector: delete while an action uses it",
            "Cannot delete connector while there are active channels defined for this connector",
        ),
        (
            "action: delete while a rule uses it",
            "Cannot delete action while active rules are depending on it",
        ),
        ("bulk: empty", 'error, {case_clause,{errror,<<"empty_batch">>}}'),
    ],
)
def test_recorded_reasons_in_one_line(title: str, said: str) -> None:
    assert reason(ANSWERS[title]["body"]) == said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "None"),
        ("", ""),
        ("plain\ntext", "plain text"),
        ({}, ""),
        ({"errors": {}}, ""),
        ({"errors": "text"}, "text"),
        ({"errors": {"a": "b", "c": {"path": "c.d", "reason": "no"}}}, "a: b; c.d: no"),
        ({"message": {"reason": "x"}}, "x"),
        ({"message": '{"a": '}, '{"a":'),
        (
            {"message": '{"5: syntax error before: \\"SELEC\\"",[{1}]}'},
            '5: syntax error before: "SELEC"',
        ),
        ({"message": "x" * 500}, "x" * 239 + "…"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_reasons_of_any_shape(answer: Any, said: str) -> None:
    assert reason(answer) == said


Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], EmqxAdmin]:
    """A client whose calls are answered by a function."""
    real = httpx.AsyncClient

    def make(answer: Answer) -> EmqxAdmin:
        transport = httpx.MockTransport(answer)
        monkeypatch.setattr(
            httpx, "AsyncClient", lambda **options: real(**options, transport=transport)
        )
        return EmqxAdmin("http://emqx:18083", ("key", "s3cret"), hide=("tok-1",))

    return make


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (401, {"code": "BAD_API_KEY_OR_SECRET", "message": "Check"}, "broker_unauthorized"),
        (401, {"code": "API_KEY_NOT_ALLOW", "message": "no"}, "broker_forbidden"),
        (403, {"code": "UNAUTHORIZED_ROLE", "message": "no"}, "broker_forbidden"),
        (400, {"code": "BAD_REQUEST", "message": "no"}, "broker_refused"),
        (404, {"code": "NOT_FOUND", "message": "no"}, "broker_not_found"),
        (500, "<html>", "broker_unavailable"),
        (503, {"message": "Bearer tok-1 s3cret"}, "broker_unavailable"),
    ],
)
async def test_statuses(talk: Any, status: int, body: Any, code: str) -> None:
    async with talk(lambda _: httpx.Response(status, json=body)) as admin:
        with pytest.raises(BrokerError) as caught:
            await admin.metrics("rule", "a")
    assert caught.value.code == code
    assert "\n" not in caught.value.message
    assert "tok-1" not in caught.value.message
    assert "s3cret" not in caught.value.message


async def test_a_silent_broker_and_a_url_that_is_none(talk: Any) -> None:
    def silent(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("")

    async with talk(silent) as admin:
        with pytest.raises(BrokerError) as caught:
            await admin.version()
    assert caught.value.code == "broker_timeout"
    with pytest.raises(BrokerError) as caught:
        EmqxAdmin("http://a:port", ("key", "secret"))
    assert caught.value.code == "broker_unreachable"


async def test_names_stay_inside_their_path(talk: Any) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path.decode())
        return httpx.Response(404)

    async with talk(answer) as admin:
        assert await admin.get("rule", "a/../b?c") is None
        assert await admin.delete("action", "http:x") is False
    assert asked == ["/api/v5/rules/a%2F..%2Fb%3Fc", "/api/v5/actions/http:x"]


async def test_rules_are_read_page_by_page(talk: Any) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        page, limit = int(request.url.params["page"]), int(request.url.params["limit"])
        rows = [{"id": str(number)} for number in range(1201)]
        return httpx.Response(200, json={"data": rows[(page - 1) * limit : page * limit]})

    async with talk(answer) as admin:
        assert len(await admin.rules()) == 1201


@pytest.mark.parametrize(
    ("versions", "oldest"),
    [
        (["5.8.9"], "5.8.9"),
        (["6.0.1", "5.10.3"], "5.10.3"),
        (["5.4.0", None], "5.4.0"),
        (["e5.8.1-rc.2"], "e5.8.1-rc.2"),
    ],
)
async def test_the_oldest_node_counts(talk: Any, versions: list[str], oldest: str) -> None:
    nodes = [{"node": "n", **({"version": one} if one else {})} for one in versions]
    async with talk(lambda _: httpx.Response(200, json=nodes)) as admin:
        assert (await admin.version()).text == oldest


async def test_what_is_no_emqx(talk: Any) -> None:
    async with talk(lambda _: httpx.Response(200, text="<html>")) as admin:
        with pytest.raises(BrokerError) as caught:
            await admin.version()
    assert caught.value.code == "broker_strange"
    with pytest.raises(BrokerError):
        Version.parse("latest")


async def test_rules_of_a_namespace_are_left_out_and_its_key_is_refused(talk: Any) -> None:
    """EMQX 6.1 and later lists every namespace's unless it is asked for the global ones."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        if request.url.path.endswith("/rules"):
            return httpx.Response(200, json={"data": []})
        if "connectors" in request.url.path:
            return httpx.Response(200, json={"name": "emqx_gpt", "namespace": "tenant1"})
        return httpx.Response(404, json={"code": "NOT_FOUND", "message": "none"})

    async with talk(answer) as admin:
        with pytest.raises(BrokerError, match="namespace 'tenant1'") as caught:
            await read(admin, "emqx_gpt")
    assert caught.value.code == "broker_namespace"
    assert [url for url in asked if "only_global=true" in url]


async def test_a_403_names_role_and_scopes(talk: Any) -> None:
    said = {"code": "UNAUTHORIZED_ROLE", "message": "no"}
    async with talk(lambda _: httpx.Response(403, json=said)) as admin:
        with pytest.raises(BrokerError) as caught:
            await admin.version()
    assert "role administrator" in caught.value.message
    assert "data_integration and cluster_operations" in caught.value.message


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (204, None, None),
        (400, {"code": "TEST_FAILED", "message": "Connection refused"}, "Connection refused"),
        (400, {"code": "TEST_FAILED", "message": ""}, "no reason given"),
    ],
)
async def test_an_address_is_tried_by_emqx(
    talk: Any, status: int, body: Any, why: str | None
) -> None:
    sent: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append((request.url.path, json.loads(request.content)))
        return httpx.Response(status, json=body) if body else httpx.Response(status)

    async with talk(answer) as admin:
        assert await admin.try_connector("http:emqx_gpt", {"url": "http://a"}) == why
    assert sent == [
        ("/api/v5/connectors_probe", {"type": "http", "name": "emqx_gpt", "url": "http://a"})
    ]
