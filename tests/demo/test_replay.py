"""Everything that was recorded of a real EMQX 5.8.9, asked of the stand-in again.

`recordings/rest-api.json` has its own tests, since it needs the state it was recorded in; here
are the recordings of `recordings/more/`, each file in order on one broker.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import httpx
import pytest

from service.demo.standin.broker import StandIn
from service.demo.standin.published import Message
from tests.demo.recorded import CHAT_SQL, RECORDINGS, RESOURCES
from tests.demo.webhook import Webhook

MORE = RECORDINGS / "more"
POSTS = "webhook-posts-by-real-emqx"
FILES = sorted(path.stem for path in MORE.glob("*.json") if path.stem != POSTS)
STATE = "it shows what else that broker had configured"
LOAD = "it shows the load of that broker"
SQL = "outside the subset of EMQX's SQL that the stand-in knows"
# by title: every exchange that may differ, and why; one that does not differ is a failure too
DIFFERENT: dict[str, dict[str, str]] = {
    "configs": {"merge: bad url": STATE, "merge: action without a connector": STATE},
    "metrics-gauges-lag": {
        "action metrics: all delivered (matched = success) and still gauges, reading 1": LOAD,
        "action metrics: all delivered (matched = success) and still gauges, reading 3": LOAD,
    },
    "resources": {
        "create connector: no type": "EMQX lists every kind of connector that it has",
        "rules page": STATE,
        "rules limit too large": STATE,
    },
}
DIFFERENT["rule-test-select"] = {"SELECT jq('.t', payload) as x": SQL}
DIFFERENT["rule-test-sql"] = dict.fromkeys(
    [
        "SQL 'FOREACH payload.l FROM \"t/#\"'",
        "SQL 'FOREACH payload.l as x DO x as y INCASE x > 1 FROM \"t/#\"'",
    ],
    SQL,
)
DIFFERENT["rule-test-where"] = dict.fromkeys(
    [
        "WHERE sprintf('~p', 1) = '1'",
        "WHERE format_date('second', '+00:00', '%Y', 0) = '1970'",
        "WHERE term_encode(1) = 'x'",
        "WHERE proc_dict_get('x') = 'x'",
        "WHERE kv_store_get('x') = 'x'",
        "WHERE subbits('abc', 8) = 97",
    ],
    SQL,
)

_VARYING = re.compile(
    r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00|\b[0-9A-F]{32}\b|sql_tester:[0-9a-f]+|\b\d{13}\b"
    r"|(?<=127\.0\.0\.1):\d+"
)
_TRACE = re.compile(r", \[(\{(emqx|hocon)_.*)?\]$", re.DOTALL)
_SHORTENED = re.compile(r"(\d+) bytes, beginning (.*)$", re.DOTALL)


def alike(value: Any) -> Any:
    """Stamps, ids, ports and Erlang's stack traces are no difference; nor is the order of keys."""
    if isinstance(value, dict):
        return {key: alike(item) for key, item in value.items()}
    if isinstance(value, list):
        return [alike(item) for item in value]
    if isinstance(value, str):
        if value.startswith('{"'):
            try:
                return alike(json.loads(value))
            except ValueError:
                pass
        return _VARYING.sub("*", _TRACE.sub(", [trace]", value))
    return 0 if isinstance(value, int) and len(str(value)) == 13 else value


def sent(request: dict[str, Any]) -> dict[str, Any]:
    """What httpx wants for a recorded request; long bodies were shortened and are made again."""
    body = request.get("body")
    headers = dict(request.get("headers") or {})
    if isinstance(body, dict) and list(body) == ["base64"]:
        return {"content": base64.b64decode(body["base64"]), "headers": headers}
    if not isinstance(body, str):
        return {"headers": headers} if body is None else {"json": body, "headers": headers}
    if shortened := _SHORTENED.match(body):
        size, start = int(shortened[1]), shortened[2]
        end = '"}' if '"payload": "x' in start else '", "payload": "x"}'
        unit = "a/" if "a/a/" in start else start[-1]
        head = start[: start.rindex('"', 0, start.index(unit * 3)) + 1]
        left = size - len(head) - len(end)
        body = head + (unit * left)[:left] + end
        assert len(body) == size
    return {"content": body.encode(), "headers": headers}


def key_of(title: str) -> tuple[str, str]:
    return {"wrong secret": ("key", "wrong"), "unknown key": ("nobody", "secret")}.get(
        title, ("key", "secret")
    )


def outcome(status: int, headers: Any, body: Any) -> list[Any]:
    kind = (headers or {}).get("content-type", "").partition(";")[0]
    return [status, kind, alike(body)]


@pytest.mark.parametrize("name", FILES)
async def test_recorded_exchanges(name: str) -> None:
    exchanges = json.loads((MORE / f"{name}.json").read_text())
    differ: dict[str, Any] = {}
    async with (
        StandIn() as broker,
        httpx.AsyncClient(base_url=broker.rest_url, timeout=60) as client,
    ):
        if name == "retainer":  # left there by an earlier recording
            broker.publish(Message(topic="a", payload=b"x", retain=True, clientid="http_api"))
        for exchange in exchanges:
            title, request, wanted = (exchange[k] for k in ("title", "request", "response"))
            answer = await client.request(
                request["method"], request["path"], auth=key_of(title), **sent(request)
            )
            try:
                body = answer.json()
            except ValueError:
                body = answer.text or None
            found = outcome(answer.status_code, answer.headers, body)
            recorded = outcome(wanted["status"], wanted.get("headers"), wanted["body"])
            if not recorded[1]:  # its content type was not recorded
                found[1] = ""
            if found != recorded:
                differ[title] = {"recorded": recorded, "found": found}
    allowed = DIFFERENT.get(name, {})
    unknown = {title: both for title, both in differ.items() if title not in allowed}
    assert not unknown
    assert differ.keys() == allowed.keys(), "these agree by now: take them out of the list"


IMAGE_SQL = CHAT_SQL[: CHAT_SQL.index("topic, payload")] + (
    "topic, base64_encode(payload) AS payload_base64, qos, pub_props, publish_received_at, "
    + CHAT_SQL[CHAT_SQL.index("CASE WHEN") :]
)


@pytest.mark.parametrize("number", range(2, 40))
async def test_recorded_webhooks(number: int) -> None:
    recorded = json.loads((MORE / f"{POSTS}.json").read_text())[number]["request"]["body"]
    body = recorded if isinstance(recorded, dict) else json.loads(recorded)
    as_image = "payload_base64" in body
    payload = base64.b64decode(body["payload_base64"]) if as_image else body["payload"].encode()
    if body["payload_base64" if as_image else "payload"].startswith("abc \ufffd"):
        payload = b"abc \xff\xfe \x80 def"
    properties = dict(body["pub_props"])
    if "Correlation-Data" in properties:
        properties["Correlation-Data"] = base64.b64decode(body["correlation_base64"])
    sql = (IMAGE_SQL if as_image else CHAT_SQL).replace("'chat'", f"'{body['flow']}'")
    sql = re.sub('FROM "[^"]*"', 'FROM "#"', sql)
    async with Webhook() as webhook, StandIn() as broker:
        rule = f'rule_engine.rules.lab {{ sql = """{sql}""", actions = ["http:lab"] }}'
        await broker.load(RESOURCES.format(url=webhook.url) + rule)
        broker.publish(
            Message(
                id=body["id"],
                received_at=body["publish_received_at"],
                topic=body["topic"],
                payload=payload,
                qos=body["qos"],
                clientid=body["clientid"],
                properties=properties,
            )
        )
        (request,) = await webhook.wait(1)
    assert request.json == body
