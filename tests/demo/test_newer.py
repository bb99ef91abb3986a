"""The stand-in as EMQX 6.2.2: what differs there for this project."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from service.demo.standin.access import ApiKey
from service.demo.standin.broker import StandIn
from tests.demo.mqtt_client import client
from tests.demo.webhook import Webhook, config, until

KEYS: dict[str, str | ApiKey] = {
    "key": "secret",
    "tenant": ApiKey("secret", namespace="tenant1"),
    "viewer": ApiKey("secret", role="viewer"),
    "publisher": ApiKey("secret", role="publisher"),
    "kdi": ApiKey("secret", scopes=frozenset({"data_integration"})),
    "kdico": ApiKey("secret", scopes=frozenset({"data_integration", "cluster_operations"})),
    "kdicoconn": ApiKey(
        "secret", scopes=frozenset({"data_integration", "cluster_operations", "connections"})
    ),
}


@pytest.fixture
async def newer() -> AsyncIterator[StandIn]:
    async with StandIn(api_keys=KEYS, version="6.2.2") as found:
        yield found


async def ask(broker: StandIn, key: str, path: str, method: str = "GET", **more: Any) -> Any:
    url = f"{broker.rest_url}/api/v5{path}"
    async with httpx.AsyncClient(auth=(key, "secret")) as http:
        return await http.request(method, url, **more)


# as recorded: nodes, rules, connectors, actions, a retained message, configs
RECORDED = {
    "kdi": (403, 200, 200, 200, 403, 403),
    "kdico": (200, 200, 200, 200, 403, 403),
    "kdicoconn": (200, 200, 200, 200, 404, 403),
    "viewer": (200, 200, 200, 200, 404, 200),
    "publisher": (403, 403, 403, 403, 403, 403),
}
PATHS = ("/nodes", "/rules", "/connectors", "/actions", "/mqtt/retainer/message/x", "/configs")


@pytest.mark.parametrize("key", RECORDED)
async def test_roles_and_scopes(newer: StandIn, key: str) -> None:
    answers = [await ask(newer, key, path) for path in PATHS]
    assert tuple(answer.status_code for answer in answers) == RECORDED[key]
    for answer in answers:
        if answer.status_code == 403:
            assert answer.json()["code"] == "UNAUTHORIZED_ROLE"
    message = {"topic": "a", "payload": "x"}
    published = await ask(newer, key, "/publish", "POST", json=message)
    assert published.status_code == (202 if key == "publisher" else 403)
    assert (await ask(newer, key, "/publish")).status_code == 405


async def test_its_version(newer: StandIn, broker: StandIn) -> None:
    assert (await ask(newer, "key", "/nodes")).json()[0]["version"] == "6.2.2"
    assert (await ask(broker, "key", "/nodes")).json()[0]["version"] == "5.8.9"


async def test_lists_span_namespaces(newer: StandIn, webhook: Webhook) -> None:
    await newer.load(config(webhook.url))
    text = config(webhook.url).replace("lab", "theirs")
    loaded = await ask(newer, "tenant", "/configs?mode=merge", "PUT", content=text)
    assert loaded.status_code == 200
    for path, field in (("/connectors", "name"), ("/actions", "name"), ("/rules", "id")):

        async def names(key: str, query: str = "", path: str = path, field: str = field) -> Any:
            found = (await ask(newer, key, path + query)).json()
            found = found["data"] if path == "/rules" else found
            return [(one[field], one["namespace"]) for one in found]

        assert await names("key") == [("lab", None), ("theirs", "tenant1")]
        assert await names("key", "?only_global=true") == [("lab", None)]
        assert await names("tenant") == [("theirs", "tenant1")]
        assert await names("tenant", "?only_global=true") == [("theirs", "tenant1")]
    assert (await ask(newer, "key", "/rules/theirs/metrics")).status_code == 404
    # a client of the namespace meets both rules, any other the global one
    async with client(newer.mqtt_port, "a", username="tenant1") as device:
        await device.publish("lab/request/u", "x")
        await device.publish("theirs/request/u", "x")
    async with client(newer.mqtt_port, "b") as device:
        await device.publish("theirs/request/u", "nobody's")
    received = await webhook.wait(2)
    assert sorted(str(one.json["topic"]) for one in received) == [
        "lab/request/u",
        "theirs/request/u",
    ]


async def test_only_global_is_taken_by_5_8_9_too(rest: httpx.AsyncClient) -> None:
    assert (await rest.get("/rules?only_global=true")).status_code == 200


FALLBACK = """
actions.http.lab.fallback_actions = [
  { kind = reference, type = http, name = again },
  { kind = republish, args = { topic = "lost/${topic}", payload = "${payload}", qos = 1 } }
]
actions.http.again {
  connector = again, parameters { path = "/again" }
  resource_opts { request_ttl = 10m, health_check_interval = 50ms }
}
connectors.http.again { url = "URL", resource_opts { health_check_interval = 50ms } }
"""


@pytest.mark.parametrize("status", [401, 503])
async def test_what_an_action_gave_up_goes_to_its_fallbacks(
    newer: StandIn, webhook: Webhook, status: int
) -> None:
    """At once for a refusal, at request_ttl for what is tried again."""

    async def refuse(request: Any) -> int:
        return 202 if "/again" in request.line else status

    webhook.answer = refuse
    fallback = FALLBACK.replace("URL", webhook.url)
    await newer.load(config(webhook.url, ttl="300ms") + fallback)
    async with client(newer.mqtt_port, "dev") as device:
        await device.subscribe("lost/#")
        await device.publish("lab/request/u", "x")
        found = await device.next()
    assert (found.topic, found.payload) == ("lost/lab/request/u", b"x")
    await until(lambda: newer.resources.action("again").metrics()["success"] == 1)
    again = [one for one in webhook.received if "/again" in one.line]
    assert [one.json["payload"] for one in again] == ["x"]
    shown = (await ask(newer, "key", "/actions/http:lab")).json()
    assert [one["kind"] for one in shown["fallback_actions"]] == ["reference", "republish"]


async def test_5_8_9_knows_no_fallbacks(rest: httpx.AsyncClient, webhook: Webhook) -> None:
    text = config(webhook.url) + FALLBACK.replace("URL", webhook.url)
    answer = await rest.put("/configs?mode=merge", content=text)
    assert answer.status_code == 400
    assert "fallback_actions" in answer.text


async def test_random_dispatch_reorders(newer: StandIn, webhook: Webhook) -> None:
    slow = asyncio.Event()

    async def answer(request: Any) -> int:
        if request.json["payload"] == "0":
            await slow.wait()
        return 202

    webhook.answer = answer
    text = "actions.http.lab.resource_opts.dispatch_strategy = random"
    await newer.load(f"{config(webhook.url)}\n{text}")
    async with client(newer.mqtt_port, "dev") as device:
        for number in range(40):
            await device.publish("lab/request/u", str(number))
    metrics = newer.resources.action("lab").metrics
    await until(lambda: metrics()["success"] >= 20)  # by one buffer nothing would have passed
    slow.set()
    await until(lambda: metrics()["success"] == 40)


async def test_what_it_shows_of_its_resources(newer: StandIn, webhook: Webhook) -> None:
    await newer.load(config(webhook.url))
    connector = (await ask(newer, "key", "/connectors/http:lab")).json()
    action = (await ask(newer, "key", "/actions/http:lab")).json()
    rule = (await ask(newer, "key", "/rules/lab")).json()
    assert connector["max_inactive"] == "10s"
    assert connector["resource_opts"]["health_check_timeout"] == "60s"
    assert connector["ssl"]["reuse_sessions"] is False
    assert action["fallback_actions"] == []
    assert action["resource_opts"]["dispatch_strategy"] == "per_clientid"
    assert {connector["namespace"], action["namespace"], rule["namespace"]} == {None}
    assert rule["action_details"] == [{"name": "lab", "type": "http", "status": "connected"}]


async def test_a_rules_metadata_names_the_namespace(newer: StandIn, webhook: Webhook) -> None:
    await newer.load(config(webhook.url))
    await newer.load('rule_engine.rules.lab.sql = """SELECT * FROM "lab/request/+" """')
    await ask(newer, "key", "/publish", "POST", json={"topic": "lab/request/u", "payload": "x"})
    (request,) = await webhook.wait(1)
    assert request.json["metadata"] == {"rule_id": "lab", "namespace": "global"}
    assert request.json["flags"] == {"retain": False}
