"""Spans as a real OTLP receiver gets them: one tree for each request, over restarts, and the
trace of who asked goes on."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from typing import Any

import pytest

from service import safe_text
from tests.fakes.collector import Collector, Span
from tests.fakes.model import delay, gate, ok, status, tool_calls
from tests.rig import ROOT, Rig, environment, eventually, message, rig

FLOWS = """
[prices]
m = { input = 1.0, output = 10.0 }

[flows.home]
request = "home/${user}/ask"
reply = "home/${user}/say"
model = "m"
system = "SECRET-SYSTEM"
max_tokens = 77
[[flows.home.tools]]
name = "set_light"
description = "Switch a lamp"
topic = "home/devices/${room}/set"
[flows.home.tools.parameters]
type = "object"
required = ["room"]
properties.room = { enum = ["kitchen", "bedroom"] }
"""
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
UPSTREAM = f"00-{TRACE}-{SPAN}-01"
TIME = 0.15  # seconds that the model takes


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=collector-secret")


async def sent(house: Rig, **properties: str) -> None:
    """A question with these user properties, as a rule posts it."""
    pairs = [{"key": key, "value": value} for key, value in properties.items()]
    body = {
        "id": "m1",
        "topic": "home/ada/ask",
        "flow": "home",
        "payload": "SECRET-QUESTION",
        "qos": 1,
        "pub_props": {"User-Property": properties, "User-Property-Pairs": pairs},
    }
    assert (await house.webhook(body)).status_code == 202


def properties_of(house: Rig, topic: str) -> dict[str, str]:
    """The user properties of the message that was published there."""
    found = [one for one in house.broker.mqtt.published if one.topic == topic]
    return dict(found[-1].properties["User-Property"])  # type: ignore[call-overload]


async def arrived(collector: Collector, count: int) -> list[Span]:
    await eventually(lambda: len(collector.spans) >= count)
    return sorted(collector.spans, key=lambda span: (span.began, span.name))


def one(spans: list[Span], name: str) -> Span:
    (found,) = [span for span in spans if span.name == name]
    return found


async def test_a_request_is_one_tree(any_database: str) -> None:
    with Collector() as collector:
        async with (
            rig(any_database, flows=FLOWS, otel_exporter_otlp_endpoint=collector.url) as house,
            house.mqtt("home/ada/say") as ada,
        ):
            house.model.script(
                tool_calls([("set_light", {"room": "kitchen"})]),
                delay(TIME, ok("SECRET-ANSWER", usage=(100, 20))),
            )
            await sent(house, traceparent=UPSTREAM, tracestate="vendor=1")
            await message(ada)
            (row,) = await house.ended(1)
            spans = await arrived(collector, 6)
            reply = properties_of(house, "home/ada/say")
            command = properties_of(house, "home/devices/kitchen/set")
    assert sorted(span.name for span in spans) == [
        "chat m",
        "chat m",
        "execute_tool set_light",
        "process home/${user}/ask",
        "publish home/${user}/say",
        "queue",
    ]
    assert {span.trace for span in spans} == {TRACE}
    assert {span.service for span in spans} == {"emqx-gpt"}
    assert {span.state for span in spans} == {"vendor=1"}
    root = one(spans, "process home/${user}/ask")
    assert (root.parent, root.kind, root.error) == (SPAN, "consumer", False)
    assert {span.parent for span in spans if span is not root} == {root.id}
    assert all(root.began <= span.began <= span.ended <= root.ended for span in spans)
    assert root.attributes["emqx_gpt.request.id"] == row["id"]
    assert root.attributes["emqx_gpt.state"] == "done"
    assert root.attributes["messaging.system"] == "mqtt"
    assert root.attributes["messaging.destination.name"] == "home/ada/ask"
    assert root.attributes["gen_ai.usage.input_tokens"] > 100  # of both calls

    chat = max(collector.named("chat m"), key=lambda span: span.began)
    assert chat.kind == "client"
    assert chat.ended - chat.began >= TIME * 1000 - 5
    wanted: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m",
        "gen_ai.request.max_tokens": 77,
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.conversation.id": "ada",
        "server.address": "127.0.0.1",
    }
    assert wanted.items() <= chat.attributes.items()
    assert "error.type" not in chat.attributes

    tool = one(spans, "execute_tool set_light")
    assert tool.attributes["gen_ai.operation.name"] == "execute_tool"
    assert tool.attributes["gen_ai.tool.name"] == "set_light"
    assert tool.attributes["gen_ai.tool.call.id"] == command["call_id"]
    assert command["traceparent"] == f"00-{TRACE}-{tool.id}-01"

    publish = one(spans, "publish home/${user}/say")
    assert (publish.kind, publish.attributes["messaging.operation.type"]) == ("producer", "send")
    assert publish.attributes["messaging.destination.name"] == "home/ada/say"
    assert reply["traceparent"] == f"00-{TRACE}-{publish.id}-01"
    assert reply["tracestate"] == "vendor=1"

    assert "SECRET" not in repr(spans)
    assert collector.headers[0]["x-key"] == "collector-secret"


async def test_without_a_trace_it_is_called_like_the_request(database: str) -> None:
    with Collector() as collector:
        endpoint = {"otel_exporter_otlp_endpoint": collector.url}
        async with rig(database, flows=FLOWS, **endpoint) as house, house.mqtt("home/+/say") as ada:
            await sent(house)
            await message(ada)
            (row,) = await house.ended(1)
            spans = await arrived(collector, 4)
            reply = properties_of(house, "home/ada/say")
    assert {span.trace for span in spans} == {row["id"]}
    root = one(spans, "process home/${user}/ask")
    assert root.parent == ""
    publish = one(spans, "publish home/${user}/say")
    assert reply["traceparent"] == f"00-{row['id']}-{publish.id}-01"


async def test_over_retries_and_a_crash_it_is_one_tree(database: str, quick: None) -> None:
    with Collector() as collector:
        endpoint = {"otel_exporter_otlp_endpoint": collector.url}
        async with rig(database, flows=FLOWS, **endpoint) as house, house.mqtt("home/+/say") as ada:
            held = gate()
            house.model.script(*[status(500)] * 3, held)  # then it is asked again later
            await sent(house, traceparent=UPSTREAM)
            await held.reached.wait()
            await eventually(lambda: len(collector.named("chat")) >= 3)
            await house.crash()
            async with house.replica():
                await message(ada)
                await house.ended(1)
                await eventually(lambda: collector.named("process"))
                spans = await arrived(collector, 8)
    roots = [span for span in spans if span.name.startswith("process")]
    assert len(roots) == 1
    assert {span.trace for span in spans} == {TRACE}
    assert {span.parent for span in spans if span is not roots[0]} == {roots[0].id}
    failed = [span for span in spans if span.name == "chat m" and span.error]
    assert len(failed) >= 3
    assert {span.attributes["error.type"] for span in failed} == {"model_unavailable"}
    waits = [span.attributes["emqx_gpt.wait.reason"] for span in spans if span.name == "queue"]
    assert waits[0] == "queue"
    assert len(waits) >= 2


async def test_a_failure_is_an_error(database: str, quick: None) -> None:
    with Collector() as collector:
        endpoint = {"otel_exporter_otlp_endpoint": collector.url}
        async with rig(database, flows=FLOWS, **endpoint) as house:
            house.model.script(
                tool_calls([("SECRET_tool", {"room": "kitchen"})]), status(400, "SECRET")
            )
            await sent(house)
            await house.ended(1)
            spans = await arrived(collector, 6)
    root = one(spans, "process home/${user}/ask")
    assert root.error
    assert root.attributes["error.type"] == root.attributes["emqx_gpt.code"] == "model_refused"
    tool = one(spans, "execute_tool unknown")
    assert (tool.error, tool.attributes["error.type"]) == (True, "tool_error")
    assert "SECRET" not in repr(spans)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (UPSTREAM.replace("-01", "-00"), True),
        (UPSTREAM, True),
        ("00-" + "0" * 32 + f"-{SPAN}-01", False),
        (UPSTREAM.upper(), False),
        ("x" * 600, False),
        (f"{UPSTREAM}-more", False),
    ],
)
async def test_without_a_collector_a_trace_is_handed_on(
    database: str, given: str, kept: bool
) -> None:
    async with rig(database, flows=FLOWS) as house, house.mqtt("home/ada/say") as ada:
        await sent(house, traceparent=given, tracestate="a=1,b=2")
        await message(ada)
        reply = properties_of(house, "home/ada/say")
    assert reply.get("traceparent") == (given if kept else None)
    assert reply.get("tracestate") == ("a=1,b=2" if kept else None)


async def test_what_is_not_sampled_is_not_recorded(database: str) -> None:
    with Collector() as collector:
        endpoint = {"otel_exporter_otlp_endpoint": collector.url}
        async with rig(database, flows=FLOWS, **endpoint) as house, house.mqtt("home/+/say") as ada:
            await sent(house, traceparent=UPSTREAM.replace("-01", "-00"))
            await message(ada)
            await house.ended(1)
            reply = properties_of(house, "home/ada/say")
        assert collector.spans == []  # what there is was sent when the house closed
    assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-00", reply["traceparent"])
    assert SPAN not in reply["traceparent"]


async def test_a_question_over_http_goes_on_with_its_trace(database: str) -> None:
    with Collector() as collector:
        endpoint = {"otel_exporter_otlp_endpoint": collector.url}
        async with rig(database, flows=FLOWS, **endpoint) as house:
            answer = await house.http.post(
                "/ask/home",
                json={"text": "hi"},
                headers={"traceparent": UPSTREAM, "prefer": "wait=30"},
            )
            assert answer.status_code == 200
            spans = await arrived(collector, 3)
    assert {span.trace for span in spans} == {TRACE}


async def test_the_sdk_is_told_what_stands_in_env(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_HEADERS")
    said = {"OTEL_EXPORTER_OTLP_HEADERS": "x-key=secret-of-the-collector"}
    with Collector() as collector:
        endpoint = {"otel_exporter_otlp_endpoint": collector.url}
        async with rig(database, flows=FLOWS, environ=said, **endpoint) as house:
            await sent(house)
            await house.ended(1)
            await arrived(collector, 4)
        assert collector.headers[0]["x-key"] == "secret-of-the-collector"
    assert "secret-of" not in safe_text.line("it said x-key=secret-of-the-collector")


async def test_nobody_waits_for_a_collector_that_is_away(database: str) -> None:
    with Collector() as gone:
        url = gone.url
    async with (
        rig(database, flows=FLOWS, otel_exporter_otlp_endpoint=url) as house,
        house.mqtt("home/ada/say") as ada,
    ):
        await sent(house)
        await message(ada)
        await house.ended(1)
        began = time.monotonic()
        await house.service.stop()
        assert time.monotonic() - began < 6


def test_opentelemetry_is_not_loaded_unless_it_is_wanted() -> None:
    code = "import sys, service.web.app, service.bootstrap, service.cli.serving; "
    code += "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment())
    assert done.returncode == 0


def test_a_missing_extra_is_told(tmp_path: Any) -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None; sys.argv = ['emqx-gpt', 'serve']; "
        "from service.__main__ import main; main()"
    )
    env = environment(
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318",
        OPENAI_API_KEY="sk-x",
        EMQX_API_KEY="key",
        EMQX_API_SECRET="secret",
        FLOWS=str(ROOT / "flows.toml"),
        PORT="0",
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "OTEL_EXPORTER_OTLP_ENDPOINT: is set, and OpenTelemetry is not installed" in done.stderr
    assert "emqx-gpt[otel]" in done.stderr
    assert "Traceback" not in done.stderr
