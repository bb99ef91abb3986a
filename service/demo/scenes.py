"""What the demo says, flow by flow. Data only."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One publish, and the topics on which something must come back."""

    topic: str
    payload: bytes
    replies: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """A flow's part of the play. `listen` is what the client subscribes to."""

    flow: str
    title: str
    listen: tuple[str, ...]
    lines: tuple[Line, ...]


def _say(topic: str, text: str, *replies: str, note: str = "") -> Line:
    return Line(topic, text.encode(), replies, note)


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


SCENES = (
    Scene(
        "chat",
        "chat, with a memory for each user",
        ("chatgpt/response/ada",),
        (
            _say("chatgpt/request/ada", "Hello! My name is Ada.", "chatgpt/response/ada"),
            _say("chatgpt/request/ada", "What is my name?", "chatgpt/response/ada"),
        ),
    ),
    Scene(
        "alarm",
        "a sensor over its limit becomes a spoken alert",
        ("alerts/boiler",),
        (
            _say("sensors/boiler/telemetry", '{"temperature": 21.5}', note="within its limit"),
            _say("sensors/boiler/telemetry", '{"temperature": 45.5}', "alerts/boiler"),
        ),
    ),
    Scene(
        "home",
        "natural language becomes commands to devices",
        ("home/ada/say", "home/devices/#"),
        (
            _say(
                "home/ada/ask",
                "Turn on the kitchen light and set the bedroom air conditioner to 22 degrees.",
                "home/devices/kitchen/light/set",
                "home/devices/bedroom/climate/set",
                "home/ada/say",
            ),
        ),
    ),
    Scene(
        "speaker",
        "a smart speaker with a wake word and fixed topics",
        ("/xiaomi/reply",),
        (_say("/xiaomi/chatgpt", "小爱机器人今天适合出门吗", "/xiaomi/reply"),),
    ),
    Scene(
        "parse",
        "free text in, clean fields out",
        ("parse/tank/out",),
        (_say("parse/tank/in", "tank 3 abt 66 % full, 18 C", "parse/tank/out"),),
    ),
    Scene(
        "camera",
        "a camera's snapshot described",
        ("cameras/door/description",),
        (Line("cameras/door/snapshot", picture(), ("cameras/door/description",)),),
    ),
    Scene(
        "story",
        "a long answer, streamed piece by piece",
        ("story/ada/stream", "story/ada/tell", "story/ada/status"),
        (
            _say(
                "story/ada/ask",
                "a lighthouse and a robot",
                "story/ada/status",
                "story/ada/stream",
                "story/ada/tell",
                "story/ada/status",
            ),
        ),
    ),
    Scene(
        "rpc",
        "request and response, as JSON",
        ("answer/ada",),
        (_say("ask/ada", "What is MQTT?", "answer/ada"),),
    ),
)
