"""What a real EMQX 5.8.9 sent and answered, asked of the stand-in."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from service.demo.standin.broker import StandIn
from service.demo.standin.published import Message
from tests.demo.recorded import (
    B64_SQL,
    LAB_RULES,
    LAB_SQL,
    MORE_RULES,
    REPLY_SQL,
    RESOURCES,
    REST,
    SENT,
    WEBHOOKS,
)
from tests.demo.webhook import Webhook


@pytest.mark.parametrize("number", range(len(WEBHOOKS)), ids=lambda n: WEBHOOKS[n]["title"][:50])
async def test_the_webhook_gets_what_emqx_sent(number: int) -> None:
    recorded = WEBHOOKS[number]
    body = json.loads(recorded["body"])
    sql, payload, properties, retain = SENT[number]
    username = body.get("username")
    message = Message(
        id=body["id"],
        received_at=body.get("publish_received_at", 1),
        topic=body["topic"],
        payload=payload,
        qos=body.get("qos", 1),
        retain=retain,
        clientid=body.get("clientid", "dev"),
        username=None if username == "undefined" else username,
        peername=("127.0.0.1", 50000),
        properties=properties,
    )
    async with Webhook() as webhook, StandIn() as broker:
        await broker.load(RESOURCES.format(url=webhook.url) + LAB_RULES.format(lab=sql))
        broker.publish(message)
        (request,) = await webhook.wait(1)

    assert request.json == body
    assert request.line == recorded["request_line"]
    expected = {**recorded["headers"], "host": f"127.0.0.1:{webhook.port}"}
    assert request.headers == expected


# ---- REST


@pytest.fixture
async def lab() -> AsyncIterator[tuple[StandIn, httpx.AsyncClient]]:
    """The broker in the state in which it was recorded, with a subscriber on lab/#."""
    async with Webhook() as webhook, StandIn() as broker:
        await broker.load(RESOURCES.format(url=webhook.url) + LAB_RULES.format(lab=LAB_SQL))
        more = MORE_RULES.format(b64=B64_SQL, reply=REPLY_SQL)
        await broker.load(more.replace(B64_SQL, B64_SQL + " "))
        await broker.load(LAB_RULES.format(lab=LAB_SQL + " "))
        subscriber = await asyncio.create_subprocess_exec(
            *("mosquitto_sub", "-V", "mqttv311", "-i", "sub", "-c", "-q", "1"),
            *("-p", str(broker.mqtt_port), "-t", "lab/#", "-E"),
        )
        assert await asyncio.wait_for(subscriber.wait(), 20) == 0
        async with httpx.AsyncClient(base_url=broker.rest_url, auth=("key", "secret")) as client:
            yield broker, client


async def replay(client: httpx.AsyncClient, title: str) -> tuple[Any, httpx.Response]:
    """The recorded answer and ours."""
    recorded = REST[title]
    request, body = recorded["request"], recorded["request"].get("body")
    sent: dict[str, Any] = {"headers": request.get("headers", {})}
    if isinstance(body, str):
        sent["content"] = body.encode()
    elif body is not None:
        sent["json"] = body
    answer = await client.request(request["method"], request["path"], **sent)
    return recorded["response"], answer


def same_headers(recorded: Any, answer: httpx.Response) -> None:
    for name, value in recorded["headers"].items():
        assert answer.headers[name].partition(";")[0] == value


AS_RECORDED = [
    "publish: nobody subscribed",
    "publish: wildcard topic",
    "publish: empty topic",
    "publish: qos out of range",
    "publish: no payload",
    "publish: payload is an object",
    "publish: body is not JSON",
    "bulk: one bad topic fails all",
    "config: unknown root",
    "config: syntax error",
    "config: rule with bad SQL",
    "rule: missing",
    "connector: missing",
    "action metrics",
    "action: delete while a rule uses it",
    "rule_test: WHERE is false",
    "retained: none",
    "status",
]


@pytest.mark.parametrize("title", AS_RECORDED)
async def test_rest_answers_exactly(lab: tuple[StandIn, httpx.AsyncClient], title: str) -> None:
    _, client = lab
    recorded, answer = await replay(client, title)
    assert answer.status_code == recorded["status"]
    same_headers(recorded, answer)
    if isinstance(recorded["body"], str):
        assert answer.text == recorded["body"]
        return
    found = answer.json()
    for each in (found, recorded["body"]):  # JSON inside of a message: key order means nothing
        if str(each.get("message", "")).startswith("{"):
            each["message"] = json.loads(each["message"])
    assert found == recorded["body"]


