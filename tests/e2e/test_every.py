"""Requests by the clock: each tick once over all processes, whatever dies and however clocks go."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter

from tests.fakes.model import ok
from tests.rig import eventually, message, rig

MINUTE = 60_000
FLOWS = """
[flows.report]
every = "* * * * *"
timezone = "Europe/Berlin"
missed = "{missed}"
reply = "reports/minute"
prompt = "Sum up until ${{payload.time}}."
"""


async def ticks(house) -> list[int]:
    """When the requests were due, in minutes, in order."""
    rows = await house.requests(limit=500, flow="report")
    payloads = [(await house.request(row["id"]))["payload"] for row in rows]
    return sorted(_minutes(json.loads(payload)["at"]) for payload in payloads)


def _minutes(text: str) -> int:
    from datetime import datetime

    return int(datetime.fromisoformat(text).timestamp()) // 60


async def look(services) -> None:
    await asyncio.gather(*(one.schedule.look() for one in services))


async def test_a_tick_is_asked_and_its_answer_published(any_database):
    flows = FLOWS.format(missed="run")
    async with rig(any_database, flows=flows) as house, house.mqtt("reports/+") as client:
        house.model.script(ok("All quiet."))
        await look([house.service])
        await house.move(MINUTE)
        assert await message(client) == ("reports/minute", b"All quiet.")
        assert house.model.calls[0].text.startswith("Sum up until ")
        (row,) = await house.ended(1)
        assert row["conversation"] == "-"


async def test_three_replicas_with_kills_and_jumping_clocks_see_to_each_tick_once(shared_database):
    flows = FLOWS.format(missed="run")
    async with rig(shared_database, flows=flows) as house, contextlib.AsyncExitStack() as stack:
        alive = [house.service]
        for _ in range(2):
            alive.append(await stack.enter_async_context(house.replica()))
        await look(alive)
        begun = house.clock() // MINUTE
        for step in range(40):
            await house.move(MINUTE // 2)
            await look(alive)
            if step % 12 == 5:  # one is killed while the others go on, and another one comes
                killed = alive.pop(0)
                await killed.schedule.stop()
                await killed.worker.halt()
                await killed.publisher.close()
                alive.append(await stack.enter_async_context(house.replica()))
            if step == 20:  # the clock is set back for a while
                house.clock.ahead -= 3 * MINUTE
                await look(alive)
                house.clock.ahead += 3 * MINUTE
        until = house.clock() // MINUTE
        found = await ticks(house)
        assert [at for at, count in Counter(found).items() if count > 1] == []
        assert found == list(range(begun + 1, begun + 1 + len(found)))
        assert until - 1 <= found[-1] <= until
        assert len(found) >= 20
        # A jump of an hour: what was missed is made up for once.
        await house.move(60 * MINUTE)
        await look(alive)
        later = await ticks(house)
        assert len(later) - len(found) in (1, 2)  # and a minute may have gone by
        assert later[-1] >= until + 60
        await house.ended(len(later))


async def test_what_nobody_was_there_for_is_made_up_for_or_not(database):
    for missed, count in (("run", 1), ("skip", 0)):
        flows = FLOWS.format(missed=missed).replace("* * * * *", "0 7 * * *")
        async with rig(f"{database}-{missed}", flows=flows) as house:
            await look([house.service])
            await house.service.schedule.stop()
            await house.move(3 * 24 * 60 * MINUTE)
            async with house.replica() as after:
                await look([after])
                await look([after])
                assert len(await ticks(house)) == count, missed


async def test_a_schedule_has_its_windows(database):
    flows = """
[flows.report]
every = "* * * * *"
reply = "reports/minute"
prompt = "Sum up: ${recent}"
recent = { topic = "rooms/+/temperature" }
"""
    async with rig(database, flows=flows) as house, house.mqtt("reports/+") as client:
        await client.publish("rooms/a/temperature", "21.5")
        await eventually(lambda: house.service.recents.waiting == 0)
        await look([house.service])
        await house.move(MINUTE)
        await message(client)
        asked = house.model.calls[-1].text
        assert "rooms/a/temperature,21.5" in asked


async def test_who_comes_back_with_an_old_file_for_a_moment_ends_no_schedule(any_database):
    new = FLOWS.format(missed="run")
    old = new.replace("* * * * *", "*/2 * * * *")
    async with rig(any_database, flows=new) as house:
        await look([house.service])
        async with house.replica(old) as other:
            await look([other])
        for _ in range(10):
            await house.move(MINUTE)
            await look([house.service])
        assert len(await ticks(house)) >= 9
