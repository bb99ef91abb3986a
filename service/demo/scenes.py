"""What the demo says, flow by flow. Data only."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Line:
    """What one message says.

    `code`: the error with which the answer is expected to come; `old`: spoken over MQTT 3.1.1;
    `note`: what to look at.
    """

    payload: bytes
    code: str | None = None
    old: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """A flow's part of the play: a title, and who speaks (`levels`: the captured levels)."""

    title: str
    levels: Mapping[str, str]
    lines: tuple[Line, ...]
    short: Line | None = None  # what others may say; without it, the last line
    stubborn: frozenset[str] = frozenset()  # tools whose devices do not follow


def _scene(title: str, levels: Mapping[str, str], *texts: str, short: str = "") -> Scene:
    lines = tuple(Line(text.encode()) for text in texts)
    return Scene(title, levels, lines, Line(short.encode()) if short else None)


def picture() -> bytes:
    """A small PNG, made here: a red square on grey."""
    width = height = 32
    rows = b"".join(
        b"\0"
        + b"".join(
            b"\xc8\x28\x28" if 8 <= x < 24 and 8 <= y < 24 else b"\xb0\xb0\xb0"
            for x in range(width)
        )
        for y in range(height)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


ADA = {"user": "ada", "client": "ada"}
SCENES: dict[str, Scene] = {
    "chat": _scene(
        "chat, with a memory for each user",
        ADA,
        "Hello! My name is Ada.",
        "What is my name?",
        short="Hello! I am Sam.",
    ),
    "alarm": _scene(
        "a sensor over its limit becomes a spoken alert",
        {"device": "boiler"},
        '{"temperature": 21.5}',
        '{"temperature": 45.5}',
    ),
    "coldstore": _scene(
        "many messages, one question: a cold store judged by its last minute",
        {"room": "north"},
        *(f'{{"temperature": {-21 + at / 4}}}' for at in range(6)),
    ),
    "morning": _scene("by the clock: what the cold store did at night", {}),
    "home": _scene(
        "natural language becomes commands to devices",
        ADA,
        "Turn on the kitchen light and set the bedroom air conditioner to 22 degrees.",
        short="Light up the kitchen.",
    ),
    "house": Scene(
        "safe hands: wait for the device, ask first, look whether it worked",
        ADA,
        (
            Line(b"Turn on the kitchen lamp.", note="The lamp answers, over MQTT 5:"),
            Line(b"Unlock the front door.", note="You are asked first, and say yes over MQTT 5:"),
            Line(b"Unlock the back door.", old=True, note="The same over MQTT 3.1.1:"),
            Line(
                b"Set the heating in the bedroom to 23 degrees.",
                code="tool_mismatch",
                note="This heater does not follow, and so you are told:",
            ),
        ),
        Line(b"Unlock the front door."),
        frozenset({"set_heating"}),
    ),
    "speaker": _scene("a smart speaker with a wake word", {}, "小爱机器人今天适合出门吗"),
    "parse": _scene(
        "free text in, clean fields out", {"device": "tank"}, "tank 3 abt 66 % full, 18 C"
    ),
    "camera": Scene("a camera's snapshot described", {"camera": "door"}, (Line(picture()),)),
    "story": _scene("a long answer, piece by piece", ADA, "a lighthouse and a robot"),
    "rpc": _scene("request and response, as JSON", ADA, "What is MQTT?"),
}


def _in_chinese(name: str, *texts: str, short: str | None = None) -> Scene:
    """The scene with what people say in it; titles and notes are in `words`."""
    scene = SCENES[name]
    lines = tuple(
        replace(line, payload=text.encode()) for line, text in zip(scene.lines, texts, strict=True)
    )
    said = Line(short.encode()) if short else scene.short
    return replace(scene, lines=lines, short=said)


CHINESE_SCENES: Mapping[str, Scene] = SCENES | {
    "chat": _in_chinese("chat", "你好！我叫小艾。", "我叫什么名字？", short="你好！我是小山。"),
    "home": _in_chinese("home", "打开厨房的灯，把卧室的空调调到22度。", short="打开厨房的灯。"),
    "house": _in_chinese(
        "house",
        "打开厨房的灯。",
        "请把前门解锁。",
        "请把后门解锁。",
        "把卧室的暖气调到23度。",
        short="请把前门解锁。",
    ),
    "parse": _in_chinese("parse", "水箱3大约66 %满，温度18 C"),
    "story": _in_chinese("story", "灯塔和机器人"),
    "rpc": _in_chinese("rpc", "什么是MQTT？"),
}
