"""Commands of which nobody knows what became: settled by a person before they are asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from service.domain import State
from service.inbox import Inbox, Settle, unsettled
from tests.inbox.make import Clock, claim_one, ended, loose

pytestmark = pytest.mark.usefixtures("store")
Step = dict[str, Any]


def call(call_id: str, **more: Any) -> Step:
    return {"id": "c", "call_id": call_id, "name": "lamp", "arguments": "{}", **more}


def finished(*call_ids: str, unknown: Sequence[str] = ()) -> Step:
    step: Step = {"calls": [call(id) for id in call_ids], "results": ["x"] * len(call_ids)}
    return step | ({"unsettled": list(unknown)} if unknown else {})


def interrupted(*stages: Step, **marks: Any) -> Step:
    return {"calls": [call(f"i{n}", **marks) for n in range(len(stages))], "stages": list(stages)}


async def dead(store: Inbox, *steps: Step, state: State = State.FAILED, **more: Any) -> str:
    await store.add(loose(**more))
    claimed = await claim_one(store)
    assert await store.checkpoint(claimed, steps)
    assert await store.save_ending(claimed, ended(state, error_code="model_refused"))
    return claimed.id


async def steps(store: Inbox, id: str) -> tuple[Any, ...]:
    row = await store.request(id)
    assert row is not None
    return row.steps


ONCE = {"once": True, "guarded": True}


@pytest.mark.parametrize(
    ("step", "open_"),
    [
        (finished("a", "b"), []),
        (finished("a", "b", unknown=["b"]), ["b"]),
        (interrupted({"sending": 1}, **ONCE), ["i0"]),
        (interrupted({"sending": 1}), []),  # it may be repeated
        (interrupted({"seal": "x", "asked": 1}, **ONCE), []),  # the person was only asked
        (interrupted({"sending": 1, "result": "done"}, **ONCE), []),
        (interrupted({"sending": 1, "result": "?", "unsettled": True}, {}, **ONCE), ["i0"]),
        ({"calls": [call("a", once=True, guarded=False)]}, ["a"]),  # no stage tells
        ({"calls": [call("a", once=True, guarded=True)]}, []),
        ({"calls": [call("a")]}, []),  # of an earlier version too
    ],
)
def test_what_is_unsettled(step: Step, open_: list[str]) -> None:
    assert [one["call_id"] for one in unsettled([finished("z"), step])] == open_


async def test_it_is_settled_once_and_only_then_retried(store: Inbox, clock: Clock) -> None:
    id = await dead(
        store, finished("a", "b", unknown=["a", "b"]), interrupted({"sending": 1}, **ONCE)
    )
    assert not await store.retry(id, deadline=2**50)
    assert await store.settle_calls(Settle(id, "committed", "a", "ada")) == 1
    assert await store.settle_calls(Settle(id, "refused", "a", "eve")) == 0
    assert not await store.retry(id, deadline=2**50)
    first, _ = await steps(store, id)
    assert first["unsettled"] == ["b"]
    assert first["settled"] == {"a": {"outcome": "committed", "by": "ada", "at": clock.now}}
    assert await store.settle_calls(Settle(id, "refused", None, "eve")) == 2
    settled, last = await steps(store, id)
    assert "unsettled" not in settled
    assert settled["settled"]["b"]["by"] == last["settled"]["i0"]["by"] == "eve"
    assert last["stages"] == [{"sending": 1}]
    assert await store.retry(id, deadline=2**50)
    assert await steps(store, id) == ()


async def test_the_word_of_one_person_counts(store: Inbox, other: Inbox) -> None:
    """Two processes at the same moment."""
    id = await dead(store, finished("a", unknown=["a"]))
    words = [Settle(id, "committed", None, "ada"), Settle(id, "refused", None, "eve")]
    counts = await asyncio.gather(store.settle_calls(words[0]), other.settle_calls(words[1]))
    assert sorted(counts) == [0, 1]
    [step] = await steps(store, id)
    assert step["settled"]["a"]["by"] == ("ada" if counts[0] else "eve")


async def test_nothing_is_settled_while_it_goes_on(store: Inbox) -> None:
    await store.add(loose())
    claimed = await claim_one(store)
    await store.checkpoint(claimed, [finished("a", unknown=["a"])])
    assert await store.settle_calls(Settle(claimed.id, "refused", None, "ada")) == 0
    assert await store.settle_calls(Settle("nobody", "refused", None, "ada")) == 0
    assert (await steps(store, claimed.id))[0]["unsettled"] == ["a"]


async def test_one_that_came_too_late_is_settled_too(store: Inbox) -> None:
    step = interrupted({"sending": 1}, **ONCE)
    id = await dead(store, step, state=State.EXPIRED)
    assert not await store.retry(id, deadline=2**50)
    assert await store.settle_calls(Settle(id, "refused", None, "ada")) == 1
    assert await store.retry(id, deadline=2**50)
