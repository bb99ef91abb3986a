"""Flows → HOCON: the committed file, its SQL, its quoting, and the README's import."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from pathlib import Path

import pytest

from service.demo.standin import hocon
from service.demo.standin.broker import StandIn
from service.demo.standin.resources import Refused
from service.emqx import names
from service.emqx.management_api import EmqxAdmin
from service.emqx.render import render, render_filled
from service.emqx.resources import build, target
from service.errors import ConfigError
from service.flows import Flows, load
from service.rulesql import RuleException, parse
from tests.contract.webhook import Webhook
from tests.emqx.conftest import TOKEN, flows_of

ROOT = Path(__file__).parents[2]


def test_the_committed_files_are_what_render_writes() -> None:
    for name, text in render(load(ROOT / "flows.toml")).items():
        committed = (ROOT / "emqx" / name).read_text("utf-8")
        assert committed == text, "emqx/ has drifted from flows.toml: run emqx-gpt emqx render"


def test_render_is_stable_and_holds_unquoted_placeholders(flows: Flows) -> None:
    text = render(flows)["emqx-gpt.hocon"]
    assert text == render(flows)["emqx-gpt.hocon"]
    assert "\n  url = ${PUBLIC_URL}\n" in text
    assert '\n    authorization = "Bearer "${WEBHOOK_TOKEN}\n' in text
    assert "body =" not in text
    with pytest.raises(hocon.HoconError, match="failed_to_resolve"):
        hocon.load(text)


def test_what_is_rendered_is_what_is_applied(flows: Flows) -> None:
    desired = build(flows, to=target("http://a:8000", TOKEN))
    tree = hocon.load(render_filled(flows, "http://a:8000", TOKEN))
    assert tree["connectors"] == {"http": {"emqx_gpt": desired.connector}}
    assert tree["actions"] == {"http": {"emqx_gpt": desired.action}}
    rules = tree["rule_engine"]["rules"]
    assert list(rules) == list(desired.rules)
    for ident, rule in desired.rules.items():
        assert " ".join(rules[ident]["sql"].split()) == " ".join(rule["sql"].split())
        assert {**rules[ident], "sql": ""} == {**rule, "sql": ""}


def test_the_action_keeps_messages_as_long_as_someone_would_answer_them(flows: Flows) -> None:
    options = build(flows).action["resource_opts"]
    assert options == {
        "inflight_window": 1,
        "request_ttl": "60m",
        "health_check_interval": "2s",
    }


@pytest.mark.parametrize(
    ("deadline", "ttl"), [("1m", "10m"), ("15m", "15m"), ("1000.5s", "1001s"), ("30d", "1440m")]
)
def test_request_ttl_follows_the_longest_deadline(deadline: str, ttl: str) -> None:
    flows = flows_of(f'[flows.a]\nrequest = "a"\nreply = "b"\ndeadline = "{deadline}"')
    assert build(flows).action["resource_opts"]["request_ttl"] == ttl


def test_sql_of_each_flow(flows: Flows) -> None:
    rules = build(flows).rules
    chat = parse(rules["emqx_gpt_chat"]["sql"])
    assert chat.sources == ("lab/+/ask",)
    row = {
        "id": "1",
        "clientid": "c",
        "username": "u",
        "topic": "lab/a/ask",
        "payload": "hi",
        "qos": 1,
        "pub_props": {"User-Property": {}},
        "publish_received_at": 5,
    }
    assert chat.run(row) == {**row, "flow": "chat", "correlation_base64": ""}
    camera = parse(rules["emqx_gpt_camera"]["sql"]).run({**row, "payload": b"\xff\xd8"})
    assert camera is not None
    assert camera["payload_base64"] == "/9g="
    assert "payload" not in camera


def test_where_and_several_topics(flows: Flows) -> None:
    alarm = parse(build(flows).rules["emqx_gpt_alarm"]["sql"])
    assert alarm.sources == ("sensors/+/telemetry", "boilers/+")
    row = {
        "id": "1",
        "clientid": "c",
        "username": "u",
        "topic": "boilers/b",
        "qos": 0,
        "pub_props": {"User-Property": {}},
        "publish_received_at": 5,
    }
    assert alarm.run({**row, "payload": '{"temperature": 41}'}) is not None
    assert alarm.run({**row, "payload": '{"temperature": 40}'}) is None
    with pytest.raises(RuleException):
        alarm.run({**row, "payload": "hot"})


def test_only_the_rest_api_gets_through_the_reply_rule(flows: Flows) -> None:
    rule = parse(build(flows).rules["emqx_gpt_reply"]["sql"])
    row = {"topic": "emqx-gpt/reply", "payload": '{"topic": "t", "correlation": "AP8="}'}
    output = rule.run({**row, "clientid": "http_api"})
    assert output is not None
    assert output["corr"] == b"\x00\xff"
    assert rule.run({**row, "clientid": "http_api", "peerhost": "10.0.0.1"}) is None
    assert rule.run({**row, "clientid": "someone"}) is None


def test_flows_that_never_reply_need_no_reply_rule() -> None:
    silent = flows_of('[flows.a]\nrequest = "a"\nprompt = "x"\nhistory = { messages = 2 }')
    assert list(build(silent).rules) == ["emqx_gpt_a"]


def test_https_turns_tls_on(flows: Flows) -> None:
    assert "ssl {\n    enable = true" in render(flows, tls=True)["emqx-gpt.hocon"]
    assert "ssl {" in render_filled(flows, "https://a/gpt/", TOKEN)
    assert "ssl" not in render_filled(flows, "http://a", TOKEN)
    assert '"https://a/gpt"' in render_filled(flows, "https://a/gpt/", TOKEN)


@pytest.mark.parametrize(
    "token", ["plain", 'a"b', "a\\b", "a\\", '""', "a'b", "a b", "a&b|c$d{e}", "#no comment //"]
)
async def test_any_token_arrives_as_it_is(
    flows: Flows, webhook: Webhook, broker: StandIn, admin: EmqxAdmin, token: str
) -> None:
    webhook.token = token
    await broker.load(render_filled(flows, webhook.url, token))
    connector = broker.resources.connectors["emqx_gpt"].conf["headers"]
    assert connector["authorization"] == f"Bearer {token}"


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("", "not set"),
        ("a\nb", "line break"),
        ("a\r", "HTTP header"),
        ("tö", "ASCII"),
        ("a\x00", "HTTP header"),
        (" a", "space"),
        ("a${b}", r"\$\{"),
    ],
)
def test_tokens_that_no_header_can_hold(flows: Flows, token: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        render_filled(flows, "http://a", token)
    assert len(token) < 3 or token not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a:8000",
        "ftp://a",
        "http://",
        "http://u:p@a",
        "http://a/?q",
        "http://a/#f",
        "http://a/${topic}",
        'http://a/"',
        "http://a b",
        "http://ä",
    ],
)
def test_urls_that_emqx_can_not_call(flows: Flows, url: str) -> None:
    with pytest.raises(ConfigError, match="PUBLIC_URL"):
        render_filled(flows, url, TOKEN)


@pytest.mark.parametrize(
    ("flow", "ident"),
    [
        ("chat", "p_chat"),
        ("living-room", "p_living-room"),
        ("reply", r"p_reply_[0-9a-f]{8}"),
        ("a_01234567", r"p_a_01234567_[0-9a-f]{8}"),
        ("a b", r"p_a_b_[0-9a-f]{8}"),
        ("闹钟", r"p_[0-9a-f]{8}"),
        ("x" * 200, r"p_x{40}_[0-9a-f]{8}"),
        ("a'\"\\\n", r"p_a_[0-9a-f]{8}"),
    ],
)
def test_rule_ids(flow: str, ident: str) -> None:
    found = names.rule_id("p", flow)
    assert re.fullmatch(ident, found)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", found)
    assert names.is_ours("p", found, names.flow_says(flow))


@pytest.mark.parametrize("prefix", ["", "_a", "1a", "a-b", "a.b", "a" * 65, "ä"])
def test_prefixes_that_emqx_would_not_take(flows: Flows, prefix: str) -> None:
    with pytest.raises(ConfigError, match="prefix"):
        build(flows, prefix=prefix)


def test_a_topic_that_sql_can_not_name() -> None:
    with pytest.raises(ConfigError, match="quote"):
        render(flows_of("[flows.a]\nrequest = 'a/\"b'\nreply = 'c'"))


async def test_the_import_in_the_readme_works_as_printed(
    broker: StandIn, admin: EmqxAdmin, webhook: Webhook, tmp_path: Path
) -> None:
    readme = (ROOT / "emqx" / "README.md").read_text("utf-8")
    steps = re.findall(r"<!-- (?:fill|load) -->\n```sh\n(.*?)```", readme, re.DOTALL)
    assert len(steps) == 2
    (tmp_path / "emqx").symlink_to(ROOT / "emqx")
    environ = {
        "PATH": os.environ["PATH"],
        "EMQX_URL": broker.rest_url,
        "EMQX_API_KEY": "key",
        "EMQX_API_SECRET": "secret",
        "PUBLIC_URL": webhook.url,
        "WEBHOOK_TOKEN": TOKEN,
    }
    for step in steps:
        done = await asyncio.to_thread(
            subprocess.run,
            ["sh", "-euc", step],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert broker.resources.connectors["emqx_gpt"].conf["headers"]["authorization"] == (
        f"Bearer {TOKEN}"
    )
    rules = {rule["id"] for rule in await admin.rules()}
    assert rules == {
        names.rule_id("emqx_gpt", flow) for flow in load(ROOT / "flows.toml").flows
    } | {"emqx_gpt_reply"}


async def test_unfilled_files_are_refused_by_the_broker(broker: StandIn, flows: Flows) -> None:
    with pytest.raises(Refused, match="WEBHOOK_TOKEN|PUBLIC_URL"):
        await broker.load(render(flows)["emqx-gpt.hocon"])
