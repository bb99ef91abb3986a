"""What becomes of messages while the webhook is in trouble.

With a wide window EMQX sends what it had parked later than younger messages: what arrives can be
sorted by (publish_received_at, id), and that is what the service goes by.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from service.emqx.findings import outstanding
from tests.contract.conftest import Setup, eventually
from tests.contract.webhook import RESET


def publish(setup: Setup, numbers: range, name: str = "a") -> None:
    with setup.device(name) as device:
        for number in numbers:
            device.publish(f"{setup.root}/chat/{name}/ask", str(number))


def payloads(bodies: list[dict[str, Any]]) -> list[int]:
    return [int(body["payload"]) for body in bodies]


def in_order(bodies: list[dict[str, Any]]) -> list[int]:
    """Each message once, by EMQX's time and id."""
    each = {body["id"]: body for body in bodies}.values()
    return payloads(sorted(each, key=lambda body: (body["publish_received_at"], body["id"])))


@pytest.mark.parametrize("status", [503, 429])
def test_busy_is_tried_again(setup: Setup, status: int) -> None:
    until = time.monotonic() + 3
    setup.webhook.answer = lambda _: status if time.monotonic() < until else 202
    publish(setup, range(30))
    bodies = setup.webhook.wait(lambda bodies: len(bodies) >= 30)
    assert in_order(bodies) == list(range(30))
    assert len(bodies) == 30
    assert any(post.status == status for post in setup.webhook.posts)


def refusals(setup: Setup) -> float:
    """What doctor reads to tell of dropped messages."""
    return setup.metrics("action", setup.action("chat")).get("failed", 0)


def settled(setup: Setup) -> bool:
    """Whether the broker knows what became of every message."""
    found = setup.metrics("action", setup.action("chat"))
    return found["matched"] == found["success"] + found["failed"] + found["dropped"]


@pytest.mark.parametrize("status", [500, 400, 404])
def test_any_other_refusal_drops_the_message(setup: Setup, status: int) -> None:
    setup.webhook.answer = lambda body: status if body["payload"] in ("1", "2") else 202
    before = refusals(setup)
    publish(setup, range(5))
    bodies = setup.webhook.wait(lambda bodies: len(bodies) >= 3)
    assert in_order(bodies) == [0, 3, 4]
    time.sleep(2)
    refused = [post for post in setup.webhook.posts if post.status == status]
    # Not once more, but by the fallback action, where the broker has one.
    assert len(refused) in (2, 4)
    eventually(lambda: refusals(setup) == before + 2)


def test_a_webhook_that_is_away_gets_everything_later_once(setup: Setup) -> None:
    eventually(lambda: settled(setup))  # else answers of before are lost with the connections
    setup.webhook.refuse()
    publish(setup, range(30))
    time.sleep(5)
    setup.webhook.listen()
    bodies = setup.webhook.wait(lambda bodies: len(bodies) >= 30)
    time.sleep(1)
    assert len(setup.webhook.taken) == 30
    assert in_order(bodies) == list(range(30))


def test_what_a_reset_connection_loses_is_counted(setup: Setup) -> None:
    """EMQX may drop what it was about to send: then `failed` says so, or the fallback brings it."""
    reset: set[str] = set()

    def answer(body: dict[str, Any]) -> int:
        if body["payload"] in ("7", "23", "41") and body["id"] not in reset:
            reset.add(body["id"])
            return RESET
        return 202

    setup.webhook.answer = answer
    before = refusals(setup)
    publish(setup, range(60))

    def arrived() -> int:
        return len({body["id"] for body in setup.webhook.taken})

    eventually(lambda: arrived() + refusals(setup) - before >= 60)
    assert len(reset) <= 3  # such a one may be lost itself
    lost = 60 - arrived()
    assert lost <= refusals(setup) - before
    assert set(in_order(setup.webhook.taken)) <= set(range(60))
    assert in_order(setup.webhook.taken) == sorted(in_order(setup.webhook.taken))


def test_counters_tell_that_nothing_moves(setup: Setup) -> None:
    """What doctor's verdict rests on: taken and without an end, and no success meanwhile."""
    setup.webhook.answer = lambda _: 503
    publish(setup, range(10))
    ident = setup.action("chat")

    def stuck() -> bool:
        return outstanding(setup.metrics("action", ident)) >= 1

    eventually(stuck)
    setup.webhook.answer = lambda _: 202
    setup.webhook.wait(lambda bodies: len(bodies) >= 10)
    eventually(lambda: not stuck())