WITHOUT_TRACE = ["bulk: empty", "config: connector without url"]


@pytest.mark.parametrize("title", WITHOUT_TRACE)
async def test_rest_server_errors(lab: tuple[StandIn, httpx.AsyncClient], title: str) -> None:
    recorded, answer = await replay(lab[1], title)
    assert answer.status_code == recorded["status"] == 500
    assert answer.json()["code"] == "INTERNAL_ERROR"
    trace = recorded["body"]["message"].index("[{")
    assert answer.json()["message"][:trace] == recorded["body"]["message"][:trace]


MILLISECONDS = re.compile(r"\b\d{13}\b")


VARYING = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00|\b[0-9A-F]{32}\b|(?<=127\.0\.0\.1):\d+")


def alike(body: Any) -> Any:
    """Stamps, ids and ports are no difference."""
    return json.loads(VARYING.sub("*", MILLISECONDS.sub("0", json.dumps(body))))


ALIKE = [
    "bulk: one has no subscriber, one has (the subscriber was on lab/#)",
    "config: action on a missing connector",
    "rules: list",
    "rule: get",
    "connector: get (authorization is masked)",
    "action: get",
    "rule_test",
]


@pytest.mark.parametrize("title", ALIKE)
async def test_rest_answers_alike(lab: tuple[StandIn, httpx.AsyncClient], title: str) -> None:
    recorded, answer = await replay(lab[1], title)
    assert answer.status_code == recorded["status"]
    same_headers(recorded, answer)
    assert alike(answer.json()) == alike(recorded["body"])


async def test_a_connector_in_use_stays(lab: tuple[StandIn, httpx.AsyncClient]) -> None:
    recorded, answer = await replay(lab[1], "connector: delete while an action uses it")
    assert answer.status_code == recorded["status"]
    assert answer.json()["code"] == recorded["body"]["code"]
    said = recorded["body"]["message"].partition(",#{")[0]
    assert answer.json()["message"].startswith(said)


async def test_a_bad_key(lab: tuple[StandIn, httpx.AsyncClient]) -> None:
    broker, _ = lab
    async with httpx.AsyncClient(base_url=broker.rest_url, auth=("key", "wrong")) as client:
        recorded, answer = await replay(client, "publish: bad API key")
    assert (answer.status_code, answer.json()) == (recorded["status"], recorded["body"])


async def test_a_message_over_1_mb(lab: tuple[StandIn, httpx.AsyncClient]) -> None:
    recorded = REST["publish: larger than mqtt.max_packet_size (1 MB)"]["response"]
    body = {"topic": "a", "payload": "x" * 1_100_000}
    answer = await lab[1].post("/api/v5/publish", json=body)
    assert (answer.status_code, answer.json()) == (recorded["status"], recorded["body"])


async def test_a_retained_message(lab: tuple[StandIn, httpx.AsyncClient]) -> None:
    broker, client = lab
    body = REST["retained: get"]["response"]["body"]
    broker.publish(
        Message(
            id=body["msgid"],
            received_at=1795166904458,
            topic=body["topic"],
            payload=b'a"quote\\ \n newline \x01 ctrl',
            qos=2,
            retain=True,
            clientid="dev5",
            username="alice",
        )
    )
    recorded, answer = await replay(client, "retained: get")
    assert (answer.status_code, answer.json()) == (recorded["status"], recorded["body"])


async def test_nodes_and_rule_metrics_have_the_recorded_keys(
    lab: tuple[StandIn, httpx.AsyncClient],
) -> None:
    recorded, answer = await replay(lab[1], "nodes")
    assert answer.status_code == recorded["status"]
    assert answer.json()[0].keys() == recorded["body"][0].keys()
    assert answer.json()[0]["version"] == recorded["body"][0]["version"]
    recorded, answer = await replay(lab[1], "rule metrics")
    assert answer.json()["metrics"].keys() == recorded["body"]["metrics"].keys()
    nodes = answer.json()["node_metrics"], recorded["body"]["node_metrics"]
    assert nodes[0][0].keys() == nodes[1][0].keys()


def test_every_recording_is_asked() -> None:
    asked = {
        *AS_RECORDED,
        *ALIKE,
        *WITHOUT_TRACE,
        "connector: delete while an action uses it",
        "publish: bad API key",
        "publish: larger than mqtt.max_packet_size (1 MB)",
        "retained: get",
        "nodes",
        "rule metrics",
    }
    assert asked == REST.keys()
    assert len(SENT) == len(WEBHOOKS)
