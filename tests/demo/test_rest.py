"""The stand-in's configuration over REST: what the recordings do not show."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from service.demo.broker import StandIn
from service.demo.resources import Refused
from tests.demo.webhook import Webhook, config

RULE = {"id": "r", "sql": 'SELECT id FROM "t/+"', "actions": ["http:lab"]}


@pytest.fixture
async def webhook() -> AsyncIterator[Webhook]:
    async with Webhook() as found:
        yield found


@pytest.fixture
async def broker() -> AsyncIterator[StandIn]:
    async with StandIn() as found:
        yield found


@pytest.fixture
async def rest(broker: StandIn) -> AsyncIterator[httpx.AsyncClient]:
    url = broker.rest_url + "/api/v5"
    async with httpx.AsyncClient(base_url=url, auth=("key", "secret")) as found:
        yield found


async def put_config(rest: httpx.AsyncClient, text: str, mode: str = "merge") -> httpx.Response:
    headers = {"content-type": "text/plain"}
    return await rest.put(f"/configs?mode={mode}", content=text, headers=headers)


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
    shown = (await rest.get("/connectors/http:lab")).json()
    answer = await rest.put("/connectors/http:lab", json={**shown, "pool_size": 3})
    assert (answer.status_code, answer.json()["pool_size"]) == (200, 3)
    shown = (await rest.get("/actions/http:lab")).json()
    shown["parameters"]["path"] = "/changed"
    answer = await rest.put("/actions/http:lab", json=shown)
    assert answer.status_code == 200
    assert answer.json()["created_at"] == shown["created_at"]
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


PLACEHOLDERS = """
connectors.http.lab {
  url = ${PUBLIC_URL}
  headers { authorization = "Bearer "${WEBHOOK_TOKEN} }
}
"""


async def test_unfilled_placeholders_are_refused(
    rest: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBHOOK_TOKEN", "from the environment")  # EMQX has none here
    text = PLACEHOLDERS.replace("${PUBLIC_URL}", '"http://127.0.0.1:9"')
    answer = await put_config(rest, text)
    assert answer.status_code == 400
    for part in ("failed_to_resolve", "WEBHOOK_TOKEN", "at_line", "4"):
        assert part in answer.json()["errors"]


async def test_filled_placeholders_become_a_token(
    broker: StandIn, rest: httpx.AsyncClient, webhook: Webhook
) -> None:
    filled = PLACEHOLDERS.replace("${PUBLIC_URL}", f'"{webhook.url}"')
    filled = filled.replace("${WEBHOOK_TOKEN}", r'"tok\"1\\"')
    answer = await put_config(rest, filled)
    assert (answer.status_code, answer.content) == (200, b"")
    conf = broker.resources.connector("lab").conf
    assert conf["headers"] == {"authorization": 'Bearer tok"1\\'}


async def test_an_optional_substitution_is_nothing(
    broker: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X", "from the environment")
    await broker.load(
        'connectors.http.lab { url = "http://127.0.0.1:9", headers { authorization = "a"${?X} } }'
    )
    assert broker.resources.connector("lab").conf["headers"] == {"authorization": "a"}


async def test_an_include_is_refused(rest: httpx.AsyncClient) -> None:
    for text in ('include "/etc/passwd"', 'a { include file("/etc/passwd") }'):
        assert (await put_config(rest, text)).status_code == 400


async def test_merging_keeps_what_is_not_named(
    broker: StandIn, rest: httpx.AsyncClient, webhook: Webhook
) -> None:
    await broker.load(config(webhook.url))
    before = (await rest.get("/actions/http:lab")).json()
    action = broker.resources.action("lab")
    assert (await put_config(rest, config(webhook.url))).status_code == 200
    assert broker.resources.action("lab") is action  # nothing changed, nothing restarts
    text = "actions.http.lab.resource_opts { request_ttl = 20m, inflight_window = 7 }"
    assert (await put_config(rest, text)).status_code == 200
    after = (await rest.get("/actions/http:lab")).json()
    changed = {"request_ttl": "20m", "inflight_window": 7}
    assert after["resource_opts"] == {**before["resource_opts"], **changed}
    assert after["parameters"] == before["parameters"]
    assert after["created_at"] == before["created_at"]
    assert (await rest.get("/rules/lab")).status_code == 200  # merging never deletes


async def test_replacing_drops_what_is_not_named(
    broker: StandIn, rest: httpx.AsyncClient, webhook: Webhook
) -> None:
    await broker.load(config(webhook.url))
    text = config(webhook.url).replace("lab", "other")
    assert (await put_config(rest, text, mode="replace")).status_code == 200
    assert [c["name"] for c in (await rest.get("/connectors")).json()] == ["other"]
    assert [r["id"] for r in (await rest.get("/rules")).json()["data"]] == ["other"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('connectors.http.x { url = "ftp://h" }', "connectors.http.x.url"),
        ('connectors.http.x { url = "http://h", pool = 1 }', "unknown_fields"),
        ('connectors.http.x { url = "http://h", pool_size = 0 }', ">= 1"),
        ('connectors.http.x { url = "http://h", resource_opts.start_timeout = "5" }', "duration"),
        ('connectors.http.x { url = "http://h", headers { a = "b\\nc" } }', "line break"),
        ('connectors.mqtt.x { server = "h" }', "http only"),
        ("connectors = 1", "expected an object"),
        ('rule_engine.rules.x { sql = "SELECT sha(a) FROM \\"t\\"" }', "unknown function"),
        ('rule_engine.rules.x { sql = "SELECT a FROM \\"t\\"", actions = [{}] }', "republish"),
        ('rule_engine.rules.x { sql = "SELECT a FROM \\"t\\"", actions = 1 }', "an array"),
        ("a = 1\na.b = 2", "parse_error"),
    ],
)
async def test_what_the_schema_refuses(
    broker: StandIn, rest: httpx.AsyncClient, text: str, part: str
) -> None:
    answer = await put_config(rest, text)
    assert answer.status_code == 400
    assert part in answer.text
    assert not broker.resources.connectors
    assert not broker.resources.engine.rules


async def test_nothing_changes_when_a_part_is_refused(broker: StandIn, webhook: Webhook) -> None:
    with pytest.raises(Refused):
        await broker.load(config(webhook.url) + '\nactions.http.orphan { connector = "none" }')
    assert not broker.resources.connectors


async def test_other_roots_are_left_alone(rest: httpx.AsyncClient) -> None:
    text = 'mqtt { max_packet_size = "1MB" }\nlisteners.tcp.default { bind = "127.0.0.1:1883" }'
    assert (await put_config(rest, text)).status_code == 200


async def test_the_configuration_can_be_read_back(
    broker: StandIn, rest: httpx.AsyncClient, webhook: Webhook
) -> None:
    await broker.load(config(webhook.url))
    text = (await rest.get("/configs")).text
    assert "s3cret-token" not in text
    async with StandIn() as other:
        for stamp in ("created_at", "last_modified_at"):
            text = "\n".join(line for line in text.split("\n") if stamp not in line)
        await other.load(text)
        ours, theirs = broker.resources, other.resources
        assert other.resources.rule("lab").rule == broker.resources.rule("lab").rule
        for name in ("parameters", "resource_opts"):
            assert ours.action("lab").conf[name] == theirs.action("lab").conf[name]
    only = await rest.get("/configs?key=rule_engine", headers={"accept": "application/json"})
    assert only.json().keys() == {"rule_engine"}
    assert (await rest.get("/configs?key=nonsense")).status_code == 404


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
        ({"topic": 1, "payload": "x"}, "root.topic"),
        ({"topic": "a", "payload": "x", "payload_encoding": "hex"}, "root.payload_encoding"),
        ({"topic": "a", "payload": "x", "properties": 1}, "root.properties"),
        ({"topic": "a", "payload": "x", "properties": {"a": 1}}, "root.properties.a"),
        ({"topic": "a", "payload": "x", "qos": True}, "root.qos"),
        ([], "root"),
    ],
)
async def test_bad_messages(rest: httpx.AsyncClient, message: Any, path: str) -> None:
    answer = await rest.post("/publish", json=message)
    assert answer.status_code == 400
    assert f'"{path}"' in answer.json()["message"]


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


async def test_probing_a_server_that_is_not_there(rest: httpx.AsyncClient) -> None:
    connector = {"type": "http", "name": "x", "url": "http://127.0.0.1:9"}
    answer = await rest.post("/connectors_probe", json=connector)
    assert (answer.status_code, answer.json()["code"]) == (400, "TEST_FAILED")


async def test_rule_test_names_faults(rest: httpx.AsyncClient) -> None:
    for sql, part in (("SELEC", "parse_error"), ('SELECT base64_encode(x) FROM "t"', "bad_sql")):
        body = {"sql": sql, "context": {"event_type": "message_publish", "topic": "t"}}
        answer = await rest.post("/rule_test", json=body)
        assert answer.status_code == 400
        assert part in answer.json()["message"]
    elsewhere = {"sql": 'SELECT id FROM "t"', "context": {"topic": "other"}}
    assert (await rest.post("/rule_test", json=elsewhere)).status_code == 412


async def test_changes_come_one_at_a_time(
    broker: StandIn, rest: httpx.AsyncClient, webhook: Webhook
) -> None:
    texts = [config(webhook.url, window=number) for number in range(1, 9)]
    answers = await asyncio.gather(*(put_config(rest, text) for text in texts))
    assert {answer.status_code for answer in answers} == {200}
    await rest.post("/publish", json={"topic": "lab/request/u", "payload": "x"})
    await webhook.wait(1)
