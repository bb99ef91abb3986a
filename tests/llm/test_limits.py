"""A house before models that have limits, die or are well: each troubles only itself."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from service.llm.retry import RetryPolicy
from tests.fakes.model import Step, ok, status
from tests.fakes.model_raw import raw
from tests.llm.test_pace import Bucket
from tests.rig import Rig, rig

TWO = """
[flows.one]
request = "one/${user}"
reply = "one/${user}/reply"
model = "limited"

[flows.two]
request = "two/${user}"
reply = "two/${user}/reply"
model = "well"
"""
FALLBACK = """
[flows.one]
request = "one/${user}"
reply = "one/${user}/reply"
model = "dead"
fallback = "well"
"""


async def asked(house: Rig, flow: str, count: int) -> None:
    for number in range(count):
        body = {"id": f"{flow}-{number}", "topic": f"{flow}/u{number}", "payload": "hi", "qos": 1}
        assert (await house.webhook(body)).status_code == 202


async def test_a_limit_is_used_and_hardly_overstepped(tmp_path: Path) -> None:
    bucket = Bucket(rate=20, size=20)
    began = time.monotonic()

    def answer(body: dict[str, Any]) -> Step | str:
        if body["model"] == "limited" and bucket.refuses(time.monotonic() - began) is not None:
            return status(429)
        return "fine"

    async with rig(f"sqlite:///{tmp_path / 'test.db'}", flows=TWO) as house:
        house.model.behave(answer)
        bucket.left = bucket.size
        await asked(house, "one", 120)
        await house.ended(1, seconds=20, state="done")
        clock = time.monotonic()
        await asked(house, "two", 5)  # the other model is not held up
        await house.ended(5, seconds=20, flow="two")
        assert time.monotonic() - clock < 4
        await house.ended(120, seconds=60, flow="one")
        calls = [call for call in house.model.calls if call.model == "limited"]
        refused = [call for call in calls if call.outcome.startswith("429")]
        assert len(refused) < 0.12 * len(calls)  # a busy machine is late now and then
        requests = await house.requests(limit=200)
        assert {request["state"] for request in requests} == {"done"}
        assert {request["tries"] for request in requests} == {0}


async def test_a_dead_model_does_not_take_its_fallback_on_the_same_server_down(
    tmp_path: Path,
) -> None:
    policy = RetryPolicy(inner_first=0.01)
    database = f"sqlite:///{tmp_path / 'test.db'}"
    async with rig(database, flows=FALLBACK, policy=policy) as house:
        house.model.behave(lambda body: status(500) if body["model"] == "dead" else ok("well"))
        await asyncio.gather(asked(house, "one", 12))
        ends = await house.ended(12, seconds=20)
        assert {one["state"] for one in ends} == {"done"}
        ready = await house.http.get("/readyz")
        assert (ready.status_code, ready.json()["model"]["ok"]) == (200, True)


async def test_what_a_server_says_of_its_limits_is_kept_without_a_refusal(tmp_path: Path) -> None:
    left = 4

    def answer(body: dict[str, Any]) -> Step:
        nonlocal left
        left -= 1
        if left < 0:
            return status(429)
        message = {"message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}
        headers = {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-reset-requests": "60s",
        }
        return raw(body={"choices": [message]}, headers=headers)

    async with rig(f"sqlite:///{tmp_path / 'test.db'}", flows=TWO) as house:
        house.model.behave(answer)
        for number in range(4):
            body = {"id": f"m{number}", "topic": "one/u", "payload": "hi", "qos": 1}
            await house.webhook(body)
            await house.ended(number + 1)
        await house.webhook({"id": "m5", "topic": "one/u", "payload": "hi", "qos": 1})
        left = 1
        began = time.monotonic()
        await house.ended(5)
        assert time.monotonic() - began > 0.5  # about a second for each call
        assert [call.outcome for call in house.model.calls] == ["raw 200"] * 5
