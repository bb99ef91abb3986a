"""Where nobody but a tool's call may publish: topics of commands, and those of their answers."""

from __future__ import annotations

import pytest

from service.answering.publisher import Publisher
from service.domain import Publish
from service.errors import BrokerError
from service.flows import Commands
from service.operations.health import Health
from service.operations.metrics import Metrics
from tests.fakes.answering import FakeEmqx, flow, flows
from tests.pure.test_publisher import SOON

FLOW = """
[flows.x]
request = "in/${user}"
reply = "out/${user}"

[[flows.x.tools]]
name = "lamp"
description = "d"
topic = "lamp/${room}/set"
answer = "lamp/${room}/state"
verify = { expect = "${payload} = 1", answer = "lamp/${room}/is" }
confirm = { ask = "ask/${user}", answer = "said/${user}" }
parameters = { required = ["room"], properties = { room = { enum = ["hall", "attic"] } } }

[[flows.x.tools]]
name = "horn"
description = "d"
topic = "$delayed/5/horn/set"

[[flows.x.tools]]
name = "lamps"
description = "d"
topic = "lamp/${room}/set"
confirm = { ask = "ask/${user}", answer = "said/${user}" }
parameters = { required = ["room"], properties = { room = { type = "string" } } }
"""
SERVER = """
[mcp.plant]
url = "http://127.0.0.1:9/mcp"
confirm = { ask = "plant/ask", answer = "plant/said" }

[flows.y]
request = "y/in"
reply = "y/out"
tools_from = ["plant"]
"""


@pytest.mark.parametrize(
    ("topic", "theirs"),
    [
        ("lamp/hall/set", True),
        ("lamp/hall/state", True),
        ("lamp/hall/is", True),
        ("said/ada", True),
        ("plant/said", True),
        ("horn/set", True),
        ("$delayed/1/horn/set", True),
        ("$delayed/5/horn/set", True),
        ("$delayed/1/lamp/hall/set", True),
        ("$delayed/1/said/ada", True),
        ("out/ada", False),
        ("$delayed/1/out/ada", False),
        ("ask/ada", False),
        ("lamp/hall", False),
    ],
)
async def test_nothing_else_is_published_where_a_tool_speaks_or_hears(
    topic: str, theirs: bool
) -> None:
    commands = Commands(flows(FLOW + SERVER).flows.values())
    emqx = FakeEmqx()
    publisher = Publisher(
        emqx,
        Metrics(),
        Health(None, emqx, None, None),  # type: ignore[arg-type]
        policy=SOON,
        is_command=lambda topic: topic in commands,
    )
    publisher.start()
    try:
        [result] = await publisher.deliver([Publish(topic=topic, payload=b"yes")])
        publisher.post(Publish(topic=topic, payload=b"yes"), of="r1")
        await publisher.deliver([Publish(topic="out/last", payload=b"")], after="r1")
    finally:
        await publisher.close()
    assert (isinstance(result, BrokerError) and result.code == "tool_topic") is theirs
    sent = [message.topic for call in emqx.calls for message in call]
    assert sent.count(topic) == (0 if theirs else 2)


def test_a_call_is_no_way_round_another_tools_guards() -> None:
    made = flow(FLOW)
    lamp, horn, lamps = made.tools
    assert made.bypassed(lamp, "lamp/hall/set") is None
    assert made.bypassed(lamps, "lamp/cellar/set") is None  # the same guards
    assert made.bypassed(horn, "lamp/hall/set") == "lamp"
    assert made.bypassed(horn, "$delayed/1/lamp/hall/set") == "lamp"
    assert made.bypassed(horn, "lamp/cellar/set") == "lamps"  # `lamp` can't say that
    assert made.bypassed(horn, "horn/set") is None
