"""Flows → HOCON: the committed file, its SQL, its quoting, and the README's import."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from service.demo.standin import hocon
from service.demo.standin.broker import StandIn
from service.demo.standin.resources import Refused
from service.domain import Publish
from service.emqx import reply_rule, resource_names
from service.emqx.config_file import render, render_filled
from service.emqx.look import compare
from service.emqx.management_api import EmqxAdmin
from service.emqx.resources import build, target
from service.errors import ConfigError
from service.flows import Flows, load
from service.rulesql import RuleException, SqlError, parse
from tests.contract.webhook import Webhook
from tests.emqx.conftest import FLOWS, TOKEN, flows_of

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
    for root, bodies in (("connectors", desired.connectors), ("actions", desired.actions)):
        assert tree[root] == {
            "http": {resource_names.bare(ident): body for ident, body in bodies.items()}
        }
    rules = tree["rule_engine"]["rules"]
    assert list(rules) == list(desired.rules)
    for ident, rule in desired.rules.items():
        assert " ".join(rules[ident]["sql"].split()) == " ".join(rule["sql"].split())
        assert {**rules[ident], "sql": ""} == {**rule, "sql": ""}


def test_the_action_keeps_messages_as_long_as_someone_would_answer_them(flows: Flows) -> None:
    for action in build(flows).with_fallback().actions.values():
        assert action["resource_opts"] == {
            "inflight_window": 100,
            "request_ttl": "60m",
            "health_check_interval": "2s",
        }


def test_flows_with_order_have_a_way_of_their_own(flows: Flows) -> None:
    text = FLOWS + '\n[flows.talk]\nrequest = "t"\nreply = "s"\nhistory = { messages = 2 }\n'
    desired = build(flows_of(text))
    plain, ordered = "http:emqx_gpt", "http:emqx_gpt_ordered"
    assert desired.rules["emqx_gpt_talk"]["actions"] == [ordered]
    assert desired.rules["emqx_gpt_chat"]["actions"] == [plain]
    pools = [desired.connectors[ident]["pool_type"] for ident in (plain, ordered)]
    assert pools == ["random", "hash"]
    connectors = [desired.actions[ident]["connector"] for ident in (plain, ordered)]
    assert connectors == ["emqx_gpt", "emqx_gpt_ordered"]


@pytest.mark.parametrize(
    ("deadline", "ttl"), [("1m", "10m"), ("15m", "15m"), ("1000.5s", "1001s"), ("30d", "1440m")]
)
def test_request_ttl_follows_the_longest_deadline(deadline: str, ttl: str) -> None:
    flows = flows_of(f'[flows.a]\nrequest = "a"\nreply = "b"\ndeadline = "{deadline}"')
    action = build(flows).actions["http:emqx_gpt"]
    assert action["resource_opts"]["request_ttl"] == ttl


def test_sql_of_each_flow(flows: Flows) -> None:
    rules = build(flows).rules
    chat = parse(rules["emqx_gpt_chat"]["sql"])
    assert chat.sources == ("lab/+/ask",)
    row = {
        "id": "1",
        "clientid": "c",
        "username": "u",
        "peerhost": "192.0.2.1",
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


REPLY = Publish(
    topic="t",
    payload="Grüße\x00".encode(),
    correlation=b"\x00\xff",
    expiry=60,
    user_properties=(("request_id", "1"),),
)


def test_the_reply_rule_obeys_what_is_signed(flows: Flows) -> None:
    desired = build(flows, to=target("http://a", "new", "old"))
    rule = parse(desired.rules["emqx_gpt_reply"]["sql"])
    (topic,) = rule.sources
    assert topic == "emqx-gpt/reply/emqx_gpt"
    for tokens in (["new"], ["old"], ["old", "other"]):
        keys = [reply_rule.key(token, "emqx_gpt") for token in tokens]
        payload = reply_rule.envelope(REPLY, keys, time.time())
        output = rule.run({"topic": topic, "payload": payload})
        assert output is not None
        assert output["corr"] == b"\x00\xff"
        said = output["p"]
        assert isinstance(said, dict)
        assert said["payload"] == "Grüße\x00"
        assert (said["expiry"], said["user"]) == (60, {"request_id": "1"})


@pytest.mark.parametrize(
    ("token", "prefix", "age"),
    [("guessed", "emqx_gpt", 0), ("tok", "other", 0), ("tok", "emqx_gpt", 61)],
)
def test_the_reply_rule_obeys_nobody_else(
    flows: Flows, token: str, prefix: str, age: float
) -> None:
    desired = build(flows, to=target("http://a", "tok"))
    rule = parse(desired.rules["emqx_gpt_reply"]["sql"])
    keys = [reply_rule.key(token, prefix)]
    payload = reply_rule.envelope(REPLY, keys, time.time() - age)
    assert rule.run({"topic": rule.sources[0], "payload": payload}) is None


def test_a_key_is_not_the_token_and_is_no_sql_until_it_is_filled_in(flows: Flows) -> None:
    key = reply_rule.key("tok", "emqx_gpt")
    assert re.fullmatch("[0-9a-f]{64}", key)
    assert key != reply_rule.key("tok", "emqx_gpt_b")
    assert key not in resource_names.fingerprint("tok")
    with pytest.raises(SqlError):
        parse(build(flows).rules["emqx_gpt_reply"]["sql"])


@pytest.mark.parametrize(
    ("topic", "correlation", "needed"),
    [
        ("a/b", None, False),
        ("a/b", b"", False),
        ("a/b", b"c-1", False),
        ("a/b", "ü\n\t\x1b".encode(), False),
        ("a/b", b"\x00\x00\x00\x01", True),
        ("a/b", b"\x01", True),
        ("a/b", b"\x7f", True),
        ("a/b", b"\xc2\x85", True),
        ("a/b", b"\xef\xbf\xbf", True),
        ("a/b", b"\xff\x00", True),
        ("a/\x01", None, True),
        ("a/\x85", b"c-1", True),
        ("a/ü", b"c-1", False),
        ("a/b", "\U0001fffe".encode(), False),
    ],
)
def test_what_the_publish_api_can_not_carry(
    topic: str, correlation: bytes | None, needed: bool
) -> None:
    message = Publish(topic=topic, payload=b"\x00", correlation=correlation)
    assert reply_rule.needed(message) is needed


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
    found = resource_names.rule_id("p", flow)
    assert re.fullmatch(ident, found)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", found)
    assert resource_names.is_ours("p", found, resource_names.flow_says(flow))


@pytest.mark.parametrize(
    "prefix", ["", "_a", "1a", "a-b", "a.b", "a" * 65, "ä", "a_ordered", "a_again"]
)
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
    desired = build(load(ROOT / "flows.toml"), to=target(webhook.url, TOKEN))
    plan = await compare(admin, desired)
    assert plan.in_step, plan.as_json()
    rules = {rule["id"] for rule in await admin.rules()}
    assert rules == desired.rules.keys()
    assert len(rules) >= len(load(ROOT / "flows.toml").flows)


async def test_unfilled_files_are_refused_by_the_broker(broker: StandIn, flows: Flows) -> None:
    with pytest.raises(Refused, match="WEBHOOK_TOKEN|PUBLIC_URL"):
        await broker.load(render(flows)["emqx-gpt.hocon"])
