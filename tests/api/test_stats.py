"""GET /stats and GET /conversations."""

from __future__ import annotations

from typing import Any

import pytest

from service.inbox import BUCKETS
from service.operations.stats import quantile
from tests.api.test_acts import FLOWS, dead
from tests.api.test_look import ask
from tests.rig import Rig, rig


async def stats(house: Rig, window: str = "hour") -> dict[str, Any]:
    answer = await house.http.get("/stats", params={"window": window})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    name = "database" if request.param == "sqlite" else "shared_database"
    return str(request.getfixturevalue(name))


async def test_the_same_before_and_after_minutes_are_counted(url: str) -> None:
    async with rig(url, flows=FLOWS) as house:
        await dead(house, 3)
        for n in range(4):
            await ask(house, f"hi {n}")
        fresh = await stats(house)
        assert fresh["flows"]["chat"]["states"] == {"done": 4, "expired": 3}
        assert fresh["total"]["success"] == 4 / 7
        assert fresh["total"]["tokens"] > 0
        assert sum(one["requests"] for one in fresh["series"]) == 7
        house.clock.ahead += 120_000
        await house.service.statistics.count()
        house.clock.ahead += 10_000
        counted = await stats(house)
        assert counted["total"] == fresh["total"]
        house.clock.ahead += 3_600_000
        assert (await stats(house))["total"]["requests"] == 0
        for window in ("day", "week"):
            found = await stats(house, window)
            assert found["flows"]["chat"] == fresh["flows"]["chat"]
            assert sum(one["requests"] for one in found["series"]) == 7
        # A dead letter that is forgotten was still one.
        [one, *_] = await house.requests(state="expired")
        await house.http.delete(f"/requests/{one['id']}")
        house.clock.ahead += 10_000
        assert (await stats(house, "day"))["total"]["states"]["expired"] == 3


async def test_calls_saved_are_what_was_kept_and_what_was_ignored(url: str) -> None:
    flows = """
[flows.boiler]
request = "boilers/${device}/ask"
reply = "boilers/${device}/say"
system = "${recent}"
cooldown = "1m"
recent = { topic = "boilers/${device}/telemetry", messages = 2 }
"""
    async with rig(url, flows=flows) as house:
        reading = {"recent": "boiler", "topic": "boilers/a/telemetry", "payload": "1"}
        for n in range(3):
            await house.webhook(reading | {"publish_received_at": house.clock() + n})
        for n in range(2):
            body = {"flow": "boiler", "id": f"m{n}", "topic": "boilers/a/ask", "payload": "?"}
            await house.webhook(body | {"publish_received_at": house.clock() + n})
        await house.ended(2)
        fresh = (await stats(house))["flows"]["boiler"]
        assert (fresh["requests"], fresh["saved"]) == (2, 4)
        house.clock.ahead += 120_000
        await house.service.statistics.count()
        house.clock.ahead += 10_000
        assert (await stats(house))["flows"]["boiler"] == fresh


@pytest.mark.parametrize("times", [[5], [12, 80, 81, 900], list(range(10, 5000, 7))])
def test_a_quantile_is_right_but_for_its_bucket(times: list[int]) -> None:
    counts: dict[int, int] = {}
    for ms in times:
        bucket = next(at for at, edge in enumerate(BUCKETS) if ms <= edge)
        counts[bucket] = counts.get(bucket, 0) + 1
    for share in (0.5, 0.95):
        right = sorted(times)[max(0, -(-int(share * 100 * len(times)) // 100) - 1)]
        found = quantile(counts, share)
        assert found is not None
        assert right / 1.36 - 10 <= found <= right * 1.36 + 10
    assert quantile({}, 0.5) is None


async def test_conversations_by_their_latest_request_each_once(database: str) -> None:
    async with rig(database) as house:
        for user in ("ada", "bob", "ada", "eve", "bob"):
            await ask(house, f"hi from {user}", user=user)
        seen: list[tuple[str, int]] = []
        query: dict[str, Any] = {"limit": 2}
        while True:
            page = (await house.http.get("/conversations", params=query)).json()
            seen += [(one["conversation"], one["requests"]) for one in page["conversations"]]
            if page["next"] is None:
                break
            query["before"] = page["next"]
        assert [name for name, _ in seen] == ["bob", "eve", "ada"]
        assert page["conversations"][-1]["last"]["text"] == "hi from ada"
        none = (await house.http.get("/conversations", params={"flow": "home"})).json()
        assert none == {"conversations": [], "next": None}
