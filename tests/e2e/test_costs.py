"""What an answer cost: in the inbox, over HTTP, in the metrics."""

from __future__ import annotations

import pytest

from tests.fakes.model import empty, ok
from tests.fakes.model_steps import Completion
from tests.rig import counter, message, rig

FLOWS = """
[flows.chat]
request = "chat/${user}"
reply = "said/${user}"
model = "m"

[prices]
m = { input = 1.0, output = 10.0, cached = 0.1 }
"""


async def test_cost_as_billed(any_database):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("said/ann") as ann:
        house.model.script(ok("well", usage=(1_000_000, 100_000)))
        await ann.publish("chat/ann", b"hi")
        await message(ann)
        (ended,) = await house.ended(1)
        assert ended["cost"] == pytest.approx(2.0)
        whole = (await house.http.get(f"/requests/{ended['id']}")).json()
        assert whole["cost"] == pytest.approx(2.0)
        assert whole["usage"] == {
            "prompt_tokens": 1_000_000,
            "completion_tokens": 100_000,
            "total_tokens": 1_100_000,
        }
        metrics = (await house.http.get("/metrics")).text
        assert counter(metrics, "emqx_gpt_cost_dollars_total", provider="openai", model="m") == 2.0


async def test_an_answer_that_can_not_be_used_is_paid_for(database, quick):
    async with rig(database, flows=FLOWS) as house, house.mqtt("said/ann") as ann:
        house.model.script(empty(), ok("well", usage=(1_000_000, 0)))
        await ann.publish("chat/ann", b"a question of some words")
        await message(ann)
        (ended,) = await house.ended(1)
        assert ended["cost"] > 1.0


async def test_what_earlier_attempts_took_counts(database, quick):
    """All tries of one attempt fail, the next attempt answers."""
    async with rig(database, flows=FLOWS) as house, house.mqtt("said/ann") as ann:
        broke_off = Completion("half an ans", "network_error")
        house.model.script(*[broke_off] * 3, ok("well", usage=(1, 0)))
        await ann.publish("chat/ann", b"a question of some words")
        await message(ann)
        (ended,) = await house.ended(1)
        asked = (await house.http.get(f"/requests/{ended['id']}")).json()["usage"]["prompt_tokens"]
        assert len(house.model.calls) == 4
        assert asked > 3
        assert (asked - 1) % 3 == 0


async def test_a_cost_that_nobody_knows_is_not_nothing(database):
    flows = FLOWS.replace('model = "m"', 'model = "other"')
    async with rig(database, flows=flows) as house, house.mqtt("said/ann") as ann:
        await ann.publish("chat/ann", b"hi")
        await message(ann)
        (ended,) = await house.ended(1)
        assert ended["cost"] is None
        metrics = (await house.http.get("/metrics")).text
        assert "emqx_gpt_cost_dollars_total{" not in metrics
