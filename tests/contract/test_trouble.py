"""What becomes of messages while the webhook is in trouble: none lost, none reordered."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.contract.conftest import Setup, eventually
from tests.contract.webhook import RESET


def publish(setup: Setup, numbers: range, name: str = "a") -> None:
    with setup.device(name) as device:
        for number in numbers:
            device.publish(f"{setup.root}/chat/{name}/ask", str(number))


def payloads(bodies: list[dict[str, Any]]) -> list[int]:
    return [int(body["payload"]) for body in bodies]


@pytest.mark.parametrize("status", [503, 429])
def test_busy_is_tried_again_and_keeps_order(setup: Setup, status: int) -> None:
    until = time.monotonic() + 3
    setup.webhook.answer = lambda _: status if time.monotonic() < until else 202
    publish(setup, range(30))
    bodies = setup.webhook.wait(lambda bodies: len(bodies) >= 30)
    assert payloads(bodies) == list(range(30))
    assert any(post.status == status for post in setup.webhook.posts)


def refusals(setup: Setup) -> float:
    """What doctor reads to tell of dropped messages."""
    return setup.metrics("action", setup.action("chat")).get("failed", 0)


@pytest.mark.parametrize("status", [500, 400, 404])
def test_any_other_refusal_drops_the_message(setup: Setup, status: int) -> None:
    setup.webhook.answer = lambda body: status if body["payload"] in ("1", "2") else 202
    before = refusals(setup)
    publish(setup, range(5))
    bodies = setup.webhook.wait(lambda bodies: len(bodies) == 3)
    assert payloads(bodies) == [0, 3, 4]
    time.sleep(2)
    refused = [post for post in setup.webhook.posts if post.status == status]
    assert len(refused) == 2  # not once more
    eventually(lambda: refusals(setup) == before + 2)


def test_a_webhook_that_is_away_gets_everything_later_once_and_in_order(setup: Setup) -> None:
    setup.webhook.refuse()
    publish(setup, range(30))
    time.sleep(5)
    setup.webhook.listen()
    bodies = setup.webhook.wait(lambda bodies: len(bodies) >= 30)
    time.sleep(1)
    assert payloads(setup.webhook.taken) == list(range(30))
    assert payloads(bodies) == list(range(30))


def test_a_reset_connection_reorders_nothing(setup: Setup) -> None:
    reset: set[str] = set()

    def answer(body: dict[str, Any]) -> int:
        if body["payload"] in ("7", "23", "41") and body["id"] not in reset:
            reset.add(body["id"])
            return RESET
        return 202

    setup.webhook.answer = answer
    publish(setup, range(60))
    bodies = setup.webhook.wait(lambda bodies: len({body["id"] for body in bodies}) == 60)
    assert len(reset) == 3
    first_seen = list(dict.fromkeys(payloads(bodies)))
    assert first_seen == list(range(60))


def test_counters_tell_that_nothing_moves(setup: Setup) -> None:
    """What doctor's verdict rests on: queuing or in flight, and no success meanwhile."""
    setup.webhook.answer = lambda _: 503
    publish(setup, range(10))
    ident = setup.action("chat")

    def stuck() -> bool:
        found = setup.metrics("action", ident)
        return found.get("queuing", 0) + found.get("inflight", 0) >= 1

    eventually(stuck)
    setup.webhook.answer = lambda _: 202
    setup.webhook.wait(lambda bodies: len(bodies) >= 10)
    eventually(lambda: not stuck())
