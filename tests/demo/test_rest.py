"""The stand-in's configuration over REST: what the recordings do not show."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from service.demo.standin.broker import StandIn
from tests.demo.webhook import Webhook, config

ADDED = "name type actions sources rules status status_reason error node_status created_at"


def configured(shown: dict[str, Any]) -> dict[str, Any]:
    """Without what a GET adds: EMQX refuses it in a PUT."""
    return {k: v for k, v in shown.items() if k not in f"{ADDED} last_modified_at".split()}


RULE = {"id": "r", "sql": 'SELECT id FROM "t/+"', "actions": ["http:lab"]}


async def test_a_resource_lives_and_dies(
    broker: StandIn, rest: httpx.AsyncClient, webhook: Webhook
) -> None:
    connector = {
        "type": "http",
        "name": "lab",
        "url": webhook.url,
        "headers": {"authorization": "Bearer tok"},
        "resource_opts": {"health_check_interval": "1s"},
    }
    assert (await rest.post("/connectors_probe", json=connector)).status_code == 204
    answer = await rest.post("/connectors", json=connector)
    assert (answer.status_code, answer.json()["status"]) == (201, "connected")
    assert answer.json()["headers"] == {"authorization": "******"}
    again = await rest.post("/connectors", json=connector)
    assert (again.status_code, again.json()["code"]) == (400, "ALREADY_EXISTS")

    action = {"type": "http", "name": "lab", "connector": "lab", "parameters": {"path": "/w"}}
    answer = await rest.post("/actions", json=action)
    assert (answer.status_code, answer.json()["status"]) == (201, "connected")
    orphan = await rest.post("/actions", json={**action, "name": "o", "connector": "none"})
    assert orphan.status_code == 400

    answer = await rest.post("/rules", json=RULE)
    assert (answer.status_code, answer.json()["from"]) == (201, ["t/+"])
    assert (await rest.post("/rules", json=RULE)).status_code == 400
    assert (await rest.get("/actions/http:lab")).json()["rules"] == ["r"]

    # read back, changed, sent again: the masked token is still the token
    shown = configured((await rest.get("/connectors/http:lab")).json())
    answer = await rest.put("/connectors/http:lab", json={**shown, "pool_size": 3})
    assert (answer.status_code, answer.json()["pool_size"]) == (200, 3)
    shown = configured((await rest.get("/actions/http:lab")).json())
    shown["parameters"]["path"] = "/changed"
    answer = await rest.put("/actions/http:lab", json=shown)
    assert answer.status_code == 200
    answer = await rest.put("/rules/r", json={**RULE, "description": "new"})
    assert (answer.status_code, answer.json()["description"]) == (200, "new")
    await rest.post("/publish", json={"topic": "t/x", "payload": "x"})
    (request,) = await webhook.wait(1)
    assert (request.line, request.headers["authorization"]) == (
        "POST /changed HTTP/1.1",
        "Bearer tok",
    )

    assert [c["name"] for c in (await rest.get("/connectors")).json()] == ["lab"]
    assert [a["name"] for a in (await rest.get("/actions")).json()] == ["lab"]
    assert (await rest.delete("/connectors/http:lab")).status_code == 400
    assert (await rest.delete("/actions/http:lab")).status_code == 400
    for path in ("/rules/r", "/actions/http:lab", "/connectors/http:lab"):
        assert (await rest.delete(path)).status_code == 204
        assert (await rest.delete(path)).status_code == 404
    assert (await rest.get("/rules")).json()["data"] == []


async def test_deleting_an_action_can_take_it_out_of_its_rules(
    broker: StandIn, rest: httpx.AsyncClient
) -> None:
    await broker.load(config("http://127.0.0.1:9"))
    answer = await rest.delete("/actions/http:lab?also_delete_dep_actions=true")
    assert answer.status_code == 204
    assert (await rest.get("/rules/lab")).json()["actions"] == []


async def test_switching_off_and_on(
    broker: StandIn, rest: httpx.AsyncClient, webhook: Webhook
) -> None:
    await broker.load(config(webhook.url))
    for path in ("/connectors/http:lab", "/actions/http:lab"):
        assert (await rest.put(f"{path}/enable/false")).status_code == 204
        shown = (await rest.get(path)).json()
        assert (shown["enable"], shown["status"]) == (False, "disconnected")
        assert (await rest.put(f"{path}/enable/maybe")).status_code == 404
        assert (await rest.put(f"{path}/enable/true")).status_code == 204
        assert (await rest.get(path)).json()["status"] == "connected"
    assert (await rest.put("/rules/lab", json={**RULE, "enable": False})).status_code == 200
    await rest.post("/publish", json={"topic": "t/x", "payload": "x"})
    assert broker.resources.rule("lab").metrics()["matched"] == 0


async def test_metrics_are_reset(
    broker: StandIn, rest: httpx.AsyncClient, webhook: Webhook
) -> None:
    await broker.load(config(webhook.url))
    await rest.post("/publish", json={"topic": "lab/request/u", "payload": "x"})
    await webhook.wait(1)
    for path, name in (("/rules/lab", "matched"), ("/actions/http:lab", "matched")):
        assert (await rest.get(f"{path}/metrics")).json()["metrics"][name] == 1
        assert (await rest.put(f"{path}/metrics/reset")).status_code == 204
        assert (await rest.get(f"{path}/metrics")).json()["metrics"][name] == 0


async def test_rules_come_in_pages(rest: httpx.AsyncClient) -> None:
    for number in range(5):
        rule = {"id": f"r{number}", "sql": f'SELECT * FROM "t/{number}"'}
        assert (await rest.post("/rules", json=rule)).status_code == 201
    first = (await rest.get("/rules?limit=2&page=1")).json()
    last = (await rest.get("/rules?limit=2&page=3")).json()
    assert [rule["id"] for rule in first["data"]] == ["r4", "r3"]
    assert first["meta"] == {"count": 5, "hasnext": True, "limit": 2, "page": 1}
    assert [rule["id"] for rule in last["data"]] == ["r0"]
    assert last["meta"]["hasnext"] is False
    assert (await rest.get("/rules?page=0")).status_code == 400
    found = (await rest.get("/rules?from=t/3")).json()["data"]
    assert [rule["id"] for rule in found] == ["r3"]


@pytest.mark.parametrize(
    "header",
    [None, "Bearer x", "Basic !", "Basic " + base64.b64encode(b"key").decode(), "Basic"],
)
async def test_nobody_gets_in_without_a_key(broker: StandIn, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    async with httpx.AsyncClient(base_url=broker.rest_url + "/api/v5", headers=headers) as http:
        for path in ("/nodes", "/rules", "/connectors/http:x", "/configs"):
            assert (await http.get(path)).status_code == 401
        assert (await http.get("/status")).status_code == 200


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ({"topic": "a", "payload": "x", "retain": "yes"}, "root.retain"),
        ({"topic": True, "payload": "x"}, "root.topic"),
        ({"topic": "a", "payload": "x", "payload_encoding": "hex"}, "root.payload_encoding"),
        ({"topic": "a", "payload": "x", "properties": 1}, "root.properties"),
        ({"topic": "a", "payload": "x", "properties": {"a": 1}}, "root.properties"),
        ({"topic": "a", "payload": "x", "a": 1}, "root"),
        ({"topic": "a", "payload": "x", "properties": {"content_type": "\x7f"}}, "content_type"),
        ({"topic": "a", "payload": "x", "qos": True}, "root.qos"),
        ([], "root"),
    ],
)
async def test_bad_messages(rest: httpx.AsyncClient, message: Any, path: str) -> None:
    answer = await rest.post("/publish", json=message)
    assert answer.status_code == 400
    assert f'{path}"' in answer.json()["message"]


@pytest.mark.parametrize("payload", ["no base64", "AP8", "ÄÖ"])
async def test_a_payload_that_is_not_base64(rest: httpx.AsyncClient, payload: str) -> None:
    message = {"topic": "a", "payload": payload, "payload_encoding": "base64"}
    assert (await rest.post("/publish", json=message)).status_code == 400


async def test_a_bad_message_in_a_bulk_stops_all_of_it(
    broker: StandIn, rest: httpx.AsyncClient
) -> None:
    batch = [{"topic": "a", "payload": "x"}, {"topic": "a/+", "payload": "x"}]
    assert (await rest.post("/publish/bulk", json=batch)).status_code == 400
    batch[1] = {"topic": "b"}
    assert (await rest.post("/publish/bulk", json=batch)).status_code == 400
    assert not broker.mqtt.published


async def test_what_there_is_not(rest: httpx.AsyncClient) -> None:
    answer = await rest.get("/license")
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (404, "text/html")
    assert (await rest.post("/status")).status_code == 405


async def test_probing_a_server_that_is_not_there(rest: httpx.AsyncClient) -> None:
    connector = {"type": "http", "name": "x", "url": "http://127.0.0.1:9"}
    answer = await rest.post("/connectors_probe", json=connector)
    assert (answer.status_code, answer.json()["code"]) == (400, "TEST_FAILED")


async def test_rule_test_names_faults(rest: httpx.AsyncClient) -> None:
    for sql, part in (
        ("SELEC", "syntax error before"),
        ('SELECT base64_encode(x) FROM "t"', "bad_sql"),
    ):
        body = {"sql": sql, "context": {"event_type": "message_publish", "topic": "t"}}
        answer = await rest.post("/rule_test", json=body)
        assert answer.status_code == 400
        assert part in answer.json()["message"]
    elsewhere = {
        "sql": 'SELECT id FROM "t"',
        "context": {"event_type": "message_publish", "topic": "other"},
    }
    assert (await rest.post("/rule_test", json=elsewhere)).status_code == 412
