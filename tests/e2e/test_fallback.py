"""Models asked in turn, also on another provider; a breaker skips what keeps failing."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

from tests.e2e.conftest import QUICK
from tests.fakes.model import FakeModel, delay, filtered, hang, ok, reset, status
from tests.rig import eventually, message, rig

FLOWS = """
[providers.local]
base_url = "%s"
api_key_env = "LOCAL_KEY"
max_tokens_param = "max_tokens"

[flows.ask]
request = "ask/${user}"
reply = "say/${user}"
model = "first"
fallback = ["second", "local/third"]
timeout = "10s"
max_tokens = 50
"""

KEYS = {"LOCAL_KEY": "sk-local"}


async def attempts(house):
    (request,) = (await house.ended())[:1]
    shown = await house.request(request["id"])
    return [(attempt["model"], attempt["result"]) for attempt in shown["attempts"]]


FAULTS = [
    (status(500), "model_unavailable", 3),  # what may pass gets its three tries
    (reset(), "model_connection", 3),
    (status(404), "model_not_found", 1),
    (status(403), "model_forbidden", 1),
]


async def test_the_next_model_answers_also_on_another_provider(any_database, quick):
    policy = replace(QUICK, break_after=100)
    async with FakeModel() as local:
        flows = FLOWS % local.base_url
        async with (
            rig(any_database, flows=flows, environ=KEYS, policy=policy) as house,
            house.mqtt("say/ada") as ada,
        ):
            for fault, code, calls in FAULTS:
                house.model.script(*[fault] * calls * 2)
                local.script(ok("from the third"))
                await ada.publish("ask/ada", b"hi")
                assert (await message(ada))[1] == b"from the third"
                assert await attempts(house) == [
                    *[("first", code)] * calls,
                    *[("second", code)] * calls,
                    ("local/third", "ok"),
                ]
            ends = await house.ended(len(FAULTS))
            assert {(one["state"], one["model"]) for one in ends} == {("done", "third")}
            assert {call.body["model"] for call in local.calls} == {"third"}
            assert {call.key for call in local.calls} == {"sk-local"}
            assert {call.key for call in house.model.calls} == {"sk-test"}
            assert local.calls[0].body["max_tokens"] == 50
            assert house.model.calls[0].body["max_tokens"] == 50


async def test_while_one_provider_is_paused_the_other_is_asked_at_once(any_database):
    async with FakeModel() as local:
        flows = FLOWS % local.base_url
        async with (
            rig(any_database, flows=flows, environ=KEYS) as house,
            house.mqtt("say/ada") as ada,
        ):
            house.model.script(status(429, error_code="insufficient_quota"))
            for number in range(3):
                await ada.publish("ask/ada", f"q{number}".encode())
                assert (await message(ada))[1] == f"echo: q{number}".encode()
            assert len(house.model.calls) == 1
            assert len(local.calls) == 3
            ready = (await house.http.get("/readyz")).json()
            assert ready["model"]["providers"] == ["openai"]


async def test_what_one_model_refuses_another_is_asked(database):
    async with FakeModel() as local:
        flows = FLOWS % local.base_url
        async with rig(database, flows=flows, environ=KEYS) as house, house.mqtt("say/ada") as ada:
            for number, fault in enumerate((status(400), filtered()), 1):
                house.model.script(fault, fault)
                await ada.publish("ask/ada", b"hi")
                assert (await message(ada))[1] == b"echo: hi"
                assert (len(house.model.calls), len(local.calls)) == (2 * number, number)


async def test_when_none_can_the_one_with_most_hope_decides_when_to_try_again(database, quick):
    async with FakeModel() as local:
        flows = FLOWS % local.base_url
        async with rig(database, flows=flows, environ=KEYS) as house, house.mqtt("say/ada") as ada:
            house.model.script(status(404), status(404))
            local.script(status(429, retry_after=0.4))
            house.model.behave(lambda body: status(404))
            await ada.publish("ask/ada", b"hi")
            assert (await message(ada))[1] == b"echo: hi"
            first, second = local.calls
            assert second.started - first.ended >= 0.39


BREAKER = """
[providers.local]
base_url = "%s"

