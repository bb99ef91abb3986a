"""What becomes of a message when the webhook misbehaves: the table of a real EMQX 5.8.9."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from service.demo.standin import action, raw_http
from service.demo.standin.broker import StandIn
from service.demo.standin.published import Message
from tests.demo.webhook import Received, Webhook, accept, config, until


def send(broker: StandIn, *payloads: str, source: str = "dev") -> None:
    for payload in payloads:
        broker.publish(
            Message(topic="lab/request/u", payload=payload.encode(), clientid="dev", source=source)
        )


def metrics(broker: StandIn) -> dict[str, int | float]:
    """With the gauges of this moment: what REST tells is up to five seconds old."""
    action = broker.resources.action("lab")
    return {**action.metrics(), "inflight": action.inflight, "queuing": action.queuing}


class Scripted:
    """Answers 202, but what `misbehave` returns first; remembers what was accepted."""

    def __init__(self, misbehave: Callable[[str], int | None]) -> None:
        self.misbehave = misbehave
        self.accepted: list[str] = []

    async def __call__(self, request: Received) -> int:
        payload = str(request.json["payload"])
        status = self.misbehave(payload)
        if status == 0:
            request.reset()
        if status is not None:
            return status
        self.accepted.append(payload)
        return 202


def times(count: int, status: int, payload: str | None = None) -> Callable[[str], int | None]:
    """`status` for the first `count` requests (with this payload)."""
    left = count

    def misbehave(found: str) -> int | None:
        nonlocal left
        if left and payload in (None, found):
            left -= 1
            return status
        return None

    return misbehave


NUMBERS = [str(number) for number in range(12)]


@pytest.mark.parametrize("status", [503, 429])
async def test_it_is_sent_again_in_order(broker: StandIn, webhook: Webhook, status: int) -> None:
    webhook.answer = answer = Scripted(times(7, status))
    await broker.load(config(webhook.url))
    send(broker, *NUMBERS)
    await until(lambda: len(answer.accepted) == len(NUMBERS))
    assert answer.accepted == NUMBERS
    await until(lambda: metrics(broker)["success"] == len(NUMBERS))
    # seven refusals: three asked in a row by the connector, the rest by the buffer
    assert metrics(broker)["retried"] >= 2
    assert metrics(broker)["failed"] == metrics(broker)["dropped"] == 0


@pytest.mark.parametrize("status", [301, 400, 401, 404, 408, 409, 413, 425, 500, 502, 504])
async def test_it_is_dropped_loudly(
    broker: StandIn, webhook: Webhook, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    webhook.answer = answer = Scripted(times(1, status))
    await broker.load(config(webhook.url))
    send(broker, "a secret text", "second")
    await until(lambda: answer.accepted)
    assert [request.json["payload"] for request in webhook.received] == ["a secret text", "second"]
    await until(lambda: metrics(broker)["success"] == 1)
    assert metrics(broker)["failed"] == 1
    rule = broker.resources.rule("lab").metrics()
    assert rule["actions.failed"] == rule["actions.failed.unknown"] == 1
    assert (rule["actions.total"], rule["actions.success"]) == (2, 1)
    (line,) = [r.getMessage() for r in caplog.records if "DROPPED" in r.getMessage()]
    for part in (f"status {status}", "lab/request/u", str(webhook.received[0].json["id"])):
        assert part in line
    assert "a secret text" not in caplog.text
    assert "s3cret-token" not in caplog.text


async def test_refused_connections_are_waited_for(broker: StandIn, webhook: Webhook) -> None:
    webhook.answer = answer = Scripted(lambda _: None)
    await broker.load(config(webhook.url))
    await webhook.stop()
    send(broker, *NUMBERS)
    connector, action = broker.resources.connector("lab"), broker.resources.action("lab")
    await until(lambda: connector.status == action.status == "disconnected")
    assert webhook.received == []
    await webhook.start()
    await until(lambda: len(answer.accepted) == len(NUMBERS))
    assert answer.accepted == NUMBERS
    assert connector.status == action.status == "connected"


@pytest.mark.parametrize("window", [1, 100])
async def test_a_reset_connection_loses_nothing(
    broker: StandIn, webhook: Webhook, window: int
) -> None:
    webhook.answer = answer = Scripted(times(4, 0, "3"))
    await broker.load(config(webhook.url, window=window))
    send(broker, *NUMBERS)
    await until(lambda: metrics(broker)["success"] == len(NUMBERS))
    assert sorted(answer.accepted, key=int) == NUMBERS
    if window == 1:
        assert answer.accepted == NUMBERS


async def test_a_wide_window_lets_others_overtake(broker: StandIn, webhook: Webhook) -> None:
    webhook.answer = answer = Scripted(times(4, 503, "3"))
    await broker.load(config(webhook.url, window=100))
    send(broker, *NUMBERS)
    await until(lambda: len(answer.accepted) == len(NUMBERS))
    assert answer.accepted[-1] == "3"


async def test_requests_are_pipelined(broker: StandIn, webhook: Webhook) -> None:
    both = asyncio.Event()

    async def first_waits_for_second(request: Received) -> int:
        await both.wait()
        return 202

    webhook.answer = first_waits_for_second
    await broker.load(config(webhook.url, window=100, connector="pool_size = 1"))
    send(broker, "1", "2")
    first, second = await webhook.wait(2)
    assert first.connection == second.connection
    assert metrics(broker)["inflight"] == 2
    assert metrics(broker)["success"] == 0
    both.set()
    await until(lambda: metrics(broker)["success"] == 2)
    assert metrics(broker)["inflight"] == 0


async def test_a_silent_server_is_waited_for_until_the_connection_breaks(
    broker: StandIn, webhook: Webhook
) -> None:
    async def never(_: Received) -> int:
        await asyncio.Event().wait()
        return 202

    webhook.answer = never
    await broker.load(config(webhook.url))
    send(broker, "1", "2")
    (first,) = await webhook.wait(1)
    await asyncio.sleep(0.2)  # four health checks
    assert broker.resources.action("lab").status == "connected"
    counted = metrics(broker)
    assert (counted["inflight"], counted["queuing"]) == (1, 1)
    assert counted["failed"] == counted["dropped"] == counted["retried"] == 0
    webhook.answer = accept
    first.reset()
    received = await webhook.wait(3)
    assert [request.json["payload"] for request in received] == ["1", "1", "2"]


async def test_after_a_long_silence_the_message_is_sent_again(
    broker: StandIn, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_http, "SILENCE", 0.1)

    async def never_the_first(request: Received) -> int:
        if request is webhook.received[0]:
            await asyncio.Event().wait()
        return 202

    webhook.answer = never_the_first
    await broker.load(config(webhook.url))
    send(broker, "1")
    received = await webhook.wait(2)
    assert [request.json["payload"] for request in received] == ["1", "1"]
    await until(lambda: metrics(broker)["success"] == 1)
    assert metrics(broker)["failed"] == 0


async def test_a_message_about_to_go_into_a_reset_connection_is_lost(
    broker: StandIn, webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    """EMQX's `{error, einval}`: its publisher holds a PUBACK all the same."""
    await broker.load(config(webhook.url, connector="pool_size = 1"))
    send(broker, "0")
    (first,) = await webhook.wait(1)
    await until(lambda: metrics(broker)["success"] == 1)
    first.break_off()  # the kernel knows, the event loop not yet
    send(broker, "1")
    await until(lambda: metrics(broker)["failed"] == 1)
    assert "einval" in caplog.text
    send(broker, "2")
    await until(lambda: metrics(broker)["success"] == 2)
    assert [request.json["payload"] for request in webhook.received] == ["0", "2"]
    counted = metrics(broker)
    assert counted["matched"] == counted["success"] + counted["failed"] + counted["dropped"]


