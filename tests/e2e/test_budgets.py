"""Tokens and money of a day: however many ask at once, no more is spent than there is."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.model import FakeModel, hang, ok, reset, status
from tests.rig import eventually, message, rig

PRICES = """
[prices]
"gpt-test" = { input = 1.0, output = 10.0 }

[flows.chat]
request = "chat/${user}/ask"
reply = "chat/${user}/say"
model = "gpt-test"
%s
"""
DAY = 86_400_000
DOLLAR = 1_000_000


def billed(model: FakeModel) -> tuple[int, float]:
    """Tokens and dollars of all calls, as the fake server counts: each as dear as it may be."""
    tokens = usd = 0.0
    for call in model.calls:
        told = len(str(call.body["messages"]).encode()) // 2  # what a tokenizer may make of it
        said = call.body.get("max_tokens", call.body.get("max_completion_tokens", 10**9))
        tokens += told + said
        usd += (told * 1.0 + said * 10.0) / DOLLAR
    return int(tokens), usd


def dearest(body: dict[str, object]) -> object:
    told = len(str(body["messages"]).encode()) // 2
    said = body.get("max_tokens", body.get("max_completion_tokens", 10**9))
    return ok("x", usage=(told, said))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keys", "settings"),
    [
        ("daily_tokens = 20000\nmax_tokens = 300", {}),
        ("daily_usd = 0.05\nmax_tokens = 300", {}),
        ("max_tokens = 300", {"daily_tokens": 20_000}),
        ("max_tokens = 300", {"daily_usd": 0.05}),
        ("", {"daily_tokens": 200_000}),
    ],
)
async def test_200_at_once_in_two_processes_never_overspend(shared_database, keys, settings):
    settings = {"flows": PRICES % keys, **settings}
    async with rig(shared_database, **settings) as house, house.replica():
        house.model.behave(dearest)
        sent = [
            house.webhook({"id": f"q{n}", "topic": f"chat/u{n}/ask", "payload": f"question {n}"})
            for n in range(200)
        ]
        assert {answer.status_code for answer in await asyncio.gather(*sent)} == {202}
        ends = await house.ended(200)
        tokens, usd = billed(house.model)
        assert len(house.model.calls) > 3
        if "daily_usd" in keys or "daily_usd" in settings:
            assert usd <= 0.05
        else:
            assert tokens <= settings.get("daily_tokens", 20_000)
        codes = {one["error"]["code"] for one in ends if one.get("error")}
        assert codes == {"limit"}


async def test_the_installation_s_budget_is_named_in_the_log_and_opens_at_midnight(
    any_database, caplog
):
    async with (
        rig(any_database, flows=PRICES % "max_tokens = 500", daily_tokens=2_000) as house,
        house.mqtt("chat/+/say") as client,
    ):
        house.model.behave(dearest)
        heard = []
        for _ in range(8):
            await client.publish("chat/ada/ask", b"x")
            heard.append((await message(client))[1])
        assert heard[0] == b"x"
        assert heard[-1] == b"No answer: all tokens of today are used up."
        lines = [line for line in caplog.messages if "DAILY_TOKENS is used up" in line]
        assert len(lines) == 1
        await house.move(DAY)
        await client.publish("chat/ada/ask", b"x")
        assert (await message(client))[1] == b"x"


async def test_what_failed_unheard_counts_and_what_was_refused_does_not(any_database, quick):
    flows = PRICES % 'daily_tokens = 1000\nmax_tokens = 400\ndeadline = "5s"'
    async with (
        rig(any_database, flows=flows, max_attempts=1) as house,
        house.mqtt("chat/+/say") as client,
    ):
        house.model.script(*[status(400)] * 4)
        for _ in range(4):  # a server that says no bills nothing
            await client.publish("chat/ada/ask", b"x")
            assert b"refused" in (await message(client))[1]
        house.model.behave(lambda body: reset())
        await client.publish("chat/ada/ask", b"x")  # each try may have been billed
        await message(client)
        house.model.behave(None)
        await client.publish("chat/ada/ask", b"x")
        said = (await message(client))[1]
        assert said == b"No answer: this flow has used up its tokens for today."


async def test_a_process_that_dies_with_a_call_has_spent_it(any_database):
    flows = PRICES % "daily_tokens = 1000\nmax_tokens = 400"
    async with rig(any_database, flows=flows, lease=1) as house:
        house.model.behave(lambda body: hang())
        await house.webhook({"id": "1", "topic": "chat/ada/ask", "payload": "x"})
        await house.model.wait_for_calls(1)
        await house.crash()
        house.model.behave(dearest)
        async with house.replica():
            await house.move(3_000)
            await eventually(lambda: len(house.model.calls) == 2)
            await house.webhook({"id": "2", "topic": "chat/bob/ask", "payload": "x"})
            ends = await house.ended(2)
        assert {one["conversation"]: one["state"] for one in ends}["bob"] == "ignored"


async def test_an_answer_that_no_flow_bounds_is_bounded_and_a_small_server_is_believed(database):
    """16,000 tokens are asked for; a server with room for less says so, and gets less."""
    small = status(400, message="max_tokens is too large: 16000. This model supports at most 4096")
    async with (
        rig(database, flows=PRICES % "") as house,
        house.mqtt("chat/+/say") as client,
    ):
        house.model.script(small, ok("one"), ok("two"))
        for said in (b"one", b"two"):
            await client.publish("chat/ada/ask", b"x")
            assert (await message(client))[1] == said
        asked = [call.body["max_tokens"] for call in house.model.calls]
        assert asked == [16_000, 4_000, 4_000]


@pytest.mark.parametrize(
    ("identity", "field", "ones", "others"),
    [
        ("username", "username", ["ada"] * 4, "bob"),
        ("address", "peerhost", ["192.0.2.1", "::ffff:192.0.2.1"] * 2, "192.0.2.2"),
        ("address", "peerhost", [f"2001:db8:1:2::{n}" for n in range(4)], "2001:db8:1:3::1"),
        ("address", "peerhost", ["undefined"] * 4, "192.0.2.1"),  # last wills have none
    ],
)
async def test_a_client_s_limit_counts_the_name_that_is_trusted(
    database, identity, field, ones, others
):
    flows = PRICES % 'client_limit = "2/h"'
    async with rig(database, flows=flows, client_identity=identity) as house:
        for number in range(6):
            fields = {"id": str(number), "topic": f"chat/u{number}/ask", "payload": "x"}
            names = {"clientid": f"invented{number}", "username": f"invented{number}"}
            names[field] = ones[number] if number < 4 else others
            assert (await house.webhook(fields | names)).status_code == 202
        ends = await house.ended(6)
        states = sorted((one["conversation"], one["state"]) for one in ends)
        assert [state for _, state in states].count("done") == 4
        assert len(house.model.calls) == 4


async def test_a_client_s_address_comes_from_the_broker_and_is_stored_only_if_it_counts(database):
    flows = PRICES % 'client_limit = "2/h"'
    async with rig(database, flows=flows, client_identity="address") as house:
        for number in range(4):
            async with house.mqtt(clientid=f"invented{number}") as client:
                await client.publish(f"chat/u{number}/ask", b"x")
                await house.ended(number + 1)
        assert len(house.model.calls) == 2
        row = await house.service.store.request((await house.requests())[0]["id"])
        assert row.message.peerhost == "127.0.0.1"
    async with rig(database, flows=flows) as house, house.mqtt() as client:
        await client.publish("chat/later/ask", b"x")
        await house.ended(5)
        row = await house.service.store.request((await house.requests())[0]["id"])
        assert row.message.peerhost is None


async def test_rules_that_send_no_address_are_named_and_client_ids_count(database, caplog):
    flows = PRICES % 'client_limit = "2/h"'
    async with rig(database, flows=flows, client_identity="address") as house:
        for number in range(6):
            fields = {"id": str(number), "topic": f"chat/u{number}/ask", "payload": "x"}
            fields["clientid"] = "ada" if number < 4 else "bob"
            assert (await house.webhook(fields)).status_code == 202
        await house.ended(6)
        assert len(house.model.calls) == 4
        assert caplog.text.count("emqx-gpt emqx apply") == 1
