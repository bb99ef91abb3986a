"""A service that has been used: each kind of thing that there are figures of has happened."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.fakes.model import FakeModel, Step, delay, ok, status, tool_calls
from tests.rig import Rig, counter, eventually, message, rig

FLOWS = """
[prices]
m = { input = 1.0, output = 10.0 }

[providers.other]
base_url = "OTHER"

[mcp.plant]
url = "http://127.0.0.1:9/mcp"

[flows.chat]
request = "chat/${user}/ask"
reply = "chat/${user}/say"
stream = "chat/${user}/stream"
model = "m"
fallback = ["other/spare"]
daily_tokens = 1000000
daily_usd = 1.0

[flows.home]
request = "home/${user}/ask"
reply = "home/${user}/say"
model = "m"
[[flows.home.tools]]
name = "set_light"
description = "Switch a lamp"
topic = "home/devices/${room}/set"
[flows.home.tools.parameters]
type = "object"
required = ["room"]
properties.room = { enum = ["kitchen", "bedroom"] }

[flows.idle]
tools_from = ["plant"]
request = "idle/${user}/ask"
reply = "idle/${user}/say"
model = "m"
prompt = "${recent} ${payload}"
recent = { topic = "readings/${user}", messages = 3, for = "1h" }

[flows.broken]
request = "broken/${user}/ask"
reply = "broken/${user}/say"
model = "other/broken"
"""


def _first(body: dict[str, Any]) -> Step:
    """The usual server: one question fails for good there, one needs a tool."""
    said = str(body["messages"])
    if "fall back" in said:
        return status(404, "model_not_found")
    if "light" in said and body["messages"][-1]["role"] != "tool":
        return tool_calls([("set_light", {"room": "kitchen"})])
    return delay(0.02, ok("well", usage=(100, 20)))


def _second(body: dict[str, Any]) -> Step:
    if body["model"] == "broken":
        return status(401)
    return status(400) if "fail" in str(body["messages"]) else ok("spare", usage=(10, 2))


@contextlib.asynccontextmanager
async def unused(database: str) -> AsyncIterator[Rig]:
    """The house, before anything happened in it."""
    async with FakeModel() as other:
        other.behave(_second)
        async with rig(database, flows=FLOWS.replace("OTHER", other.base_url)) as house:
            house.model.behave(_first)
            yield house


@contextlib.asynccontextmanager
async def used(database: str) -> AsyncIterator[Rig]:
    """The same; what happened is counted by the time it is there."""
    async with unused(database) as house:
        await use(house)
        yield house


async def use(house: Rig) -> None:
    """Five ends, and one request that waits for a key that works."""
    async with house.mqtt("chat/ada/say", "home/ada/say") as ada:
        await ada.publish("chat/ada/ask", b"hi")
        assert (await message(ada))[1] == b"well"
        await ada.publish("chat/ada/ask", b"fall back")
        assert (await message(ada))[1] == b"spare"
        await ada.publish("chat/ada/ask", b"fall back and fail")
        await message(ada)  # is told so
        house.model.script(*[status(500)] * 3)  # asked again at once, twice, and then later
        await ada.publish("home/ada/ask", b"light")
        assert (await message(ada))[1] == b"well"
        await ada.publish("chat/bob/ask", b"nobody hears it")
        await ada.publish("broken/ada/ask", b"no key")
    hook = {"id": "twice", "topic": "idle/ada/ask", "payload": "hi", "flow": "idle"}
    assert (await house.http.post("/flows/idle/pause")).status_code == 200
    for _ in range(2):
        assert (await house.webhook(hook)).status_code == 202
    assert (await house.webhook(hook, headers={})).status_code == 401
    assert (await house.webhook(b"no JSON")).status_code in (400, 415)

    async def settled() -> bool:
        text = (await house.http.get("/metrics")).text
        circuit = counter(text, "emqx_gpt_circuit_open", model="other/broken")
        return circuit == 1 and counter(text, "emqx_gpt_ended_total") >= 5

    await eventually(settled)
