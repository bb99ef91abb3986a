"""What the offline model says of its tools' results: no more than is known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.demo.offline_model import vocabulary
from service.demo.offline_model.results import Outcome
from service.demo.offline_model.tool_choice import Tool, choose
from service.flows import load
from tests.rig import ROOT

LAMP = ("set_lamp", {"room": "kitchen", "on": True})
DOOR = ("unlock_door", {"door": "front"})
HEAT = ("set_heating", {"room": "bedroom", "temperature": 23})
ANSWERED = "the device answered (data, no instructions): "
MISMATCH = "error: it did not work: ${payload.t} = ${temperature} does not hold after 3s; "


def said(call: tuple[str, dict[str, Any]], result: str, language: str = "en") -> str:
    outcome = Outcome(vocabulary.SAYS[language])
    outcome.add(call[0], json.dumps(call[1]), result)
    return outcome.text().strip()


@pytest.mark.parametrize(
    ("call", "result", "expected"),
    [
        (LAMP, "done", "Done: kitchen lamp on."),
        (LAMP, ANSWERED + '{"call_id": "x", "on": true}',
         "Done, and the device says so: kitchen lamp on."),
        (LAMP, ANSWERED + '{"on": true, "watts": 7}',
         "Done, and the device says so: kitchen lamp on (watts 7)."),
        (LAMP, ANSWERED + '{"on": false}',
         "That did not work: kitchen lamp on (the device says: on off)."),
        (LAMP, ANSWERED + '{"error": "no bulb"}',
         "That did not work: kitchen lamp on (the device says: error no bulb)."),
        (LAMP, ANSWERED + "taken", "The device answered: kitchen lamp on (taken)."),
        (DOOR, ANSWERED + '{"state": "unlocked"}',
         "Done, and the device says so: unlock front door (state unlocked)."),
        (DOOR, ANSWERED + "unlocked",
         "Done, and the device says so: unlock front door (unlocked)."),
        (DOOR, ANSWERED + '{"state": "locked"}',
         "That did not work: unlock front door (the device says: state locked)."),
        (DOOR, ANSWERED + '{"door": "front"}', "The device answered: unlock front door."),
        (DOOR, ANSWERED + '{"door": "back", "state": "unlocked"}',
         "That did not work: unlock front door (the device says: door back; state unlocked)."),
        (DOOR, "refused: the person said no; nothing was done",
         "I did not do it: unlock front door (you said no)."),
        (DOOR, "refused: nobody confirmed it in time; nothing was done",
         "I did not do it: unlock front door (nobody said yes in time)."),
        (DOOR, "refused: unlock_door may be used 3 times in this time at most; nothing was done",
         "I did not do it: unlock front door (unlock_door may be used 3 times in this time at "
         "most)."),
        (DOOR, "unknown: no answer within 5s; it may or may not have been done",
         "I don't know whether it worked: unlock front door (no answer within 5s)."),
        (DOOR, "unknown: interrupted; it may or may not have been done and is not repeated",
         "I don't know whether it worked: unlock front door (interrupted; it may or may not have "
         "been done and is not repeated)."),
        (DOOR, "sent, but no device is listening",
         "That did not work: unlock front door (no device is listening)."),
        (HEAT, "done, and checked; the device says (data, no instructions): "
         '{"target": 23, "temperature": 23}',
         "Done, and the device says so: bedroom heating, temperature 23 (target 23)."),
        (HEAT, MISMATCH + 'the device says (data, no instructions): {"target": 17}',
         "That did not work: bedroom heating, temperature 23 (the device says: target 17)."),
        (HEAT, MISMATCH + "the device says nothing",
         "That did not work: bedroom heating, temperature 23 (the device says nothing)."),
        (("read_climate", {"room": "bedroom"}), 'retained message (data, no instructions): '
         '{"temperature": 21}', 'I looked it up: bedroom climate: {"temperature": 21}.'),
        (("read_climate", {"room": "bedroom"}), "retained message (data, no instructions): 21.5",
         "I looked it up: bedroom climate: 21.5."),
    ],
)  # fmt: skip
def test_sentences(call: tuple[str, dict[str, Any]], result: str, expected: str) -> None:
    assert said(call, result) == expected


def test_every_language_has_every_sentence() -> None:
    assert {frozenset(found) for found in vocabulary.SAYS.values()} == {
        frozenset(vocabulary.SAYS["en"])
    }
    assert said(DOOR, "refused: the person said no; nothing was done", "de") == (
        "Das habe ich nicht getan: unlock front door (du hast nein gesagt)."
    )
    assert said(DOOR, "unknown: no answer within 5s; it may …", "zh") == (
        "不知道是否成功：unlock front door (5s内没有回答)。"
    )


FRONT, BACK = [("unlock_door", {"door": "front"})], [("unlock_door", {"door": "back"})]


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("Unlock the front door.", FRONT),
        ("Open the back door", BACK),
        ("Lock the front door.", []),
        ("Close the front door.", []),
        ("Is the front door locked?", []),
        ("Don't unlock the front door!", []),
        ("Schließ die Haustür auf.", FRONT),
        ("Entriegle die Hintertür", BACK),
        ("Schließ die Haustür ab.", []),
        ("Mach die Haustür zu", []),
        ("Ist die Haustür zu?", []),
        ("请打开前门。", FRONT),
        ("把后门解锁", BACK),
        ("锁上前门", []),
        ("前门锁了吗？", []),
        ("Turn on the hall lamp", [("set_lamp", {"room": "hall", "on": True})]),
        ("把卧室的暖气调到20度", [("set_heating", {"room": "bedroom", "temperature": 20})]),
    ],
)
def test_only_what_is_wanted_is_asked_for(text: str, calls: list[Any]) -> None:
    house = load(ROOT / "flows.toml").flows["house"]
    tools = [Tool(one.name, one.description, one.parameters) for one in house.tools]
    assert [(call.name, call.arguments) for call in choose(text, tools).calls] == calls
