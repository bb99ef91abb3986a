"""The publisher against a broker in memory, with a policy of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from service.answering.publisher import Publisher, PublishPolicy
from service.domain import Publish
from service.errors import BrokerError
from service.operations.health import Health
from service.operations.metrics import Metrics
from tests.fakes.answering import FakeEmqx, refused, unavailable, until

SOON = PublishPolicy(lanes=1, bulk=3, first_pause=0.001, longest_pause=0.001)


def one(name: str, size: int = 1) -> Publish:
    return Publish(topic=name, payload=b"x" * size)


@contextlib.asynccontextmanager
async def publishing(
    emqx: FakeEmqx, policy: PublishPolicy = SOON
) -> AsyncIterator[tuple[Publisher, Health, Metrics]]:
    health, metrics = Health(None, emqx, None, None), Metrics()  # type: ignore[arg-type]
    publisher = Publisher(emqx, metrics, health, policy=policy)
    publisher.start()
    try:
        yield publisher, health, metrics
    finally:
        await publisher.close()


async def gathered(
    emqx: FakeEmqx, publisher: Publisher, *messages: Publish, go: bool = True
) -> list[asyncio.Task[list[bool | BrokerError | None]]]:
    """Deliveries that became ready while the only lane was busy."""
    emqx.open.clear()
    busy = asyncio.create_task(publisher.deliver([one("busy")]))
    await until(lambda: emqx.waiting == 1)
    tasks = [asyncio.create_task(publisher.deliver([message])) for message in messages]
    await until(lambda: publisher.waiting == len(messages))
    if go:
        emqx.open.set()
        await busy
    return tasks


def topics(emqx: FakeEmqx) -> list[list[str]]:
    return [[message.topic for message in call] for call in emqx.calls]


async def test_the_results_come_in_the_order_of_the_outbox() -> None:
    emqx = FakeEmqx()
    emqx.behave = lambda message: {"a": True, "b": False, "c": None}[message.topic]
    async with publishing(emqx) as (publisher, _, _):
        assert await publisher.deliver([one("c"), one("a"), one("b")]) == [None, True, False]
        assert await publisher.deliver([]) == []


async def test_what_is_ready_together_goes_out_in_bulks_of_the_policy() -> None:
    emqx = FakeEmqx()
    async with publishing(emqx) as (publisher, _, _):
        tasks = await gathered(emqx, publisher, *(one(str(n)) for n in range(5)))
        await asyncio.gather(*tasks)
    assert topics(emqx) == [["busy"], ["0", "1", "2"], ["3", "4"]]


async def test_a_bulk_is_bounded_in_bytes() -> None:
    emqx = FakeEmqx()
    policy = PublishPolicy(lanes=1, bulk=9, bulk_bytes=100)
    async with publishing(emqx, policy) as (publisher, _, _):
        tasks = await gathered(emqx, publisher, one("a", 60), one("b", 60), one("c", 500))
        await asyncio.gather(*tasks)
    assert topics(emqx) == [["busy"], ["a"], ["b"], ["c"]]


async def test_a_bulk_refused_for_one_takes_no_other_down() -> None:
    emqx = FakeEmqx()
    emqx.bulk_refused = True
    emqx.behave = lambda message: refused() if message.topic == "bad" else True
    async with publishing(emqx) as (publisher, _, metrics):
        tasks = await gathered(emqx, publisher, one("a"), one("bad"), one("b"))
        (a,), (bad,), (b,) = await asyncio.gather(*tasks)
        assert (a, b) == (True, True)
        assert isinstance(bad, BrokerError)
        labels = {"result": "publish_refused"}
        assert metrics.registry.get_sample_value("emqx_gpt_publishes_total", labels) == 1


async def test_an_outage_is_outlasted_and_told() -> None:
    emqx = FakeEmqx()
    emqx.away = unavailable()
    async with publishing(emqx) as (publisher, health, _):
        delivery = asyncio.create_task(publisher.deliver([one("a")]))
        await until(lambda: health.outage is not None and len(emqx.calls) >= 3)
        assert health.outage.code == "broker_unavailable"
        publisher.post(one("light"), of="r1")  # dropped: nobody misses it more than that
        emqx.away = None
        assert await delivery == [True]
        assert health.outage is None
        assert await publisher.deliver([one("b")], after="r1") == [True]
    assert "light" not in [message.topic for message in emqx.published]


async def test_one_that_can_not_be_dispatched_is_tried_again_and_holds_up_no_other() -> None:
    emqx = FakeEmqx()
    failures = iter([unavailable(), unavailable()])
    emqx.behave = lambda m: next(failures, True) if m.topic == "stuck" else True
    async with publishing(emqx) as (publisher, health, _):
        stuck, other = await gathered(emqx, publisher, one("stuck"), one("a"))
        assert await other == [True]
        assert await stuck == [True]
    assert [message.topic for message in emqx.published].count("stuck") == 3


async def test_a_reply_goes_out_behind_the_progress_of_its_request() -> None:
    emqx = FakeEmqx()
    emqx.open.clear()
    async with publishing(emqx) as (publisher, _, _):
        for number in range(3):
            publisher.post(one(f"delta{number}"), of="r1")
        reply = asyncio.create_task(publisher.deliver([one("reply")], after="r1"))
        other = asyncio.create_task(publisher.deliver([one("other")], after="r2"))
        await until(lambda: emqx.waiting == 2)  # the progress, and the other's reply
        emqx.open.set()
        await asyncio.gather(reply, other)
    said = [message.topic for message in emqx.published]
    assert said.index("delta0") < said.index("delta1") < said.index("delta2") < said.index("reply")


async def test_what_nobody_waits_for_any_more_is_not_published() -> None:
    emqx = FakeEmqx()
    async with publishing(emqx) as (publisher, _, _):
        gone, kept = await gathered(emqx, publisher, one("gone"), one("kept"), go=False)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        emqx.open.set()
        assert await kept == [True]
    assert topics(emqx) == [["busy"], ["kept"]]


async def test_once_is_one_try() -> None:
    emqx = FakeEmqx()
    emqx.away = unavailable()
    async with publishing(emqx) as (publisher, health, _):
        result = await publisher.send(one("door"), once=True)
        assert isinstance(result, BrokerError)
        assert (len(emqx.calls), health.outage) == (1, None)


async def test_an_internal_error_ends_one_message_and_no_lane() -> None:
    emqx = FakeEmqx()

    def behave(message: Publish) -> bool:
        if message.topic == "bad":
            raise RuntimeError("a fault that a test made")
        return True

    emqx.behave = behave
    async with publishing(emqx) as (publisher, _, _):
        tasks = await gathered(emqx, publisher, one("a"), one("bad"))
        (a,), (bad,) = await asyncio.gather(*tasks)
        assert a is True
        assert isinstance(bad, BrokerError)
        assert bad.code == "internal"
        assert await publisher.deliver([one("b")]) == [True]


@pytest.mark.parametrize(
    ("attempt", "least", "most"), [(1, 0.18, 0.32), (3, 0.7, 1.3), (99, 7, 13)]
)
def test_pauses_grow_to_a_bound(attempt: int, least: float, most: float) -> None:
    assert all(least <= PublishPolicy().pause(attempt) <= most for _ in range(50))
