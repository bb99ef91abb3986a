"""What EMQX gave up: its counters from look to look, and how it is told."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest

from service.emqx import loss_counters, reply_rule
from service.emqx.loss_counters import Losses, given_up
from service.emqx.management_api import EmqxAdmin
from service.errors import BrokerError
from service.operations.losses import LossWatch
from tests.rig import eventually

PLAIN, AGAIN = "http:emqx_gpt", "http:emqx_gpt_again"
RECENT, RECENT_AGAIN = "http:emqx_gpt_recent", "http:emqx_gpt_recent_again"


def action(failed: float = 0, dropped: float = 0, matched: float = 100) -> dict[str, float]:
    ended = failed + dropped
    return {"matched": matched, "success": matched - ended, "failed": failed, "dropped": dropped}


@pytest.mark.parametrize(
    ("actions", "lost"),
    [
        ({}, 0),
        ({PLAIN: action()}, 0),
        ({PLAIN: action(failed=2, dropped=1)}, 3),
        ({PLAIN: action(failed=2), AGAIN: action(matched=2)}, 0),  # a fallback brought both
        ({PLAIN: action(failed=3), AGAIN: action(matched=2)}, 1),
        ({PLAIN: action(failed=2), AGAIN: action(failed=1, matched=2)}, 1),
    ],
)
def test_what_one_node_lost(actions: dict[str, dict[str, float]], lost: int) -> None:
    assert given_up(actions) == lost


def looks(*seen: tuple[dict[str, float], float]) -> list[int]:
    """`failed` by node and our refusals, look by look → what was new each time."""
    found = Losses()
    return [
        found.look({node: {PLAIN: action(failed=lost)} for node, lost in nodes.items()}, refused)
        for nodes, refused in seen
    ]


@pytest.mark.parametrize(
    ("seen", "fresh"),
    [
        ([({"a": 0}, 0), ({"a": 2}, 0), ({"a": 2}, 0), ({"a": 3}, 0)], [0, 2, 0, 1]),
        ([({"a": 5}, 0), ({"a": 6}, 0)], [0, 1]),  # what was lost before is told apart
        ([({"a": 5}, 0), ({"a": 0}, 0), ({"a": 1}, 0)], [0, 0, 1]),  # EMQX restarted
        ([({"a": 5}, 0), ({"a": 2}, 0)], [0, 2]),  # and lost two since
        ([({"a": 5, "b": 3}, 0), ({"b": 3}, 0), ({"a": 5, "b": 3}, 0)], [0, 0, 0]),  # a was away
        ([({"a": 5, "b": 3}, 0), ({"a": 0, "b": 3}, 0)], [0, 0]),  # one node of two restarted
        ([({"a": 0}, 0), ({"a": 0, "b": 1}, 0)], [0, 1]),  # a node joined
        ([({"a": 0}, 0), ({"a": 2}, 2)], [0, 0]),  # our webhook refused both
        ([({"a": 0}, 0), ({"a": 3}, 2)], [0, 1]),
        ([({"a": 0}, 0), ({"a": 0}, 2), ({"a": 2}, 2)], [0, 0, 0]),  # EMQX counts later
        ([({"a": 0}, 0), ({"a": 0}, 2), ({"a": 0}, 2), ({"a": 2}, 2)], [0, 0, 0, 2]),
    ],
)
def test_what_is_new(seen: list[tuple[dict[str, float], float]], fresh: list[int]) -> None:
    assert looks(*seen) == fresh


async def test_counters_are_read_by_node_and_of_our_actions_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if "ordered" in request.url.path:
            return httpx.Response(404, json={"code": "NOT_FOUND", "message": "no"})
        nodes = [{"node": node, "metrics": action(failed=1)} for node in ("a@1", "b@2")]
        return httpx.Response(200, json={"metrics": {}, "node_metrics": nodes})

    real = httpx.AsyncClient
    monkeypatch.setattr(
        httpx,
        "AsyncClient",
        lambda **options: real(**options, transport=httpx.MockTransport(answer)),
    )
    async with EmqxAdmin("http://emqx:18083", ("key", "secret")) as admin:
        found = await loss_counters.read(admin, "emqx_gpt")
    assert {node: sorted(actions) for node, actions in found.items()} == {
        "a@1": [PLAIN, AGAIN, RECENT, RECENT_AGAIN],
        "b@2": [PLAIN, AGAIN, RECENT, RECENT_AGAIN],
    }
    assert len(asked) == 6


class Counters:
    """What EMQX counts; None: it can't be asked."""

    def __init__(self) -> None:
        self.failed: float | None = 0
        self.asked = 0

    async def __call__(self) -> dict[str, Any]:
        self.asked += 1
        if self.failed is None:
            raise BrokerError("the API key may not do this", code="broker_forbidden")
        return {"a@1": {PLAIN: action(failed=self.failed)}}


async def test_losses_are_told(caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters()
    watch = LossWatch(counters, lambda: 0)
    await watch.look()
    assert (watch.lost, watch.warning) == (0, None)
    counters.failed = 2
    with caplog.at_level(logging.WARNING):
        await watch.look()
        await watch.look()
    assert watch.lost == 2
    assert watch.warning is not None
    assert watch.warning.startswith("EMQX gave up 2 messages since ")
    assert len([one for one in caplog.messages if "2 messages" in one]) == 1


async def test_what_was_lost_before_is_told_at_the_start() -> None:
    counters = Counters()
    counters.failed = 1
    watch = LossWatch(counters, lambda: 0)
    await watch.look(first=True)
    assert watch.lost == 0
    assert watch.warning is not None
    assert watch.warning.startswith("EMQX gave up 1 message before ")


async def test_a_reply_rule_that_would_not_obey_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    key = reply_rule.key("tok", "emqx_gpt")
    rules: list[dict[str, str] | None] = [None, None, {"sql": "old"}, {"sql": f"x '{key}' y"}]

    async def fault() -> str | None:
        return reply_rule.fault(rules.pop(0), [key])

    watch = LossWatch(Counters(), lambda: 0, fault)
    said = []
    with caplog.at_level(logging.WARNING):
        await watch.look(first=True)  # `serve --apply` may be about to make it
        assert len(rules) == 4
        for _ in range(4):
            await watch.look()
            said.append(watch.warning or "")
    assert said[0] == said[1]
    assert "no reply rule" in said[0]
    assert "does not obey" in said[2]
    assert said[3] == ""
    assert len(caplog.messages) == 2


async def test_a_key_that_may_not_read_counters_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counters = Counters()
    counters.failed = None
    watch = LossWatch(counters, lambda: 0, every=0.01)
    with caplog.at_level(logging.INFO):
        watch.start()
        await eventually(lambda: counters.asked > 3)
        await watch.stop()
    assert len([one for one in caplog.messages if "may not do this" in one]) == 1
    assert watch.warning is None
