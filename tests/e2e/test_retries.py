"""What a model can do wrong, and what becomes of the question."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.e2e.conftest import QUICK
from tests.fakes.model import cut as cut_off
from tests.fakes.model import (
    delay,
    empty,
    filtered,
    garbage,
    hang,
    length,
    no_http,
    ok,
    page,
    refusal,
    reset,
    status,
    tool_calls,
    wrong_shape,
)
from tests.rig import counter, eventually, message, rig

TOPIC = "ask/ada"
FLOW = """
[flows.ask]
request = "ask/${user}"
reply = "say/${user}"
timeout = "10s"
%s
"""


async def results(house):
    (request,) = await house.ended()
    return [attempt["result"] for attempt in (await house.request(request["id"]))["attempts"]]


PASSING = [
    (status(500), "model_unavailable"),
    (status(503), "model_unavailable"),
    (status(529), "model_unavailable"),
    (page(502), "model_unavailable"),
    (status(408), "model_unavailable"),
    (cut_off(), "model_connection"),
    (reset(), "model_connection"),
    (no_http(), "model_connection"),
    (no_http(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n"), None),
    (empty(), "model_empty"),
    (ok("  \n"), "model_empty"),
]
GARBAGE = [
    b"",
    b"[]",
    b"no JSON",
    b'{"choices": []}',
    b'{"choices": [{"message": {"content": [1]}}]}',
    b'{"choices": [{"message": null}]}',
    b'{"choices": [{"message": {"tool_calls": [{"id": "x"}]}}]}',
]
CHUNKS = [
    b"data: {]\n\n",
    b'data: {"choices": [{"delta": null}]}\n\n',
    b'data: {"choices": [{"index": 0, "delta": {"content": 5}}]}\n\n',
    b"data: []\n\n",
    b'data: "text"\n\n',
    b"data: [DONE]\n\n",
]


@pytest.mark.parametrize("stream", ["", 'stream = "stream/${user}"'], ids=["plain", "stream"])
async def test_what_passes_is_tried_again_at_once(database, quick, stream):
    faults = [*PASSING, (wrong_shape(), None), (page(200), None)]
    faults += [(garbage(body), None) for body in (CHUNKS if stream else GARBAGE)]
    async with rig(database, flows=FLOW % stream) as house, house.mqtt("say/ada") as ada:
        for number, (fault, code) in enumerate(faults):
            house.model.script(fault, ok(f"well {number}"))
            await ada.publish(TOPIC, b"hi")
            assert await message(ada) == ("say/ada", f"well {number}".encode())
            (request,) = (await house.requests())[:1]
            first, second = (await house.request(request["id"]))["attempts"]
            assert second["result"] == "ok"
            assert first["result"] == code or (
                code is None and first["result"] in ("model_garbage", "model_connection")
            ), (number, first)
            assert request["tries"] == 0  # within one durable attempt


@pytest.mark.parametrize("stream", ["", 'stream = "stream/${user}"'], ids=["plain", "stream"])
async def test_a_timeout_is_in_total_and_not_per_byte(database, quick, stream):
    """A server that sends a byte now and then is not waited for longer."""
    slow = ok("a b c d e f g h i j k l m n o p", pace=0.1) if stream else hang()
    flows = FLOW.replace("10s", "400ms") % stream
    async with rig(database, flows=flows) as house, house.mqtt("say/ada") as ada:
        house.model.script(slow)
        house.model.behave(lambda body: ok("well"))
        await ada.publish(TOPIC, b"hi")
        assert (await message(ada))[1] == b"well"
        first, *_, last = await results(house)
        assert (first, last) == ("model_timeout", "ok")
        assert house.model.calls[0].gone


async def test_a_failed_attempt_goes_back_to_the_inbox_and_is_tried_again(any_database, quick):
    async with rig(any_database, flows=FLOW % "") as house, house.mqtt("say/ada") as ada:
        house.model.script(*[status(500)] * 4, ok("well"))
        await ada.publish(TOPIC, b"hi")
        assert (await message(ada))[1] == b"well"
        assert await results(house) == ["model_unavailable"] * 4 + ["ok"]
        (request,) = await house.requests()
        assert request["tries"] == 1


async def test_after_max_attempts_it_is_a_dead_letter_that_is_told(any_database, quick):
    settings = {"flows": FLOW % "", "max_attempts": 2}
    async with rig(any_database, **settings) as house, house.mqtt("say/ada") as ada:
        house.model.behave(lambda body: status(500))
        await ada.publish(TOPIC, b"hi")
        assert (await message(ada))[1].startswith(b"No answer: the model's server failed (500): ")
        assert await results(house) == ["model_unavailable"] * 2 * QUICK.inner_attempts
        (request,) = await house.requests()
        assert (request["state"], request["error"]["code"]) == ("failed", "model_unavailable")
        text = (await house.http.get("/metrics")).text
        assert counter(text, "emqx_gpt_ended_total", state="failed", error="model_unavailable") == 1


async def test_what_will_fail_again_is_told_at_once(database):
    faults = [
        (status(400, message="bad thing"), "model_refused", b"bad thing"),
        (status(400, error_code="context_length_exceeded"), "model_too_long", b"context length"),
        (status(413), "model_refused", b"refused the request"),
        (status(422), "model_refused", b"refused the request"),
        (status(404), "model_not_found", b"does not exist or was shut down"),
        (status(403), "model_forbidden", b"may not use model"),
        (filtered(), "model_filtered", b"content filter"),
        (filtered("half of a b"), "model_filtered", b"content filter"),
        (length(""), "model_length", b"max_tokens"),
    ]
    async with rig(database, flows=FLOW % "") as house, house.mqtt("say/ada") as ada:
        for number, (fault, code, words) in enumerate(faults, 1):
            house.model.script(fault)
            await ada.publish(TOPIC, b"hi")
            said = (await message(ada))[1]
            assert said.startswith(b"No answer: ")
            assert words in said
            (request, *_) = await house.ended(number)
            assert (request["state"], request["error"]["code"]) == ("failed", code)
            assert len(house.model.calls) == number
        ready = await house.http.get("/readyz")
        assert ready.status_code == 200  # the provider is well


async def test_an_answer_that_was_cut_short_says_so(database):
    flows = FLOW % "max_tokens = 5"
    async with rig(database, flows=flows) as house, house.mqtt("say/ada") as ada:
        house.model.script(length("Once upon a"))
        await ada.publish(TOPIC, b"hi")
        assert (await message(ada))[1].decode() == "Once upon a …"
        properties = house.broker.mqtt.published[-1].properties["User-Property"]
        assert properties["truncated"] == "true"
    flows = FLOW % 'max_tokens = 5\nformat = "json"'
    async with rig(database, flows=flows) as house, house.mqtt("say/ada") as ada:
        house.model.script(length("Once upon a"))
        await ada.publish(TOPIC, b"hi")
        reply = json.loads((await message(ada))[1])
        assert (reply["text"], reply["truncated"]) == ("Once upon a", True)


@pytest.mark.parametrize("stream", ["", 'stream = "stream/${user}"'], ids=["plain", "stream"])
async def test_a_refusal_is_the_answer(database, stream):
    async with rig(database, flows=FLOW % stream) as house, house.mqtt("say/ada") as ada:
        house.model.script(refusal("I can't help with that."))
        await ada.publish(TOPIC, b"hi")
        assert (await message(ada))[1] == b"I can't help with that."


async def test_a_model_that_calls_tools_there_are_not_is_no_empty_reply(database):
    async with rig(database, flows=FLOW % "") as house, house.mqtt("say/ada") as ada:
        house.model.script(tool_calls([("nothing", {})]), ok("well"))
        await ada.publish(TOPIC, b"hi")
        assert (await message(ada))[1] == b"well"


async def test_a_short_retry_after_is_honoured_within_the_attempt(database, quick):
    async with rig(database, flows=FLOW % "") as house, house.mqtt("say/ada") as ada:
        house.model.script(status(503, retry_after=0.5), ok("well"))
        await ada.publish(TOPIC, b"hi")
        assert (await message(ada))[1] == b"well"
        first, second = house.model.calls
        assert second.started - first.ended >= 0.5
        (request,) = await house.ended()
        assert request["tries"] == 0


async def test_a_rate_limit_pauses_every_call_to_the_provider_until_its_time(any_database, quick):
    settings = {"flows": FLOW % "", "max_concurrency": 1}
    async with rig(any_database, **settings) as house, house.mqtt("say/+") as client:
        house.model.script(status(429, retry_after=1))
        for number in range(8):
            await client.publish(f"ask/u{number}", b"hi")
        heard = {(await message(client))[0] for _ in range(8)}
        assert heard == {f"say/u{number}" for number in range(8)}
        limited, *later = house.model.calls
        assert min(call.started for call in later) - limited.ended >= 0.99
        assert len(later) == 8
        ends = await house.ended(8)
        assert {one["state"] for one in ends} == {"done"}
        assert {one["tries"] for one in ends} == {0}  # waiting is no failure


async def test_a_rate_limit_does_not_turn_readyz_red(database):
    async with rig(database, flows=FLOW % "") as house, house.mqtt("say/+") as client:
        house.model.script(status(429, retry_after=60))
        await client.publish(TOPIC, b"hi")
        await house.model.wait_for_calls(1)

        async def paused():
            model = (await house.http.get("/readyz")).json()["model"]
            return model if "code" in model else None

        assert await eventually(paused) == {
            "ok": True,
            "code": "model_rate_limited",
            "message": "the model's server asks to wait (429): "
            "Rate limit reached. Please try again in 1s.",
            "providers": ["openai"],
        }
        assert (await house.http.get("/readyz")).status_code == 200


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (status(401), "model_unauthorized"),
        (status(429, error_code="insufficient_quota"), "model_quota"),
        (status(402), "model_quota"),
    ],
)
async def test_key_or_quota_pause_go_red_and_keep_the_backlog(any_database, quick, fault, code):
    async with rig(any_database, flows=FLOW % "") as house, house.mqtt("say/+") as client:
        house.model.behave(lambda body: fault)
        for number in range(5):
            await client.publish(f"ask/u{number}", b"hi")
        await house.model.wait_for_calls(4)  # it is looked at now and then, by one request

        async def red():
            ready = await house.http.get("/readyz")
            return ready.json() if ready.status_code == 503 else None

        ready = await eventually(red)
        assert (ready["model"]["ok"], ready["model"]["code"]) == (False, code)
        assert ready["broker"]["ok"]
        assert ready["database"]["ok"]
        waiting = await house.requests()
        assert {one["state"] for one in waiting} <= {"queued", "answering"}
        assert {one["tries"] for one in waiting} == {0}
        assert house.model.peak <= 5
        house.model.behave(None)  # the key works again
        heard = {(await message(client))[0] for _ in range(5)}
        assert heard == {f"say/u{number}" for number in range(5)}
        assert {one["state"] for one in await house.ended(5)} == {"done"}
        assert (await house.http.get("/readyz")).status_code == 200


async def test_while_the_key_is_out_one_request_looks_and_the_others_wait(database, quick):
    settings = {"flows": FLOW % ""}
    async with rig(database, **settings) as house, house.mqtt("say/+") as client:
        house.model.script(status(401))
        house.model.behave(lambda body: delay(0.05, status(401)))
        await client.publish("ask/first", b"hi")
        await house.model.wait_for_calls(1)
        for number in range(20):
            await client.publish(f"ask/u{number}", b"hi")
        await house.model.wait_for_calls(6)
        later = house.model.calls[1:6]
        for one, other in zip(later, later[1:], strict=False):
            assert other.started - one.ended >= 0.15  # never two at a time, and with a pause


async def test_a_paused_provider_does_not_hold_up_another(database, quick):
    flows = FLOW % "" + '[flows.free]\nrequest = "free"\nreply = "freed"\nstatus = "light"'
    async with rig(database, flows=flows) as house, house.mqtt("say/+", "freed") as client:
        house.model.script(status(429, retry_after=1))
        await client.publish(TOPIC, b"hi")
        await house.model.wait_for_calls(1)
        await client.publish("free", b"   ")  # needs no model
        assert await eventually(
            lambda: [one for one in house.broker.mqtt.published if one.topic == "light"]
        )


async def test_an_account_that_stays_out_expires_the_request_at_its_deadline(database):
    flows = FLOW % 'deadline = "3s"'
    policy = replace(QUICK, account_pause=2.0)  # so that no call is out at the deadline
    async with rig(database, flows=flows, policy=policy) as house, house.mqtt("say/+") as client:
        house.model.behave(lambda body: status(401))
        await client.publish(TOPIC, b"hi")
        assert (await message(client))[1] == b"No answer: no answer came in time."
        (request,) = await house.ended()
        assert (request["state"], request["error"]["code"]) == ("expired", "expired")


async def test_a_request_that_kills_its_worker_again_and_again_fails(any_database):
    settings = {"flows": FLOW % ""}
    async with rig(any_database, **settings) as house, house.mqtt("say/ada") as ada:
        house.model.behave(lambda body: hang())
        await ada.publish(TOPIC, b"kill")
        await house.model.wait_for_calls(1)
        await house.crash()
        for count in range(2, 6):
            async with house.replica() as other:
                await house.model.wait_for_calls(count)
                await house.crash(other)
        async with house.replica():
            said = (await message(ada))[1]
            assert said.startswith(b"No answer: given up after it was begun 5 times")
        assert len(house.model.calls) == 5
        (request,) = await house.ended()
        assert (request["state"], request["error"]["code"]) == ("failed", "worker_killed")
