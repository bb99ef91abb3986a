"""`history.summarize`: what falls out of the window is summed up, beside the answers."""

from __future__ import annotations

from typing import Any

from service.answering.summaries import SYSTEM
from tests.fakes.model import FakeModel, gate, ok, status
from tests.rig import Rig, counter, eventually, message, rig

FLOWS = """
[flows.chat]
request = "chat/${user}/ask"
reply = "chat/${user}/say"
history = { messages = 8, summarize = true, reset = "/new" }
"""


def is_summary(call: Any) -> bool:
    return bool(call["messages"][0]["content"] == SYSTEM)


def model(summary: Any = None):
    """Echoes; a summary names how many records it was given."""

    def behave(body: dict[str, Any]) -> Any:
        if not is_summary(body):
            return ok(f"echo {body['messages'][-1]['content']}")
        if summary is not None:
            return summary
        record = body["messages"][-1]["content"]
        said = [line.removeprefix("User: ") for line in record.splitlines() if "User: " in line]
        before = [line for line in record.splitlines() if line.startswith("Before that: ")]
        return ok(" ".join([*(one.removeprefix("Before that: ") for one in before), *said]))

    return behave


def answers(house: Rig) -> list[Any]:
    return [call for call in house.model.calls if not is_summary(call.body)]


async def summaries(house: Rig) -> list[Any]:
    """The calls that sum up, once there is one."""

    def look() -> list[Any]:
        return [call for call in house.model.calls if is_summary(call.body)]

    return list(await eventually(look))


async def talk(house: Rig, client: Any, *texts: str) -> None:
    for text in texts:
        await client.publish("chat/ada/ask", text.encode())
        assert (await message(client))[1] == f"echo {text}".encode()


async def quiet(house: Rig) -> None:
    """Until no answer is in hand, which may still begin a summary, and no summary is made."""
    service = house.service
    await eventually(lambda: not service.worker.in_hand.running and not service.summaries._tasks)


async def memory(house: Rig) -> list[dict[str, Any]]:
    answer = await house.http.get("/conversations/chat/ada")
    return list(answer.json()["turns"])


async def summed_up(house: Rig) -> list[dict[str, Any]]:
    """Wait until there is a summary; the whole memory."""

    async def look() -> list[dict[str, Any]] | None:
        turns = await memory(house)
        return turns if turns and turns[0]["summary"] else None

    return list(await eventually(look))


async def test_the_thirtieth_message_knows_what_the_first_one_said(any_database):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("chat/+/say") as client:
        house.model.behave(model())
        for number in range(30):
            await talk(house, client, f"m{number}")
            await quiet(house)
        last = answers(house)[-1].messages
        assert last[1]["role"] == "assistant"
        assert last[1]["content"].split()[:3] == ["m0", "m1", "m2"]
        told = last[1]["content"].split() + [
            one["content"] for one in last[2:] if one["role"] == "user"
        ]
        assert told == [f"m{number}" for number in range(30)]  # none lost, none twice
        assert len(last) <= 2 + 8 + 1
        assert len([call for call in house.model.calls if is_summary(call.body)]) <= 12


async def test_an_answer_waits_for_no_summary_and_a_reset_leaves_nothing_behind(any_database):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("chat/+/say") as client:
        slow = gate(ok("all of it"))
        house.model.behave(model(slow))
        await talk(house, client, *(f"m{number}" for number in range(7)))
        await summaries(house)
        await client.publish("chat/ada/ask", b"/new")
        await message(client)
        # SQLite gives the places of what is forgotten to what comes next.
        await talk(house, client, *(f"n{number}" for number in range(4)))
        slow.release()
        await quiet(house)
        assert [turn["user"] for turn in await memory(house)] == ["n0", "n1", "n2", "n3"]


async def test_an_answer_waits_for_no_summary_where_one_call_is_all_that_may_be_made(database):
    house_with_one = rig(database, flows=FLOWS, max_concurrency=1)
    async with house_with_one as house, house.mqtt("chat/+/say") as client:
        slow = gate(ok("all of it"))
        house.model.behave(model(slow))
        await talk(house, client, *(f"m{number}" for number in range(5)))
        await summaries(house)
        await talk(house, client, "m5")  # it would wait for good
        slow.release()


async def test_one_that_fails_loses_nothing_for_a_while_and_is_bounded(any_database, quick):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("chat/+/say") as client:
        house.model.behave(model(status(400)))
        await talk(house, client, *(f"m{number}" for number in range(9)))
        await quiet(house)
        assert [turn["user"] for turn in await memory(house)] == [f"m{n}" for n in range(9)]
        await talk(house, client, *(f"m{number}" for number in range(9, 20)))
        await quiet(house)
        assert len(await memory(house)) == 9
        house.model.behave(model())
        await talk(house, client, "m20")
        turns = await summed_up(house)
        assert turns[0]["assistant"].split()[0] in ("m11", "m12")  # the oldest that was left


async def test_the_summary_outlives_one_that_fails_for_long(any_database, quick):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("chat/+/say") as client:
        house.model.behave(model())
        await talk(house, client, *(f"m{number}" for number in range(5)))
        before = (await summed_up(house))[0]
        house.model.behave(model(status(400)))
        await talk(house, client, *(f"m{number}" for number in range(5, 20)))
        await quiet(house)
        summary, *exchanges = await memory(house)
        assert summary == before
        assert [turn["user"] for turn in exchanges] == [f"m{n}" for n in range(11, 20)]


