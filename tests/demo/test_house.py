"""Safe hands in the demo: a lamp that answers, a door that asks, a heater that does not follow."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.demo.household import answers, household
from service.demo.levels import levels_of
from service.demo.mqtt_client import Client, Seen
from service.demo.person import answer_to
from service.demo.standin.broker import StandIn
from service.flows import Flow, parse
from service.mqtt.templates import Template
from tests.demo.test_clients import run as client_run
from tests.demo.test_clients import tool
from tests.demo.test_demo import Demo, demo, run, too_wide
from tests.rig import ROOT, message

SHIPPED = (ROOT / "flows.toml").read_text()
HOUSE = SHIPPED[SHIPPED.index("[flows.house]") : SHIPPED.index("# ── Speaker")]
DEVICE = ROOT / "examples" / "device.py"


def flow_of(text: str, name: str = "house") -> Flow:
    found, faults = parse(text)
    assert found is not None, faults
    return found.flows[name]


def joined(screen: str) -> str:
    """The screen without its line breaks."""
    return " ".join(screen.split())


@contextlib.asynccontextmanager
async def someone(
    running: Demo, *topics: str, name: str = "visitor", v5: bool = False
) -> AsyncIterator[Client]:
    client = Client("127.0.0.1", running.mqtt_port, name, v5=v5)
    try:
        await client.connect()
        await client.subscribe(topics)
        yield client
    finally:
        await client.close()


async def test_the_play_shows_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "flows.toml").write_text(HOUSE)
    code, screen = await run(tmp_path, "demo", "--once")
    assert code == 0, screen
    assert too_wide(screen) == []
    lamp, front, back, heater = re.split(r"house/ada/ask ◀ .*", screen)[1:]
    assert "Response-Topic house/lamps/kitchen/state" in lamp
    assert 'house/lamps/kitchen/state ◀ {"room": "kitchen", "on": true}' in lamp
    assert "Done, and the device says so: kitchen lamp on." in joined(lamp)
    for door, part in (("front", front), ("back", back)):
        asked, told = part.split("house/ada/confirmed ◀ yes")
        assert f"May I do this: unlock_door (door: {door})?" in joined(asked)
        assert f"house/doors/{door}/set" not in asked  # nothing before the yes
        assert f"house/doors/{door}/set ▶" in told
        said = f"Done, and the device says so: unlock {door} door (state unlocked)."
        assert said in joined(told)
    # Over MQTT 5 the yes brings the question's Correlation-Data; 3.1.1 has none.
    assert "confirmed ◀ yes\n    MQTT 5: Correlation-Data" in front
    assert "confirmed ◀ yes\n  house/doors/back/set" in back
    assert '"target": 17}' in heater
    assert "That did not work: bedroom heating, temperature 23 (the device says: target 17)." in (
        joined(heater)
    )
    assert "[tool_mismatch]" in heater
    assert "Every answer came." in screen


@pytest.mark.parametrize(
    ("lamp", "door", "question", "yes", "heating", "said"),
    [
        (
            "Switch on the lamp in the hall, please.", "Open the back door.",
            "May I do this: unlock_door (door: back)?", "Yes, please.",
            "Set the heating in the living room to 20 degrees.",
            ["Done, and the device says so: hall lamp on.",
             "Done, and the device says so: unlock back door (state unlocked).",
             "That did not work: living_room heating, temperature 20 (the device says: target 17)"],
        ),
        (
            "Schalte bitte die Lampe im Flur ein.", "Schließ die Hintertür auf.",
            "Soll ich das tun: unlock_door (door: back)?", "Ja, bitte.",
            "Stell die Heizung im Wohnzimmer auf 20 Grad.",
            ["Erledigt, und das Gerät sagt es auch: hall lamp an.",
             "Erledigt, und das Gerät sagt es auch: unlock back door (state unlocked).",
             "Das ging nicht: living_room heating, temperature 20 (das Gerät sagt: target 17)"],
        ),
        (
            "打开走廊的灯。", "请把后门解锁。",
            "要执行这个操作吗：unlock_door (door: back)？", "好的",
            "把客厅的暖气调到20度。",
            ["已完成，设备也确认了：hall lamp 开。",
             "已完成，设备也确认了：unlock back door (state unlocked)。",
             "没有成功：living_room heating, temperature 20 (设备说：target 17)"],
        ),
    ],
    ids=["English", "German", "Chinese"],
)  # fmt: skip
async def test_people_play_it_by_hand(
    tmp_path: Path, lamp: str, door: str, question: str, yes: str, heating: str, said: list[str]
) -> None:
    async with demo(tmp_path, HOUSE) as running:
        await running.until("Ctrl-C ends the demo.")
        async with someone(running, "house/kim/say", "house/kim/confirm") as kim:
            replies = []
            for asked in (lamp, door, heating):
                await kim.publish("house/kim/ask", asked.encode())
                topic, told = await message(kim)
                if topic == "house/kim/confirm":
                    assert question in told.decode()
                    await kim.publish("house/kim/confirmed", yes.encode())
                    topic, told = await message(kim)
                assert topic == "house/kim/say"
                replies.append(told.decode())
        for expected, reply in zip(said, replies, strict=True):
            assert expected in reply
        await running.until("[tool_mismatch]")


@pytest.mark.parametrize("version", ["311", "5"])
async def test_mosquittos_clients_are_asked_and_answer(tmp_path: Path, version: str) -> None:
    """The commands that the demo prints, over MQTT 3.1.1 and 5."""
    async with demo(tmp_path, HOUSE) as running:
        await running.until("Ctrl-C ends the demo.")
        printed = joined(running.screen)
        where = ["-p", str(running.mqtt_port), "-V", version]
        assert "mosquitto_pub -p" in printed or "mosquitto_pub -t" in printed
        assert re.search(r"mosquitto_pub (-p \d+ )?-t house/you/confirmed -m yes", printed)
        assert re.search(r"mosquitto_pub -V 5 (-p \d+ )?-t house/you/confirmed -m yes", printed)
        async with someone(running, "house/you/confirm", "house/you/say") as seeing:
            asked = ["-t", "house/you/ask", "-m", "Unlock the front door."]
            await client_run(tool("mosquitto_pub"), *where, *asked)
            assert (await message(seeing))[0] == "house/you/confirm"
            yes = ["-t", "house/you/confirmed", "-m", "yes"]
            await client_run(tool("mosquitto_pub"), *where, *yes)
            topic, reply = await message(seeing)
            assert topic == "house/you/say"
            assert b"unlock front door (state unlocked)" in reply


async def test_a_no_leaves_the_door_alone(tmp_path: Path) -> None:
    async with demo(tmp_path, HOUSE) as running:
        await running.until("Ctrl-C ends the demo.")
        async with someone(running, "house/kim/+", "house/doors/#") as kim:
            await kim.publish("house/kim/ask", b"Unlock the front door.")
            assert (await message(kim))[0] == "house/kim/ask"
            assert (await message(kim))[0] == "house/kim/confirm"
            await kim.publish("house/kim/confirmed", b"no")
            assert (await message(kim))[0] == "house/kim/confirmed"
            topic, reply = await message(kim)  # and no command to the door before
            assert topic == "house/kim/say"
            assert b"I did not do it: unlock front door (you said no)." in reply


@pytest.mark.parametrize("option", [[], ["--v4"]], ids=["MQTT 5", "MQTT 3.1.1"])
async def test_the_device_script_speaks_it(tmp_path: Path, option: list[str]) -> None:
    async with demo(tmp_path, HOUSE) as running:
        await running.until("Ctrl-C ends the demo.")
        script = await asyncio.create_subprocess_exec(
            sys.executable, str(DEVICE), "--host", "127.0.0.1",
            "--port", str(running.mqtt_port), *option, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert script.stdout is not None
            async with asyncio.timeout(60):
                assert b"at home" in await script.stdout.readline()
            async with someone(running, "house/kim/say", "house/kim/confirm") as kim:
                await kim.publish("house/kim/ask", b"Turn on the lamp in the hall.")
                assert b"the device says so: hall lamp on" in (await message(kim))[1]
                await kim.publish("house/kim/ask", b"Set the bedroom heating to 20 degrees.")
                assert b"Done, and the device says so: bedroom heating" in (await message(kim))[1]
                await kim.publish("house/kim/ask", b"Set the bedroom heating to 25 degrees.")
                assert b"That did not work" in (await message(kim))[1]
                await kim.publish("house/kim/ask", b"Unlock the front door.")
                assert (await message(kim))[0] == "house/kim/confirm"
                await kim.publish("house/kim/confirmed", b"yes")
                assert b"unlock front door (state unlocked)" in (await message(kim))[1]
        finally:
            script.terminate()
            said = (await script.communicate())[0].decode()
        answered = re.findall(r"-> (\S+) (\{.*\})", said)
        assert [topic for topic, _ in answered] == [
            "house/lamps/hall/state",
            "house/heaters/bedroom/state",
            "house/heaters/bedroom/state",
            "house/doors/front/state",
        ]
        assert "'target': 21" in answered[2][1]


async def test_where_somebody_elses_device_answers_the_demos_is_silent() -> None:
    flows, _ = parse(HOUSE)
    assert flows is not None
    async with StandIn() as broker, household("127.0.0.1", broker.mqtt_port, flows):
        theirs = Client("127.0.0.1", broker.mqtt_port, "theirs", v5=True)
        try:
            await theirs.connect()
            await theirs.subscribe(["house/lamps/kitchen/set", "house/lamps/+/state"])
            state = "house/lamps/kitchen/state"
            body = b'{"room": "kitchen", "on": true, "call_id": "c1"}'
            await theirs.publish("house/lamps/kitchen/set", body, state, b"c1")
            assert (await message(theirs))[0] == "house/lamps/kitchen/set"
            await theirs.publish(state, b'{"on": false}', correlation=b"c1")
            assert await message(theirs) == (state, b'{"on": false}')
            body = body.replace(b"kitchen", b"hall").replace(b"c1", b"c2")
            await theirs.publish("house/lamps/hall/set", body, "house/lamps/hall/state", b"c2")
            assert (await message(theirs))[0] == "house/lamps/hall/state"
        finally:
            await theirs.close()


# Tools of one's own


OWN = """
[flows.mine]
request = "barn/${who}/ask"
reply = "barn/${who}/say"
[[flows.mine.tools]]
name = "open_hatch"
description = "Open a hatch of the barn"
topic = "barn/${who}/hatch/${nr}/set"
answer = "barn/${who}/hatch/${nr}/done"
match = "${payload.what.nr} = ${nr}"
parameters = { required = ["nr"], properties = { nr = { type = "integer" } } }
[flows.mine.tools.confirm]
ask = "barn/${who}/may"
answer = "barn/${who}/may/${nr}"
[flows.mine.tools.verify]
expect = "${payload} = open"
read = "barn/${who}/hatch/${nr}/state"
"""


def command(topic: str, body: object, **more: object) -> Seen:
    fields = {"response_topic": None, "correlation": None, "error": None, **more}
    return Seen(topic, json.dumps(body).encode(), **fields)  # type: ignore[arg-type]


def test_a_device_says_what_the_flow_waits_for() -> None:
    hatch = flow_of(OWN, "mine").tools[0]
    seen = command("barn/ann/hatch/7/set", {"nr": 7, "call_id": "c1"})
    done, state = answers(hatch, seen)
    assert done.topic == "barn/ann/hatch/7/done"
    expected = {"call_id": "c1", "nr": 7, "state": "open", "what": {"nr": 7}}
    assert json.loads(done.payload) == expected
    assert (state.topic, state.payload, state.retain) == ("barn/ann/hatch/7/state", b"open", True)
    stuck = list(answers(hatch, seen, stubborn=True))[1]
    assert stuck.payload == b"as before"


def test_with_mqtt_5_it_answers_where_it_is_told() -> None:
    lamp = flow_of(HOUSE).tools[0]
    body = {"room": "hall", "on": False, "call_id": "c1"}
    seen = command("house/lamps/hall/set", body, response_topic="to/me", correlation=b"\x00\x01")
    [said] = answers(lamp, seen)
    assert (said.topic, said.correlation) == ("to/me", b"\x00\x01")
    assert json.loads(said.payload) == {"room": "hall", "on": False}


def test_what_no_device_could_know_is_not_answered() -> None:
    hatch = flow_of(OWN, "mine").tools[0]
    assert list(answers(hatch, Seen("barn/ann/hatch/7/set", b"UP", None, None, None))) != []
    assert list(answers(hatch, Seen("barn/ann/hatch", b"UP", None, None, None))) == []


def test_the_person_of_the_play_knows_where_to_answer() -> None:
    house, mine = flow_of(HOUSE), flow_of(OWN, "mine")
    asked = Seen("house/ada/confirm", b"?", "over/there", b"1", None)
    assert answer_to(house, asked, v5=True) == ("over/there", b"yes")
    assert answer_to(house, asked, v5=False) == ("house/ada/confirmed", b"yes")
    assert answer_to(house, asked._replace(topic="house/ada/say"), v5=True) is None
    # An argument's level is in the Response-Topic alone.
    assert answer_to(mine, Seen("barn/ann/may", b"?", None, None, None), v5=False) is None
    pin = HOUSE.replace('timeout = "2m"', 'timeout = "2m"\npin_env = "DOOR_PIN"')
    assert answer_to(flow_of(pin), asked, v5=True) == ("over/there", b"no")


@pytest.mark.parametrize(
    ("template", "topic", "levels"),
    [
        ("a/${x}/b", "a/1/b", {"x": "1"}),
        ("a/${x}-${y}", "a/1-2", {"x": "1", "y": "2"}),
        ("${x}/b/${x}", "a/b/a", {"x": "a"}),
        ("${x}/b/${x}", "a/b/c", None),
        ("a/${x}", "a/1/2", None),
        ("a.b", "a.b", {}),
        ("a.b", "axb", None),
    ],
)
def test_a_topic_is_read_backwards(
    template: str, topic: str, levels: dict[str, str] | None
) -> None:
    assert levels_of(Template.parse(template), topic) == levels