[flows.ask]
request = "ask/${user}"
reply = "say/${user}"
fallback = "local/spare"
timeout = "2s"
"""


async def test_a_breaker_skips_what_keeps_failing_and_probes_it_again(database, quick):
    policy = replace(QUICK, break_first=3.0)
    async with FakeModel() as local:
        flows = BREAKER % local.base_url
        async with (
            rig(database, flows=flows, environ=KEYS, policy=policy) as house,
            house.mqtt("say/+") as client,
        ):
            house.model.behave(lambda body: status(500))
            for number in range(6):
                await client.publish(f"ask/u{number}", b"hi")
                assert (await message(client))[1] == b"echo: hi"
            tried = len(house.model.calls)
            assert tried == QUICK.break_after  # then it was skipped
            ready = await house.http.get("/readyz")
            assert (ready.status_code, ready.json()["model"]["code"]) == (200, "model_unavailable")
            # Its time comes, and of many requests one looks whether it is well.
            house.model.behave(lambda body: delay(0.3, status(500)))
            skipped = len(local.calls)

            async def probe():
                await client.publish("ask/probe", b"hi")
                await message(client)
                return len(house.model.calls) > tried

            await eventually(probe)
            assert len(local.calls) > skipped
            assert len(house.model.calls) == tried + 1
            house.model.behave(lambda body: ok("well again"))

            async def well():
                await client.publish("ask/probe", b"hi")
                return (await message(client))[1] == b"well again"

            await eventually(well)
            assert (await house.http.get("/readyz")).status_code == 200


async def test_of_many_requests_at_once_one_probes(database, quick):
    policy = replace(QUICK, break_first=1.0)
    flows = FLOWS.partition("fallback")[0] % "http://127.0.0.1:9/v1"
    async with (
        rig(database, flows=flows, environ=KEYS, policy=policy) as house,
        house.mqtt("say/+") as client,
    ):
        house.model.behave(lambda body: status(500))
        for number in range(3):
            await client.publish(f"ask/u{number}", b"hi")
        await house.model.wait_for_calls(QUICK.break_after)

        async def opened():
            ready = await house.http.get("/readyz")
            return ready.status_code == 503 and not house.model.in_flight

        await eventually(opened)
        house.model.behave(lambda body: hang())
        for number in range(3, 10):
            await client.publish(f"ask/u{number}", b"hi")
        await eventually(lambda: house.model.in_flight == 1)
        calls = len(house.model.calls)
        await asyncio.gather(*(house.http.get("/readyz") for _ in range(20)))
        assert (len(house.model.calls), house.model.in_flight) == (calls, 1)
        house.model.release()
        heard = {(await message(client))[0] for _ in range(10)}
        assert heard == {f"say/u{number}" for number in range(10)}


async def test_a_question_that_breaks_the_model_closes_it_for_nobody_else(database, quick):
    """One request that gets a 500 for what it says: others are answered meanwhile."""
    flows = FLOWS.partition("fallback")[0] % "http://127.0.0.1:9/v1"
    settings = {"flows": flows, "max_attempts": 3, "environ": KEYS}
    async with rig(database, **settings) as house, house.mqtt("say/+") as client:
        house.model.behave(lambda body: status(500) if "poison" in str(body) else ok("well"))
        await client.publish("ask/poison", b"poison")
        await house.model.wait_for_calls(9)
        assert (await house.http.get("/readyz")).status_code == 200
        assert (await message(client))[0] == "say/poison"
        await client.publish("ask/other", b"hi")
        assert await message(client) == ("say/other", b"well")
        assert len(house.model.calls) == 10


async def test_a_conversation_that_gets_no_answer_closes_the_model_for_no_other(database, quick):
    """Broken answers for all that it asks, and blank ones."""
    flows = FLOWS.partition("fallback")[0] % "http://127.0.0.1:9/v1"
    bad = itertools.chain([ok("")], itertools.cycle((status(500), reset(), status(503))))
    settings = {"flows": flows, "max_attempts": 2, "environ": KEYS}
    async with rig(database, **settings) as house, house.mqtt("say/other") as other:
        house.model.behave(lambda body: next(bad) if "poison" in str(body) else ok("well"))
        for number in range(6):
            fields = {
                "topic": "ask/poison",
                "id": str(number),
                "payload": f"poison {number}",
            }
            assert (await house.webhook(fields)).status_code == 202
        await house.ended(6)
        assert (await house.http.get("/readyz")).status_code == 200
        calls = len(house.model.calls)
        await other.publish("ask/other", b"hi")
        assert await message(other) == ("say/other", b"well")
        assert len(house.model.calls) == calls + 1


async def test_a_moment_of_trouble_for_many_is_a_short_pause(database, quick):
    """All that was in flight when the server went away counts once, not as an escalation."""
    flows = FLOWS.partition("fallback")[0].replace("10s", "30s") % "http://127.0.0.1:9/v1"
    async with rig(database, flows=flows, environ=KEYS) as house, house.mqtt("say/+") as client:
        house.model.behave(lambda body: hang())
        for number in range(40):
            await client.publish(f"ask/u{number}", b"hi")
        await house.model.wait_for_calls(40)
        await house.model.stop()
        house.model.behave(None)
        await house.model.start()
        heard = {(await message(client, 5))[0] for _ in range(40)}
        assert len(heard) == 40
