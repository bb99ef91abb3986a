"""The tool loop against a store, a model and a publisher in memory."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from service.answering.job import Job, LostLease
from service.answering.tool_loop import ROUNDS, ToolLoop
from service.errors import ModelError
from service.llm.answers import Completion, ToolCall
from service.llm.attempts import Log
from service.mqtt.templates import Scope
from tests.fakes.answering import (
    FLOW,
    FakeAsker,
    FakePublisher,
    FakeStore,
    claimed,
    flow,
    refused,
)

TOOLS = (
    FLOW
    + """
[[flows.x.tools]]
name = "light"
description = "Switch a lamp"
topic = "lamp/${room}/set"
[flows.x.tools.parameters]
type = "object"
required = ["room"]
properties.room = { type = "string" }

[[flows.x.tools]]
name = "door"
description = "Open the door, once"
topic = "door/set"
at_most_once = true
"""
)
SCHEMA = FLOW + 'schema = { type = "object", required = ["n"] }'


def calls(*names: str, arguments: str = '{"room": "attic"}') -> Completion:
    made = tuple(ToolCall(f"c{n}", name, arguments) for n, name in enumerate(names))
    return Completion("", "m", tool_calls=made)


class House:
    def __init__(self, text: str, *script: Completion | Exception, **fields: Any) -> None:
        self.store, self.asker, self.publisher = FakeStore(), FakeAsker(*script), FakePublisher()
        request = claimed(**fields)
        scope = Scope(request.message, {"user": "ada"})
        self.job = Job(request, flow(text), {"user": "ada"}, scope, Log("r1", lambda: 0))
        self.loop = ToolLoop(self.store, self.asker, self.publisher, now=lambda: 0)

    async def run(self) -> str:
        messages = [{"role": "user", "content": "hi"}]
        return (await self.loop.run(self.job, messages, None)).completion.text

    def results(self) -> list[str]:
        """What the model was told of its calls, last."""
        told = [one for one in self.asker.asked[-1].messages if one["role"] == "tool"]
        return [one["content"] for one in told]


async def test_without_tools_one_question_is_all() -> None:
    house = House(FLOW)
    assert await house.run() == "well"
    assert (len(house.asker.asked), house.store.steps) == (1, [])


async def test_a_round_is_stored_before_and_after_it_is_carried_out() -> None:
    house = House(TOOLS, calls("light", "door"))
    assert await house.run() == "well"
    before, after = house.store.steps
    assert "results" not in before[0]
    assert after[0]["results"] == ["done", "done"]
    assert [message.topic for message in house.publisher.delivered] == [
        "lamp/attic/set",
        "door/set",
    ]
    assert orjson.loads(house.publisher.delivered[0].payload)["call_id"] == "r1-0-0"
    assert house.results() == ["done", "done"]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (calls("window"), "error: there is no tool 'window'"),
        (calls("light", arguments="{"), "error: the arguments are not JSON"),
        (calls("light", arguments="{}"), 'error: $: "room" is a required property'),
        (calls("light", arguments='{"room": "a/b"}'), "error: ${room} contains a character"),
    ],
)
async def test_what_can_not_be_carried_out_is_told(call: Completion, told: str) -> None:
    house = House(TOOLS, call)
    assert await house.run() == "well"
    assert house.results()[0].startswith(told)
    assert house.publisher.delivered == []


async def test_a_refused_command_is_told() -> None:
    house = House(TOOLS, calls("light"))
    house.publisher.refuse["lamp/attic/set"] = refused()
    assert await house.run() == "well"
    assert house.results() == ["error: EMQX refused a message"]


async def test_rounds_are_bounded_and_the_last_must_say_something() -> None:
    house = House(TOOLS, *[calls("light")] * (ROUNDS + 1))
    with pytest.raises(ModelError, match="no answer in 6 rounds") as caught:
        await house.run()
    assert caught.value.code == "model_rounds"
    assert len(house.publisher.delivered) == ROUNDS
    choices = [question.options.get("tool_choice") for question in house.asker.asked]
    assert choices == [None] * ROUNDS + ["none"]


async def test_a_round_that_an_earlier_process_began_is_finished_not_repeated() -> None:
    began = {
        "text": "",
        "calls": [
            {"id": "c0", "call_id": "r1-0-0", "name": "light", "arguments": '{"room": "attic"}'},
            {"id": "c1", "call_id": "r1-0-1", "name": "door", "arguments": "{}"},
        ],
    }
    house = House(TOOLS, steps=(began,))
    assert await house.run() == "well"
    assert [message.topic for message in house.publisher.delivered] == ["lamp/attic/set"]
    done, unknown = house.results()
    assert done == "done"
    assert unknown.startswith("unknown: interrupted")
    assert len(house.store.steps) == 1


async def test_who_lost_its_lease_carries_nothing_out() -> None:
    house = House(TOOLS, calls("light"))
    house.store.lost = True
    with pytest.raises(LostLease):
        await house.run()
    assert house.publisher.delivered == []


async def test_the_model_may_correct_itself_once() -> None:
    house = House(SCHEMA, Completion("n is 5", "m"), Completion('```json\n{"n": 5}\n```', "m"))
    assert await house.run() == '{"n":5}'
    assert "did not fit the JSON Schema" in house.asker.asked[1].messages[-1]["content"]
    house = House(SCHEMA, *[Completion("no", "m")] * 3)
    with pytest.raises(ModelError, match="schema") as caught:
        await house.run()
    assert caught.value.code == "model_schema"
    assert len(house.asker.asked) == 2


async def test_a_busy_database_is_waited_for() -> None:
    house = House(TOOLS, calls("light"))
    house.store.busy = 1
    assert await house.run() == "well"
    assert len(house.publisher.delivered) == 1
