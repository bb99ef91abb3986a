"""GET /metrics: what happened is in it, and nobody from outside makes labels."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from service.operations.metrics import Metrics
from tests.metrics.used import used
from tests.rig import WEBHOOK_AUTH, counter, eventually, load_flows, message, rig

PROMTOOL = shutil.which("promtool")

FIGURES = [
    ("ended_total", {"flow": "chat", "state": "done"}, 3),
    ("ended_total", {"flow": "chat", "state": "failed"}, 1),
    ("ended_total", {"flow": "idle"}, 0),
    ("accepted_total", {"flow": "home"}, 1),
    ("duplicates_total", {}, 1),
    ("refused_total", {"code": "unauthorized"}, 1),
    ("model_calls_total", {"provider": "openai", "model": "m", "result": "ok"}, 4),
    ("model_calls_total", {"provider": "openai", "model": "m", "result": "model_not_found"}, 2),
    ("model_calls_total", {"provider": "other", "model": "other/spare", "result": "ok"}, 1),
    ("retries_total", {"how": "at_once", "code": "model_unavailable"}, 2),
    ("retries_total", {"how": "fallback", "code": "model_not_found"}, 2),
    ("retries_total", {"how": "later", "code": "model_unavailable"}, 1),
    ("tokens_total", {"provider": "other", "kind": "prompt"}, 10),
    ("tokens_total", {"provider": "other", "kind": "completion"}, 2),
    ("undelivered_total", {"flow": "chat"}, 1),
    ("undelivered_total", {"flow": "home"}, 0),
    ("stage_seconds_count", {"stage": "queue"}, 6),
    ("stage_seconds_count", {"stage": "publish"}, 5),
    ("stage_seconds_count", {"stage": "tools"}, 1),
    ("stage_seconds_count", {"stage": "total"}, 5),
    ("backlog", {}, 2),
    ("open", {"flow": "idle", "state": "queued"}, 1),
    ("open", {"flow": "broken"}, 1),
    ("open", {"flow": "chat"}, 0),
    ("dead_letters", {"state": "failed"}, 1),
    ("dead_letters", {"state": "expired"}, 0),
    ("circuit_open", {"provider": "other", "model": "other/broken"}, 1),
    ("circuit_open", {"provider": "openai", "model": "m"}, 0),
    ("paused", {"kind": "flow", "name": "idle"}, 1),
    ("paused", {"kind": "flow", "name": "chat"}, 0),
    ("paused", {"kind": "provider", "name": "other"}, 0),
    ("budget_tokens_limit", {"flow": "chat"}, 1_000_000),
    ("budget_dollars_limit", {"flow": ""}, 100),
    ("given_up", {}, 0),
]


async def test_what_happened_is_counted(any_database: str, quick: None) -> None:
    async with used(any_database) as house:
        text = (await house.http.get("/metrics")).text
        found = [counter(text, f"emqx_gpt_{name}", **labels) for name, labels, _ in FIGURES]
        assert found == [value for _, _, value in FIGURES], [
            (one, value) for one, value in zip(FIGURES, found, strict=True) if one[2] != value
        ]
        streamed = counter(text, "emqx_gpt_stage_seconds_count", stage="first_token")
        assert streamed >= 3
        assert counter(text, "emqx_gpt_backlog_age_seconds") > 0
        tried = counter(text, "emqx_gpt_model_calls_total", result="model_unauthorized")
        assert tried >= 1  # and again, with one call now and then


async def test_budgets_are_what_was_billed(database: str, quick: None) -> None:
    async with used(database) as house:
        await house.http.post("/flows/broken/pause")  # else it is reserved for, now and then
        house.clock.ahead += 2000
        text = (await house.http.get("/metrics")).text
        # three of the usual model at 100 + 20 tokens, one of the spare one at 10 + 2
        assert counter(text, "emqx_gpt_budget_tokens_used", flow="chat") == 2 * 120 + 12
        dollars = 2 * (100 * 1.0 + 20 * 10.0) / 1e6
        assert counter(text, "emqx_gpt_budget_dollars_used", flow="chat") == pytest.approx(dollars)
        assert counter(text, "emqx_gpt_cost_dollars_total", model="m") > dollars


async def test_replicas_show_the_same_inbox(shared_database: str, quick: None) -> None:
    async with used(shared_database) as house, house.replica() as other:

        async def counted() -> str | None:  # what was counted is shown for a moment
            text = (await other.scrape()).decode()
            return text if counter(text, "emqx_gpt_backlog") == 2 else None

        text = await eventually(counted)
        assert counter(text, "emqx_gpt_dead_letters") == 1
        assert counter(text, "emqx_gpt_paused", kind="flow", name="idle") == 1
        assert counter(text, "emqx_gpt_budget_tokens_used", flow="chat") > 0
        assert counter(text, "emqx_gpt_ended_total") == 0  # each counts its own


HELD = """
[flows.held]
request = "held/${user}/ask"
reply = "held/${user}/say"
hold = "2s"
"""


async def test_a_held_reply_counts_when_it_is_given_up(database: str) -> None:
    async with rig(database, flows=HELD) as house:

        async def undelivered() -> float:
            return counter((await house.http.get("/metrics")).text, "emqx_gpt_undelivered_total")

        body = {"topic": "held/ada/ask", "payload": "hi", "flow": "held"}
        await house.webhook(body | {"id": "1"})
        await house.ended(1)
        assert await undelivered() == 0
        async with house.mqtt("held/ada/say") as ada:  # it wakes up in time
            await message(ada)
        await house.webhook(body | {"id": "2"})
        await house.ended(2)
        await eventually(undelivered)
        assert await undelivered() == 1


def test_a_flow_that_is_gone_is_no_label() -> None:
    metrics = Metrics()
    metrics.expect(load_flows(HELD))
    metrics.nobody("held")
    metrics.nobody("gone")
    text = metrics.text().decode()
    assert counter(text, "emqx_gpt_undelivered_total", flow="held") == 1
    assert 'emqx_gpt_undelivered_total{flow=""} 1.0' in text
    assert "gone" not in text


def series(text: str) -> set[str]:
    return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}


async def test_nobody_from_outside_makes_labels(database: str, quick: None) -> None:
    async with rig(database) as house:
        before = series((await house.http.get("/metrics")).text)
        for number in range(40):
            stranger = f'x{number}"\\\n'
            body = {
                "id": stranger,
                "topic": f"a/{stranger}",
                "payload": stranger,
                "flow": stranger,
                "clientid": stranger,
                "username": stranger,
            }
            await house.webhook(body)
            await house.webhook(body, headers=WEBHOOK_AUTH | {"content-type": stranger[:2]})
            await house.webhook(body, headers={"authorization": f"Bearer {number}"})
            await house.webhook(f"no JSON {number}".encode())
            await house.http.post(f"/flows/x{number}/pause")
            await house.http.post(
                "/ask/chat", json={"text": f"x{number}", "conversation": f"{number}"}
            )
        await house.ended(40, flow="chat")
        text = (await house.http.get("/metrics")).text
        made = series(text) - before
        assert not any("x1" in one for one in made), made
        assert len(made) < 12, made


@pytest.mark.skipif(PROMTOOL is None, reason="promtool (Debian: prometheus) is not installed")
async def test_promtool_finds_nothing_wrong(database: str, quick: None) -> None:
    async with used(database) as house:
        answer = await house.http.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        done = subprocess.run(
            [str(PROMTOOL), "check", "metrics"], input=answer.content, capture_output=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
