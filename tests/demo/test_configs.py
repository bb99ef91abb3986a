"""PUT /configs: HOCON in, whole or in parts."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from service.demo.standin.broker import StandIn
from service.demo.standin.resources import Refused
from tests.demo.webhook import Webhook, config


async def put_config(rest: httpx.AsyncClient, text: str, mode: str = "merge") -> httpx.Response:
    headers = {"content-type": "text/plain"}
    return await rest.put(f"/configs?mode={mode}", content=text, headers=headers)


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
        ('connectors.http.x { url = "ftp://h" }', "in URL: ftp://h"),
        ('connectors.http.x { url = "http://h", pool = 1 }', "unknown_fields"),
        ('connectors.http.x { url = "http://h", pool_size = 0 }', "pos_integer()"),
        ('connectors.http.x { url = "http://h", resource_opts.start_timeout = "5" }', "duration"),
        ('connectors.http.x { url = "http://h", headers { a = "b\\nc" } }', "line break"),
        ('connectors.mqtt.x { server = "h" }', "http only"),
        ("connectors = 1", "expected an object"),
        ('rule_engine.rules.x { sql = "SELECT a FROM \\"t\\"", actions = [{}] }', "unknown_action"),
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
        await broker.load(
            config(webhook.url) + '\nactions.http.orphan { connector = "none", parameters {} }'
        )
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


async def test_changes_come_one_at_a_time(
    broker: StandIn, rest: httpx.AsyncClient, webhook: Webhook
) -> None:
    texts = [config(webhook.url, window=number) for number in range(1, 9)]
    answers = await asyncio.gather(*(put_config(rest, text) for text in texts))
    assert {answer.status_code for answer in answers} == {200}
    await rest.post("/publish", json={"topic": "lab/request/u", "payload": "x"})
    await webhook.wait(1)