async def test_gauges_lag(
    broker: StandIn, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(action, "GAUGES", 0.3)
    webhook.answer = Scripted(lambda _: 503)
    await broker.load(config(webhook.url))
    send(broker, "1", "2")
    await webhook.wait(1)
    told = broker.resources.action("lab").metrics
    assert told()["inflight"] == told()["queuing"] == 0
    await until(lambda: told()["inflight"] == told()["queuing"] == 1)
    webhook.answer = accept
    await until(lambda: told()["success"] == 2)
    assert told()["inflight"] + told()["queuing"] > 0
    await until(lambda: told()["inflight"] + told()["queuing"] == 0)


async def test_past_request_ttl_a_message_is_gone(
    broker: StandIn, webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    webhook.answer = Scripted(lambda payload: 503 if payload == "old" else None)
    await broker.load(config(webhook.url, ttl="200ms"))
    send(broker, "old", "old")
    await until(lambda: metrics(broker)["dropped.expired"] == 2)
    assert metrics(broker)["dropped"] == 2
    assert metrics(broker)["failed"] == 0
    assert broker.resources.rule("lab").metrics()["actions.failed"] == 2
    assert "request_ttl" in caplog.text
    send(broker, "new")
    await until(lambda: metrics(broker)["success"] == 1)


async def test_an_answer_past_request_ttl_counts_as_late(broker: StandIn, webhook: Webhook) -> None:
    async def slow(_: Received) -> int:
        await asyncio.sleep(0.2)
        return 202

    webhook.answer = slow
    await broker.load(config(webhook.url, ttl="100ms"))
    send(broker, "1")
    await until(lambda: metrics(broker)["late_reply"] == 1)
    assert metrics(broker)["success"] == metrics(broker)["inflight"] == 0


async def test_a_503_for_one_message_holds_up_only_its_buffer(
    broker: StandIn, webhook: Webhook
) -> None:
    webhook.answer = answer = Scripted(lambda payload: 503 if payload == "bad" else None)
    await broker.load(config(webhook.url))
    sources = [f"dev{number}" for number in range(64)]
    send(broker, "bad", source="dev0")
    for source in sources:
        send(broker, source, source=source)
    # All but the stalled buffer's go out: about one in sixteen stays.
    await until(lambda: len(answer.accepted) > len(sources) - 20)
    await until(lambda: len(answer.accepted) + metrics(broker)["queuing"] == len(sources))
    assert "dev0" not in answer.accepted


async def test_a_disabled_action_drops(broker: StandIn, webhook: Webhook) -> None:
    await broker.load(config(webhook.url) + "\nactions.http.lab.enable = false")
    send(broker, "1")
    assert metrics(broker)["dropped.resource_stopped"] == 1
    assert broker.resources.action("lab").status == "disconnected"


async def test_a_quoted_placeholder_in_a_header_goes_out_as_undefined(
    broker: StandIn, webhook: Webhook
) -> None:
    headers = 'headers { authorization = "Bearer ${WEBHOOK_TOKEN}", x-from = "${clientid}" }'
    await broker.load(config(webhook.url, connector=headers))
    send(broker, "1")
    (request,) = await webhook.wait(1)
    assert request.headers["authorization"] == "Bearer undefined"
    assert request.headers["x-from"] == "dev"


async def test_a_message_cannot_add_a_header(broker: StandIn, webhook: Webhook) -> None:
    await broker.load(config(webhook.url, connector='headers { x-text = "${payload}" }'))
    send(broker, "a\r\nx-evil: 1")
    (request,) = await webhook.wait(1)
    assert "x-evil" not in request.headers
    assert request.headers["x-text"] == "a  x-evil: 1"


async def test_a_body_template_is_not_escaped(broker: StandIn, webhook: Webhook) -> None:
    await broker.load(
        config(webhook.url)
        + '\nactions.http.lab.parameters { body = "{\\"text\\": \\"${payload}\\"}" }'
    )
    send(broker, 'a "quote"')
    (request,) = await webhook.wait(1)
    assert request.body == b'{"text": "a "quote""}'


async def test_status_changes_are_logged_once(
    broker: StandIn, webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service.demo.standin.action")
    await broker.load(config(webhook.url))
    connector = broker.resources.connector("lab")
    await webhook.stop()
    await until(lambda: connector.status == "disconnected")
    await webhook.start()
    await until(lambda: connector.status == "connected")
    said = [record.getMessage().split(":")[2].split()[0] for record in caplog.records]
    assert said == ["connected", "nobody", "connected"]
