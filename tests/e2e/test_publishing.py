"""Stored replies on their way to the broker, over everything it can answer."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest

from service.answering.publisher import PublishPolicy
from tests.fakes.emqx import FaultyRest, Hold, answer, each, passed, unheard
from tests.fakes.model import ok, status
from tests.rig import HASTY, eventually, message, rig

FLOW = """
[flows.ask]
request = "ask/${user}"
reply = "say/${user}"
%s
"""
LARGE = "x" * 1_100_000


async def asked(house, client, *users):
    for user in users:
        await client.publish(f"ask/{user}", f"from {user}".encode())


async def test_a_user_name_in_the_url_does_not_replace_the_api_key(database):
    async with FaultyRest() as rest:
        url = rest.url.replace("http://", "http://someone:else@")
        async with (
            rig(database, rest=rest, flows=FLOW % "", emqx_url=url) as house,
            house.mqtt("say/+") as client,
        ):
            await asked(house, client, "ada")
            assert await message(client) == ("say/ada", b"echo: from ada")


async def test_replies_that_are_ready_together_go_out_in_one_bulk(any_database):
    settings = {"flows": FLOW % ""}
    async with (
        FaultyRest() as rest,
        rig(any_database, rest=rest, **settings) as house,
        house.mqtt("say/+") as client,
    ):
        # While all lanes are busy, what becomes ready gathers.
        for hold in await gathered(house, rest, client, [f"u{n}" for n in range(40)]):
            hold.opened.set()
        heard = {await message(client) for _ in range(43)}
        assert len(heard) == 43
        assert [len(call.messages) for call in rest.calls] == [1, 1, 1, 40]


async def test_a_lone_reply_waits_for_no_company(database):
    settings = {"flows": FLOW % ""}
    async with (
        FaultyRest() as rest,
        rig(database, rest=rest, **settings) as house,
        house.mqtt("say/+") as client,
    ):
        await asked(house, client, "ada")
        await message(client)
        assert [call.bulk for call in rest.calls] == [False]


async def gathered(house, rest, client, users, messages=1):
    """Let the replies to these users come together in one bulk, once the holds are opened."""
    holds = {f"say/first{number}": Hold() for number in range(PublishPolicy().lanes)}
    rest.behave(lambda call: holds.get(call.messages[0]["topic"]))
    for number, hold in enumerate(holds.values()):
        await asked(house, client, f"first{number}")
        await asyncio.wait_for(hold.reached.wait(), 20)
    await asked(house, client, *users)
    await eventually(lambda: house.service.publisher.waiting == messages * len(users))
    rest.behave(None)
    return holds.values()


async def test_a_poisoned_reply_takes_no_other_down(any_database):
    """One is larger than the broker takes: it is told, and all others arrive."""
    settings = {
        "flows": FLOW % 'status = "light/${user}"',
        "max_body": 8_000_000,
        "max_answer": 8_000_000,
    }
    async with (
        FaultyRest() as rest,
        rig(any_database, rest=rest, **settings) as house,
        house.mqtt("say/+") as client,
    ):
        house.model.behave(lambda body: ok(LARGE) if "from big" in str(body) else ok("well"))
        users = ["a", "big", "b", "c"]
        for hold in await gathered(house, rest, client, users, messages=2):
            hold.opened.set()
        heard = dict([await message(client) for _ in range(7)])
        why = b"the message is larger than EMQX takes (mqtt.max_packet_size)"
        assert heard["say/big"] == b"No answer: %s." % why
        assert {heard[f"say/{user}"] for user in "abc"} == {b"well"}
        ends = {one["conversation"]: one for one in await house.ended(7)}
        big = ends.pop("big")
        assert (big["state"], big["error"]["code"]) == ("failed", "publish_refused")
        assert {one["state"] for one in ends.values()} == {"done"}
        shown = await house.request(big["id"])
        assert shown["reply"] == LARGE  # the operator still has it
        lights = [one for one in house.broker.mqtt.published if one.topic == "light/big"]
        assert json.loads(lights[-1].payload)["status"] == "failed"
        assert len(house.model.calls) == 7


async def test_a_bulk_refused_for_one_goes_out_message_by_message(database):
    """The broker names no culprit: 400 for the whole list, and nothing was published."""
    settings = {"flows": FLOW % ""}
    async with (
        FaultyRest() as rest,
        rig(database, rest=rest, **settings) as house,
        house.mqtt("say/+") as client,
    ):

        def refuse(call):
            if any(payload == "echo: from bad" for payload in call.payloads):
                return answer(400, {"message": "topic_name_invalid", "reason_code": 144})
            return None

        holds = await gathered(house, rest, client, ["a", "bad", "b"])
        rest.behave(refuse)
        for hold in holds:
            hold.opened.set()
        heard = Counter([(await message(client))[0] for _ in range(6)])
        assert heard == Counter(
            ["say/first0", "say/first1", "say/first2", "say/a", "say/b", "say/bad"]
        )
        ends = {one["conversation"]: one["state"] for one in await house.ended(6)}
        assert ends.pop("bad") == "failed"
        assert set(ends.values()) == {"done"}


async def test_a_503_for_a_bulk_is_read_message_by_message(any_database):
    settings = {"flows": FLOW % ""}
    async with (
        FaultyRest() as rest,
        rig(any_database, rest=rest, publishing=HASTY, **settings) as house,
        house.mqtt("say/+") as client,
    ):
        holds = await gathered(house, rest, client, ["a", "b", "c", "d"])
        # b and d could not be dispatched; a and c were, and c had no subscriber.
        codes = {"echo: from a": 0, "echo: from b": 131, "echo: from c": 16, "echo: from d": 131}
        first = iter([True])

        def behave(call):
            if not call.bulk or not next(first, False):
                return None
            return each(*(codes[payload] for payload in call.payloads))

        rest.behave(behave)
        for hold in holds:
            hold.opened.set()
        heard = Counter([(await message(client))[0] for _ in range(5)])
        assert heard == Counter(["say/first0", "say/first1", "say/first2", "say/b", "say/d"])
        ends = {one["conversation"]: one["delivered"] for one in await house.ended(7)}
        assert [ends[user] for user in "abcd"] == [True, True, False, True]
        payloads = Counter(payload for call in rest.calls for payload in call.payloads)
        assert payloads["echo: from a"] == payloads["echo: from c"] == 1
        assert payloads["echo: from b"] == payloads["echo: from d"] == 2


async def test_what_can_not_be_dispatched_holds_up_no_other(database):
    """As many as there are lanes, again and again: the others go on."""
    settings = {"flows": FLOW % ""}
    async with (
        FaultyRest() as rest,
        rig(database, rest=rest, publishing=HASTY, **settings) as house,
        house.mqtt("say/+") as client,
    ):
        stuck = True

        def behave(call):
            if not stuck or not any("stuck" in payload for payload in call.payloads):
                return None
            codes = [131 if "stuck" in payload else 0 for payload in call.payloads]
            return each(*codes) if call.bulk and 0 in codes else answer(503)

        users = [name for n in range(8) for name in (f"stuck{n}", f"u{n}")]
        holds = await gathered(house, rest, client, users)
        rest.behave(behave)
        for hold in holds:
            hold.opened.set()

        async def done():
            rows = await house.requests(limit=100, state="done")
            return {one["conversation"] for one in rows}

        async def others():
            return {f"u{n}" for n in range(8)} <= await done()

        await eventually(others)
        assert not any(user.startswith("stuck") for user in await done())
        stuck = False
        await house.ended(19)
        assert {f"stuck{n}" for n in range(8)} <= await done()


OUTAGES = {
    "401": answer(401, {"code": "BAD_API_KEY_OR_SECRET", "message": "Check api_key/api_secret"}),
    "403": answer(403, {"code": "FORBIDDEN", "message": "no"}),
    "500": answer(500, {"code": "INTERNAL_ERROR", "message": "error"}),
    "503": answer(503, {"code": "SERVICE_UNAVAILABLE", "message": "starting"}),
}


@pytest.mark.parametrize("kind", [*OUTAGES, "refused"])
async def test_while_the_broker_is_away_replies_are_kept_and_not_paid_twice(any_database, kind):
    codes = {"401": "broker_unauthorized", "403": "broker_unauthorized"}
    code = codes.get(kind, "broker_unreachable" if kind == "refused" else "broker_unavailable")
    settings = {"flows": FLOW % ""}
    async with (
        FaultyRest() as rest,
        rig(any_database, rest=rest, publishing=HASTY, **settings) as house,
        house.mqtt("say/+") as client,
    ):
        if kind == "refused":
            await rest.stop()
        else:
            rest.behave(lambda call: OUTAGES[kind])
        await asked(house, client, "a", "b", "c")
        await house.model.wait_for_calls(3)

        async def red():
            ready = await house.http.get("/readyz")
            return ready.json() if ready.status_code == 503 else None

        parts = await eventually(red)
        assert parts["broker"]["code"] == code
        assert parts["model"]["ok"]

        async def kept():
            return {one["state"] for one in await house.requests()} == {"answered"}

        await eventually(kept)
        rest.behave(None)
        if kind == "refused":
            await rest.start()
        heard = {(await message(client))[0] for _ in range(3)}
        assert heard == {"say/a", "say/b", "say/c"}
        ends = await house.ended(3)
        assert {(one["state"], one["delivered"]) for one in ends} == {("done", True)}
        assert len(house.model.calls) == 3

        async def green():
            return (await house.http.get("/readyz")).status_code == 200

        await eventually(green)


async def test_a_broker_that_does_not_answer_is_tried_again(database):
    settings = {"flows": FLOW % ""}
    async with (
        FaultyRest() as rest,
        rig(database, rest=rest, publishing=HASTY, **settings) as house,
        house.mqtt("say/+") as client,
    ):
        house.service.emqx._http.timeout = 0.3
        hold = Hold()
        rest.script(hold)
        await asked(house, client, "ada")
        assert (await message(client))[0] == "say/ada"
        assert len(rest.calls) == 2
        assert len(house.model.calls) == 1
        hold.opened.set()
        await eventually(lambda: rest.calls[0].status)


async def test_a_lost_answer_repeats_the_reply_with_the_same_request_id(database):
    settings = {"flows": FLOW % ""}
    async with (
        FaultyRest() as rest,
        rig(database, rest=rest, publishing=HASTY, **settings) as house,
        house.mqtt("say/+") as client,
    ):
        rest.script(unheard(), passed())
        await asked(house, client, "ada")
        assert await message(client) == await message(client)
        replies = [one for one in house.broker.mqtt.published if one.topic == "say/ada"]
        ids = {one.properties["User-Property"]["request_id"] for one in replies}
        (request,) = await house.ended()
        assert ids == {request["id"]}
        assert len(house.model.calls) == 1


async def test_nobody_subscribed_is_done_but_visibly_not_delivered(any_database):
    async with rig(any_database, flows=FLOW % "") as house, house.mqtt() as client:
        await asked(house, client, "ada")
        (request,) = await house.ended()
        assert (request["state"], request["delivered"]) == ("done", False)
        text = (await house.http.get("/metrics")).text
        assert 'emqx_gpt_publishes_total{result="no_subscriber"} 1.0' in text


async def test_without_a_reply_topic_the_answer_stays_in_the_inbox(database):
    flows = '[flows.ask]\nrequest = "ask/${user}"'
    async with rig(database, flows=flows) as house, house.mqtt("#") as client:
        await asked(house, client, "ada")
        (request,) = await house.ended()
        assert (request["state"], request["delivered"]) == ("done", None)
        assert (await house.request(request["id"]))["reply"] == "echo: from ada"


async def test_stored_replies_are_published_after_a_crash_without_asking_again(any_database):
    async with (
        FaultyRest() as rest,
        rig(any_database, rest=rest, flows=FLOW % "") as house,
        house.mqtt("say/+") as client,
    ):
        rest.behave(lambda call: answer(503))
        await asked(house, client, "a", "b", "c")
        await house.model.wait_for_calls(3)

        async def kept():
            return {one["state"] for one in await house.requests()} == {"answered"}

        await eventually(kept)
        await house.crash()
        rest.behave(None)
        async with house.replica():
            heard = {(await message(client))[0] for _ in range(3)}
            assert heard == {"say/a", "say/b", "say/c"}
            await house.ended(3)
        assert len(house.model.calls) == 3


async def test_a_failure_that_is_told_after_a_crash_is_named_in_the_log(database, caplog):
    async with (
        FaultyRest() as rest,
        rig(database, rest=rest, flows=FLOW % "") as house,
        house.mqtt("say/+") as client,
    ):
        rest.behave(lambda call: answer(503))
        house.model.behave(lambda body: status(400))
        await asked(house, client, "a")

        async def kept():
            return {one["state"] for one in await house.requests()} == {"answered"}

        await eventually(kept)
        await house.crash()
        rest.behave(None)
        async with house.replica():
            await message(client)
            await house.ended(1)
        assert " failed " in caplog.text
        assert "error=model_refused" in caplog.text


async def test_the_order_of_a_conversation_holds_over_an_outage(any_database):
    flows = FLOW % "history = { messages = 20 }"
    async with (
        FaultyRest() as rest,
        rig(any_database, rest=rest, publishing=HASTY, flows=flows) as house,
        house.mqtt("say/+") as client,
    ):
        rest.script(answer(503), answer(401), answer(503))
        for number in range(5):
            await client.publish("ask/ada", f"q{number}".encode())
        heard = [(await message(client))[1].decode() for _ in range(5)]
        assert heard == [f"echo: q{number}" for number in range(5)]
        said = [one["content"] for one in house.model.calls[-1].messages]
        wanted = [text for n in range(4) for text in (f"q{n}", f"echo: q{n}")]
        assert said == [*wanted, "q4"]


async def test_progress_is_dropped_while_the_broker_is_away_and_replies_are_not(database):
    flows = FLOW % 'status = "light/${user}"\nstream = "stream/${user}"'
    async with (
        FaultyRest() as rest,
        rig(database, rest=rest, publishing=HASTY, flows=flows) as house,
        house.mqtt("say/+", "light/+") as client,
    ):
        rest.behave(lambda call: answer(503))
        await asked(house, client, "first")
        await eventually(lambda: house.service.health.outage is not None)
        await asked(house, client, *(f"u{n}" for n in range(5)))
        await house.model.wait_for_calls(6)
        rest.behave(None)
        lights, replies = Counter(), Counter()
        while len(replies) < 6 or lights["completed"] < 6:
            topic, payload = await message(client)
            if topic.startswith("say/"):
                replies[topic] += 1
            else:
                lights[json.loads(payload)["status"]] += 1
        assert set(replies.values()) == {1}
        assert lights["working"] <= 2
        await asyncio.gather(house.ended(6))


@pytest.mark.parametrize("page", [b"<html>Welcome</html>", b"[]", b'{"ok": true}', b""])
async def test_a_page_in_place_of_emqx_is_no_delivery(database, page):
    """`emqx-url-200-html`: something else answers 200 at EMQX_URL; the reply is kept."""

    async def welcome(exchange):
        await exchange.answer(200, page)

    async with (
        FaultyRest() as rest,
        rig(database, rest=rest, flows=FLOW % "", publishing=HASTY) as house,
        house.mqtt("say/+") as client,
    ):
        rest.behave(lambda call: welcome)
        await asked(house, client, "ada")
        await eventually(lambda: len(rest.calls) >= 2)
        (row,) = await house.requests()
        assert (row["state"], row["delivered"]) == ("answered", None)
        rest.behave(None)
        assert await message(client) == ("say/ada", b"echo: from ada")
        assert len(house.model.calls) == 1