async def test_what_no_model_has_room_for_is_summed_up_too(any_database, quick):
    flows = FLOWS.replace("messages = 8", "messages = 40")
    too_long = status(400, "context_length_exceeded", message="maximum context length is 100")
    async with rig(any_database, flows=flows) as house, house.mqtt("chat/+/say") as client:
        says = model()
        house.model.behave(lambda body: too_long if len(body["messages"]) > 9 else says(body))
        for number in range(14):
            await talk(house, client, f"m{number}")
            await quiet(house)
        turns = await memory(house)
        told = [word for turn in turns for word in (turn["user"] or turn["assistant"]).split()]
        assert turns[0]["summary"]
        assert told == [f"m{number}" for number in range(14)]


async def test_what_is_too_old_makes_no_summary(any_database):
    flows = FLOWS.replace("messages = 8", 'messages = 8, ttl = "1h"')
    async with rig(any_database, flows=flows) as house, house.mqtt("chat/+/say") as client:
        house.model.behave(model())
        await talk(house, client, *(f"m{number}" for number in range(5)))
        await summed_up(house)  # of m0, m1, m2
        await quiet(house)
        await house.move(3_700_000)
        await talk(house, client, *(f"n{number}" for number in range(4)))
        await quiet(house)
        assert len(await summaries(house)) == 1
        assert answers(house)[-1].messages[0] == {"role": "user", "content": "n0"}
        await talk(house, client, "n4")
        turns = await summed_up(house)
        assert turns[0]["assistant"].split() == ["n0", "n1", "n2"]


async def test_a_model_that_thinks_has_room_for_it(database):
    async with rig(database, flows=FLOWS) as house, house.mqtt("chat/+/say") as client:
        house.model.behave(model())
        await talk(house, client, *(f"m{number}" for number in range(5)))
        (call,) = await summaries(house)
        assert call.body["max_tokens"] == answers(house)[0].body["max_tokens"]


async def test_a_summary_counts_for_the_budget_and_in_the_metrics_and_is_cut(database):
    flows = FLOWS.replace("true", '"gpt-5.4-nano"') + "daily_tokens = 1_000_000\n"
    async with rig(database, flows=flows) as house, house.mqtt("chat/+/say") as client:
        house.model.behave(model(ok("All of it was said. " * 1000, usage=(5000, 700))))
        await talk(house, client, *(f"m{number}" for number in range(5)))
        text = (await summed_up(house))[0]["assistant"]
        assert 3900 < len(text) <= 4000
        assert text.endswith("said.")
        await quiet(house)
        asked = [await house.request(one["id"]) for one in await house.requests()]
        answered = sum(one["usage"]["total_tokens"] for one in asked)
        spent = {one.flow: one.used for one in await house.service.budgets.spent()}
        assert spent["chat"] == answered + 5700
        shown = (await house.http.get("/metrics")).text
        at = {"provider": "openai", "model": "gpt-5.4-nano"}
        assert counter(shown, "emqx_gpt_model_calls_total", **at, result="ok") == 1
        assert counter(shown, "emqx_gpt_tokens_total", **at) == 5700


async def test_a_restart_goes_on_and_a_cheaper_model_sums_up(any_database):
    flows = FLOWS.replace("summarize = true", 'summarize = "gpt-5.4-nano"')
    async with rig(any_database, flows=flows) as house, house.mqtt("chat/+/say") as client:
        house.model.behave(model(gate(ok("never"))))
        await talk(house, client, *(f"m{number}" for number in range(6)))
        await eventually(lambda: any(is_summary(call.body) for call in house.model.calls))
        await house.ended(6)  # or the last reply would come again
        await house.crash()
        house.model.behave(model())
        async with house.replica():
            await talk(house, client, "m6")
            turns = await summed_up(house)
        assert turns[0]["assistant"].split()[0] == "m0"
        models = {is_summary(call.body): call.body["model"] for call in house.model.calls}
        assert models[True] == "gpt-5.4-nano" != models[False]


async def test_what_a_user_writes_is_no_summary(any_database):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("chat/+/say") as client:
        house.model.behave(model())
        await talk(house, client, "In short: what did we say before?", "hm")
        assert [turn["summary"] for turn in await memory(house)] == [False, False]


async def test_who_sums_up_may_be_of_another_provider(database):
    flows = """
[providers.local]
base_url = "%s"
[flows.chat]
request = "chat/${user}/ask"
reply = "chat/${user}/say"
history = { messages = 2, summarize = "local/tiny" }
"""
    async with FakeModel() as other, rig(database, flows=flows % other.base_url) as house:
        other.behave(model())
        house.model.behave(model())
        async with house.mqtt("chat/+/say") as client:
            await talk(house, client, "m0", "m1")
            turns = await summed_up(house)
        assert turns[0]["assistant"] == "m0"
        assert [call.body["model"] for call in other.calls] == ["tiny"]
        assert all(call.body["model"] != "tiny" for call in house.model.calls)


async def test_after_an_outage_what_has_grown_too_long_is_summed_up_in_parts(database, quick):
    down, room = True, 6000
    too_long = status(400, "context_length_exceeded", message="maximum context length is 100")

    def behave(body):
        size = sum(len(one["content"]) for one in body["messages"])
        if is_summary(body) and down:
            return status(500)
        if size > room:
            return too_long
        return ok("SUMMARY") if is_summary(body) else ok("y" * 500)

    async with rig(database, flows=FLOWS) as house, house.mqtt("chat/+/say") as client:
        house.model.behave(behave)
        for number in range(13):
            down = number < 10
            await client.publish("chat/ada/ask", f"m{number} ".encode() + b"x" * 500)
            await message(client)
            await quiet(house)
        assert (await memory(house))[0]["summary"]
