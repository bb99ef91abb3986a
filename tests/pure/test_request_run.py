"""One request's life, against a store, a model and a publisher in memory."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from service.answering.job import InHand
from service.answering.recent import Recents
from service.answering.redelivery import Redelivery
from service.answering.request_limits import Limits
from service.answering.request_run import RequestRunner
from service.answering.summaries import Summaries
from service.domain import Claimed, Ending, Publish, State, Turn
from service.errors import BudgetError, ErrorKind, ModelError
from service.flows import Catalogue, Edition
from service.llm.answers import Completion
from service.llm.tool_calls import ToolCall
from service.operations.events import Hub
from service.operations.health import Health
from service.operations.metrics import Metrics
from tests.fakes.answering import (
    FLOW,
    FakeAsker,
    FakePublisher,
    FakeStore,
    claimed,
    flows,
    refused,
    until,
)

STATUS = 'status = "light/${user}"\n'


class House:
    def __init__(self, text: str = FLOW, *script: Completion | Exception) -> None:
        self.store, self.asker, self.publisher = FakeStore(), FakeAsker(*script), FakePublisher()
        self.metrics, self.in_hand = Metrics(), InHand(asyncio.Event())
        self.health = Health(*[None] * 4)  # type: ignore[arg-type]
        self.now = 1000
        self.runner = RequestRunner(
            Catalogue(Edition(flows(text))),
            self.store,  # type: ignore[arg-type]
            self.asker,  # type: ignore[arg-type]
            self.publisher,  # type: ignore[arg-type]
            Hub(),
            self.metrics,
            self.in_hand,
            Redelivery(self.store, self.publisher, self.health, now=lambda: self.now),  # type: ignore[arg-type]
            Limits(self.store),  # type: ignore[arg-type]
            recents=Recents(
                Catalogue(Edition(flows(text))), self.store, now=lambda: self.now, most=0
            ),  # type: ignore[arg-type]
            summaries=Summaries(
                Catalogue(Edition(flows(text))), self.store, self.asker, now=lambda: self.now
            ),  # type: ignore[arg-type]
            now=lambda: self.now,
            max_attempts=3,
        )

    def begin(self, request: Claimed) -> asyncio.Task[None]:
        task = asyncio.create_task(self.runner.run(request))
        self.in_hand.take(request, task)
        return task

    async def run(self, payload: bytes = b"hi", **fields: Any) -> Ending | None:
        """A whole life; the answer that was stored, if one was."""
        await self.begin(claimed(payload, **fields))
        assert not self.in_hand.running
        return self.store.answers[-1] if self.store.answers else None

    @property
    def said(self) -> list[tuple[str, bytes]]:
        return [(message.topic, message.payload) for message in self.publisher.delivered]

    def ended(self, state: str, error: str = "") -> float:
        labels = {"flow": "x", "state": state, "error": error}
        return self.metrics.registry.get_sample_value("emqx_gpt_ended_total", labels) or 0.0


def passing(code: str = "model_timeout") -> ModelError:
    return ModelError("too slow", code=code, kind=ErrorKind.PASSING)


async def test_from_the_question_to_the_end() -> None:
    house = House(FLOW + STATUS)
    answer = await house.run()
    assert answer is not None
    assert (answer.outcome, answer.text, answer.usage.total_tokens) == (State.DONE, "well", 7)
    assert [attempt.result for attempt in answer.attempts] == ["ok"]
    assert [topic for topic, _ in house.said] == ["out/ada", "light/ada"]
    assert [message.topic for message in house.publisher.progress] == ["light/ada"]
    assert house.store.ends == [{"delivered": True, "held": None}]
    assert house.ended("done") == 1


async def test_its_place_is_free_while_the_reply_is_on_its_way() -> None:
    house = House()
    house.publisher.hold = asyncio.Event()
    task = house.begin(claimed())
    assert house.in_hand.asking
    await until(lambda: not house.in_hand.asking)
    assert house.store.answers
    assert house.in_hand.running  # its lease is kept
    house.publisher.hold.set()
    await task
    assert not house.in_hand.running


async def test_a_reply_that_was_stored_before_is_only_published() -> None:
    house = House()
    outbox = (Publish("out/ada", b"from before"),)
    await house.run(state=State.ANSWERED, outbox=outbox, outcome=State.DONE)
    assert (house.asker.asked, house.store.answers) == ([], [])
    assert house.said == [("out/ada", b"from before")]
    assert house.store.ends == [{"delivered": True, "held": None}]


async def test_a_refused_reply_is_told_and_ends_as_failed() -> None:
    house = House(FLOW + 'error = "errors/${user}"')
    house.publisher.refuse["out/ada"] = refused()
    await house.run()
    assert house.said[1] == ("errors/ada", b"No answer: EMQX refused a message.")
    (end,) = house.store.ends
    assert (end["outcome"], end["error_code"]) == (State.FAILED, "publish_refused")
    assert house.ended("failed", "publish_refused") == 1


async def test_a_refused_reply_is_told_also_where_the_request_had_failed() -> None:
    house = House(FLOW + 'on_error = "Look at it yourself."\nerror = "errors/${user}"', passing())
    house.publisher.refuse["out/ada"] = refused()
    answer = await house.run()
    assert answer is not None
    assert house.said == [
        ("out/ada", b"Look at it yourself."),
        ("errors/ada", b"No answer: EMQX refused a message."),
    ]
    assert house.ended("failed", "model_timeout") == 1


async def test_a_refused_failure_is_told_once() -> None:
    house = House(FLOW, ModelError("no", code="model_refused", kind=ErrorKind.REQUEST))
    house.publisher.refuse["out/ada"] = refused()
    await house.run()
    assert house.said == [("out/ada", b"No answer: no.")]
    assert house.ended("failed", "model_refused") == 1


@pytest.mark.parametrize("fate", ["nobody", "refused"])
async def test_a_light_is_no_reply(fate: str) -> None:
    """Of a flow that only acts, say: nobody misses its status, and it is not held."""
    house = House(FLOW.replace("reply", "status") + 'hold = "5m"')
    house.publisher.nobody = fate == "nobody"
    if fate == "refused":
        house.publisher.refuse["out/ada"] = refused()
    await house.run()
    (said,) = house.publisher.delivered
    assert b'"status":"completed"' in said.payload
    assert house.store.ends == [{"delivered": None, "held": None}]
    assert house.ended("done") == 1
    nobody = house.metrics.registry.get_sample_value("emqx_gpt_undelivered_total", {"flow": ""})
    assert not nobody


async def test_a_piece_that_is_refused_fails_the_reply() -> None:
    house = House(FLOW + "chunk = 40", Completion("one two " * 40, "m"))
    house.publisher.refuse_at = 2
    await house.run()
    assert house.store.ends[0]["error_code"] == "publish_refused"


async def test_a_budget_that_ends_after_a_tool_was_called_is_a_failure() -> None:
    over = BudgetError("all tokens of today are used up", "daily_tokens")
    tool = '[[flows.x.tools]]\nname = "lamp"\ndescription = "d"\ntopic = "lamp/set"\n'
    call = ToolCall("c1", "lamp", "{}")
    house = House(FLOW + tool, Completion("", "m", tool_calls=(call,)), over)
    answer = await house.run()
    assert answer is not None
    assert (answer.outcome, answer.error_code) == (State.FAILED, "limit")
    house = House(FLOW + tool, over)
    answer = await house.run()
    assert answer is not None
    assert (answer.outcome, answer.error_code) == (State.IGNORED, "limit")


async def test_a_lost_lease_stores_publishes_and_counts_nothing() -> None:
    house = House()
    house.store.lost = True
    assert await house.run() is None
    assert (house.said, house.ended("done")) == ([], 0)


async def test_a_busy_database_throws_no_answer_away() -> None:
    house = House()
    house.store.busy = 2
    assert await house.run() is not None
    assert (len(house.asker.asked), house.ended("done")) == (1, 1)


async def test_a_passing_failure_goes_back_to_the_inbox_with_its_attempts() -> None:
    house = House(FLOW, passing())
    assert await house.run() is None
    (later,) = house.store.later
    assert later["at"] > house.now
    assert (later["count"], later["error_code"]) == (True, "model_timeout")
    assert [attempt.result for attempt in later["attempts"]] == ["model_timeout"]
    assert house.said == []


async def test_the_last_failure_is_told() -> None:
    house = House(FLOW, passing())
    answer = await house.run(tries=2)
    assert answer is not None
    assert (answer.outcome, answer.error_code) == (State.FAILED, "model_timeout")
    assert house.said == [("out/ada", b"No answer: too slow.")]


async def test_a_provider_that_asks_to_wait_costs_no_try() -> None:
    wait = ModelError("slow down", code="rate", kind=ErrorKind.RATE, retry_after=5)
    house = House(FLOW, wait)
    assert await house.run(tries=2) is None
    assert house.store.later[0]["count"] is False


async def test_on_error_speaks_at_once_and_without_the_wake_word() -> None:
    keys = 'strip = "(.*bot)"\non_error = "Can\'t say: ${payload}"'
    house = House(FLOW + keys, passing())
    answer = await house.run(b"hey bot now")
    assert answer is not None
    assert (answer.outcome, answer.error_code) == (State.FAILED, "model_timeout")
    assert house.said == [("out/ada", b"Can't say: now")]


@pytest.mark.parametrize(
    ("keys", "fields", "state", "code"),
    [
        ("", {"payload": b""}, "ignored", "empty"),
        ('require = "bot"', {}, "ignored", "require"),
        ('cooldown = "5m"', {"ordered": True, "cooldown_until": 5000}, "ignored", "cooldown"),
        ("", {"deadline": 999}, "expired", "expired"),
        ("", {"claims": 6}, "failed", "worker_killed"),
        ("", {"payload": b"\xff"}, "failed", "undecodable"),
        ('input = "json"', {}, "failed", "not_json"),
    ],
)
async def test_what_is_not_asked(keys: str, fields: dict[str, Any], state: str, code: str) -> None:
    house = House(FLOW + keys)
    answer = await house.run(**fields)
    assert answer is not None
    assert (answer.outcome, answer.error_code) == (state, code)
    assert house.asker.asked == []
    assert house.ended(state, code) == 1
    assert bool(house.said) == (state != "ignored")


async def test_an_unknown_flow_ends_without_a_word() -> None:
    house = House()
    answer = await house.run(flow="gone")
    assert answer is not None
    assert (answer.outcome, answer.error_code) == (State.FAILED, "flow_unknown")
    assert (house.said, house.store.ends) == ([], [])


async def test_an_internal_error_is_tried_again_and_then_a_dead_letter(
    caplog: pytest.LogCaptureFixture,
) -> None:
    house = House(FLOW, RuntimeError("of a test"))
    assert await house.run() is None
    assert house.store.later[0]["error_code"] == "internal"
    house = House(FLOW, RuntimeError("of a test"))
    answer = await house.run(tries=2)
    assert answer is not None
    assert (answer.outcome, answer.error_code, answer.outbox) == (State.FAILED, "internal", ())
    assert "of a test" in caplog.text  # the trace is for the operator


async def test_memory_is_read_and_written() -> None:
    house = House(FLOW + 'history = { messages = 4, reset = "forget" }')
    turns = tuple(Turn(f"q{n}", f"a{n}", 1000) for n in range(3))
    answer = await house.run(ordered=True, turns=turns)
    said = [message["content"] for message in house.asker.asked[0].messages]
    assert said == ["q1", "a1", "q2", "a2", "hi"]
    assert answer is not None
    assert answer.turn is not None
    assert (answer.turn.user, answer.turn.assistant, answer.keep_turns) == ("hi", "well", 2)
    answer = await house.run(b"forget")
    assert answer is not None
    assert (answer.forget, answer.turn, len(house.asker.asked)) == (True, None, 1)


async def test_over_a_limit_the_model_is_not_asked() -> None:
    house = House(FLOW + 'limit = "1/h"')
    await house.run()
    assert not house.store.settled
    house.store.over = "limit:x:ada"
    answer = await house.run()
    assert answer is not None
    assert (answer.outcome, answer.error_code) == (State.IGNORED, "limit")
    assert house.said[-1] == ("out/ada", b"No answer: too many requests, wait a little.")


async def test_who_is_cancelled_lets_go_and_stores_nothing() -> None:
    house = House()
    house.publisher.hold = asyncio.Event()
    task = house.begin(claimed())
    await until(lambda: house.store.answers)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (house.in_hand.running, house.store.ends) == ({}, [])


async def test_the_end_is_one_log_line_with_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "emqx-gpt.requests")
    house = House()
    await house.run()
    (record,) = [one for one in caplog.records if one.name == "emqx-gpt.requests"]
    assert record.getMessage() == "request r1 done flow=x took=1.000s tokens=7"
    fields = {name: getattr(record, name) for name in ("request", "flow", "state", "seconds")}
    assert fields == {"request": "r1", "flow": "x", "state": "done", "seconds": 1.0}


@pytest.mark.parametrize(
    ("keys", "back", "held"),
    [
        ('hold = "5m"', False, (2000, 301_000)),
        ('hold = "5m"\nexpiry = "1m"', False, (2000, 61_000)),
        ('hold = "500ms"', False, (1500, 1500)),
        ('hold = "5m"\nretain = true', False, None),
        ("", False, None),
        ("", True, (2000, 61_000)),
    ],
)
async def test_a_reply_that_found_nobody_is_held(
    keys: str, back: bool, held: tuple[int, int] | None
) -> None:
    house = House(FLOW + keys)
    if back:  # an outage of the broker is just over
        house.health.back()
    house.publisher.nobody = True
    await house.run()
    assert house.store.ends == [{"delivered": False, "held": held}]
