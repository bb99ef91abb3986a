"""Replies that found nobody: held for devices that sleep, and after an outage of the broker."""

from __future__ import annotations

from typing import Any

from tests.fakes.emqx import FaultyRest
from tests.rig import Rig, eventually, message, rig

FLOW = """
[flows.ask]
request = "ask/${user}"
reply = "say/${user}"
%s
"""


async def ended(house: Rig) -> dict[str, Any]:
    """The one request, once it has ended."""

    async def found() -> dict[str, Any] | None:
        rows = await house.requests(state="done")
        return rows[0] if rows else None

    row = await eventually(found)
    assert row is not None
    return row


async def test_a_device_that_wakes_up_gets_its_answer(any_database):
    async with rig(any_database, flows=FLOW % 'hold = "30s"') as house:
        async with house.mqtt() as client:
            await client.publish("ask/ada", b"good night")
        row = await ended(house)
        assert row["delivered"] is False
        assert row["held_until"] is not None
        async with house.mqtt("say/ada") as client:
            assert await message(client) == ("say/ada", b"echo: good night")

        async def delivered() -> bool:
            return (await house.request(row["id"]))["delivered"] is True

        await eventually(delivered)
        assert (await house.request(row["id"]))["held_until"] is None
        assert len(house.model.calls) == 1


async def test_nobody_is_waited_for_without_the_key(database):
    async with rig(database, flows=FLOW % "") as house, house.mqtt() as client:
        await client.publish("ask/ada", b"good night")
        row = await ended(house)
        assert (row["delivered"], row["held_until"]) == (False, None)


async def test_after_an_outage_replies_wait_for_their_devices(database):
    async with (
        FaultyRest() as rest,
        rig(database, rest=rest, flows=FLOW % "") as house,
    ):
        async with house.mqtt() as client:
            await rest.stop()
            await client.publish("ask/ada", b"are you there?")
            await eventually(lambda: house.service.health.outage is not None)
        await rest.start()
        row = await ended(house)
        assert row["delivered"] is False
        assert row["held_until"] is not None
        async with house.mqtt("say/ada") as client:
            assert await message(client) == ("say/ada", b"echo: are you there?")
        assert len(house.model.calls) == 1


async def test_what_is_ignored_is_not_held(database):
    keys = 'hold = "30s"\ncooldown = "1h"\nstatus = "status/${user}"'
    async with rig(database, flows=FLOW % keys) as house, house.mqtt("say/ada") as client:
        await client.publish("ask/ada", b"first")
        await message(client)
        await ended(house)
        await client.publish("ask/ada", b"too soon")  # nobody hears its status

        async def ignored() -> dict[str, Any] | None:
            rows = await house.requests(state="ignored")
            return rows[0] if rows else None

        row = await eventually(ignored)
        assert row is not None
        assert (row["delivered"], row["held_until"]) == (None, None)
