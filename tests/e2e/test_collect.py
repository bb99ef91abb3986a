"""Many messages, one request: durable from the first of them, in order, each asked about once."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.test_reload import take
from tests.fakes.model import gate, hang, ok, status
from tests.rig import Rig, counter, message, rig

FLOWS = """
[flows.cold]
request = "cold/${device}/state"
reply = "cold/${device}/judged"
prompt = "Judge ${device} by ${collected.count} (mean ${collected.t.mean}):\\n${collected}"
collect = { every = "30s", messages = 4, size = "1 KB" }
"""


async def publish(house: Rig, device: str, *degrees: int, first: int = 0) -> None:
    for number, t in enumerate(degrees):
        await house.webhook(
            {
                "flow": "cold",
                "id": f"{device}-{first + number}",
                "topic": f"cold/{device}/state",
                "payload": json.dumps({"t": t}),
                "publish_received_at": house.clock() + first + number,
            }
        )


def degrees(call: Any) -> list[int]:
    """What a call tells of, in its order."""
    lines = call.text.splitlines()
    table = lines[lines.index("time (UTC),t") + 1 :]
    return [int(line.split(",")[1]) for line in table if line[2:3] == ":"]


async def test_what_came_in_some_time_is_one_request_for_each_key(any_database):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("cold/+/judged") as client:
        house.model.behave(lambda body: ok("fine"))
        await publish(house, "a", 1, 2, 3)
        await publish(house, "b", 9)
        assert [one["state"] for one in await house.stored(4)] == ["queued"] * 4
        await house.move(29_000)
        assert not house.model.calls
        await house.move(1_500)
        heard = {(await message(client)) for _ in range(2)}
        assert heard == {("cold/a/judged", b"fine"), ("cold/b/judged", b"fine")}
        calls = {call.text.split()[1]: call for call in house.model.calls}
        assert calls["a"].text.startswith("Judge a by 3 (mean 2):\n")
        assert (degrees(calls["a"]), degrees(calls["b"])) == ([1, 2, 3], [9])
        rows = await house.ended(4)
        (asked,) = [one for one in rows if one["topic"] == "cold/a/state" and one["said"]]
        others = [one for one in rows if one["topic"] == "cold/a/state" and one is not asked]
        assert {(one["state"], one["error"]["code"]) for one in others} == {
            ("ignored", "collected")
        }
        assert all(asked["id"] in one["error"]["message"] for one in others)
        text = (await house.http.get("/metrics")).text
        assert counter(text, "emqx_gpt_calls_saved_total", flow="cold", how="collected") == 2
        assert counter(text, "emqx_gpt_ended_total", flow="cold") == 4


async def test_a_full_batch_waits_no_longer_and_what_comes_during_the_call_goes_into_the_next(
    any_database,
):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("cold/+/judged") as client:
        house.model.script(hang())
        await publish(house, "a", 1, 2, 3, 4)
        await house.model.wait_for_calls(1)
        await publish(house, "a", 5, 6, first=4)
        house.model.release()
        await message(client)
        assert len(house.model.calls) == 1  # two are not enough
        await house.move(30_500)
        await message(client)
        assert [degrees(call) for call in house.model.calls] == [[1, 2, 3, 4], [5, 6]]


async def test_a_burst_becomes_many_batches_in_order_and_loses_nothing(any_database):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("cold/+/judged") as client:
        await publish(house, "a", *range(400))
        for _ in range(100):
            await message(client)
        told = [degrees(call) for call in house.model.calls]
        assert sum(told, []) == list(range(400))
        assert {len(one) for one in told} == {4}


async def test_a_batch_has_no_more_than_its_bytes(any_database):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("cold/+/judged") as client:
        for number in range(3):
            body = {"flow": "cold", "id": f"m{number}", "topic": "cold/a/state"}
            at = house.clock() + number
            payload = json.dumps({"t": number, "more": ["x" * 450]})
            await house.webhook({**body, "payload": payload, "publish_received_at": at})
        await message(client)  # with the third one it is full, which then is too much
        await house.move(30_500)
        await message(client)
        assert [degrees(call) for call in house.model.calls] == [[0, 1], [2]]


async def test_one_that_comes_again_counts_once(any_database):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("cold/+/judged") as client:
        for _ in range(3):
            await publish(house, "a", 1, 2)
        await house.move(30_500)
        await message(client)
        assert [degrees(call) for call in house.model.calls] == [[1, 2]]


async def test_a_crash_loses_none_and_asks_about_none_twice(any_database, quick):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("cold/+/judged") as client:
        house.model.script(hang())
        await publish(house, "a", 1, 2, 3, 4)
        await house.model.wait_for_calls(1)
        await publish(house, "a", 5, first=4)
        await house.crash()
        house.model.release()
        async with house.replica():
            await house.move(31_000)
            await message(client)
            await house.move(31_000)
            await message(client)
        assert degrees(house.model.calls[-2]) == [1, 2, 3, 4]  # what it was asked before
        assert degrees(house.model.calls[-1]) == [5]


async def test_a_batch_that_fails_is_a_dead_letter_that_can_be_asked_again_as_it_was(
    any_database, quick
):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("cold/+/judged") as client:
        house.model.behave(lambda body: status(400))
        await publish(house, "a", 1, 2, 3, 4)
        (dead,) = [one for one in await house.ended(4) if one["state"] == "failed"]
        await message(client)  # that there is no answer
        house.model.behave(lambda body: ok("fine"))
        answer = await house.http.post(f"/requests/{dead['id']}/retry")
        assert answer.status_code == 202, answer.text
        assert (await message(client))[1] == b"fine"
        assert [degrees(call) for call in house.model.calls] == [[1, 2, 3, 4]] * 2


async def test_who_lacks_the_key_is_mixed_with_nobody(any_database):
    flows = FLOWS.replace('messages = 4, size = "1 KB"', 'by = "${payload.site}"').replace(
        'reply = "cold/${device}/judged"', 'reply = "judged"'
    )
    async with rig(any_database, flows=flows) as house, house.mqtt("judged") as client:
        for number, (who, site) in enumerate((("x", "n"), ("y", "n"), ("x", ""), ("y", ""))):
            body = {"flow": "cold", "id": f"m{number}", "topic": "cold/a/state", "clientid": who}
            payload = {"t": number} | ({"site": site} if site else {})
            at = house.clock() + number
            await house.webhook({**body, "payload": json.dumps(payload), "publish_received_at": at})
        await house.move(30_500)
        for _ in range(3):
            await message(client)
        counts = sorted(call.text.split()[3] for call in house.model.calls)
        assert counts == ["1", "1", "2"]


async def test_nobody_asks_such_a_flow_over_http(database):
    async with rig(database, flows=FLOWS) as house:
        answer = await house.http.post("/ask/cold", json={"text": "?"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "collects")


async def test_a_batch_whose_time_is_over_ends_as_one_and_is_asked_again_as_one(database, quick):
    async with (
        rig(database, flows=FLOWS, max_attempts=50) as house,
        house.mqtt("cold/+/judged") as client,
    ):
        house.model.behave(lambda body: status(429, headers={"retry-after": "200"}))
        await publish(house, "a", 1, 2, 3, 4)
        await house.model.wait_for_calls(1)
        await house.move(1_000_000)
        ends = await house.ended(4)
        assert sorted(one["state"] for one in ends) == ["expired", *["ignored"] * 3]
        assert (await message(client))[1] == b"No answer: no answer came in time."
        assert client.messages.empty()
        house.model.behave(lambda body: ok("fine"))
        asked = len(house.model.calls)
        (dead,) = [one for one in ends if one["state"] == "expired"]
        (await house.http.post(f"/requests/{dead['id']}/retry")).raise_for_status()
        await message(client)
        assert [degrees(call) for call in house.model.calls[asked:]] == [[1, 2, 3, 4]]


async def test_what_came_before_collect_takes_nothing_of_the_line(database):
    plain = FLOWS.split("collect =")[0]
    plain = plain.replace("${collected.count} (mean ${collected.t.mean}):\\n${collected}", "x")
    async with rig(database, flows=plain) as house, house.mqtt("cold/+/judged"):
        (await house.http.post("/flows/cold/pause")).raise_for_status()
        await publish(house, "a", 1)
        await house.stored(1)
        assert take(house, FLOWS)
        await publish(house, "a", 2, 3, first=1)
        await house.stored(3)
        held = gate(ok("late"))
        house.model.script(held)
        (await house.http.post("/flows/cold/resume")).raise_for_status()
        await house.model.wait_for_calls(1)
        await house.move(31_000, holding=True)
        await house.model.wait_for_calls(2)
        held.release()
        await house.ended(3)
        assert [degrees(call) for call in house.model.calls] == [[1], [2, 3]]
