"""How much of the service one warm webhook runs, from its POST to its end: `python -m tests.path`.

Counted with `sys.setprofile` over `service/` (without the demo): the files, functions and calls,
and the frames between the task that is the request's life and the HTTP client of the model.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from tests.rig import ROOT, eventually, rig

OURS = str(ROOT / "service") + os.sep
DEMO = OURS + "demo" + os.sep
CLIENTS = tuple(f"{os.sep}site-packages{os.sep}{name}{os.sep}" for name in ("openai", "httpx2"))
LIFE = "RequestRunner.run"


def _ours(file: str) -> bool:
    return file.startswith(OURS) and not file.startswith(DEMO)


@dataclass
class Trace:
    """What was run."""

    files: Counter[str] = field(default_factory=Counter)
    functions: Counter[tuple[str, str]] = field(default_factory=Counter)
    frames: list[str] = field(default_factory=list)

    @property
    def calls(self) -> int:
        return sum(self.functions.values())


class Tracer:
    """Profiles all threads that begin after `install`, while `on`."""

    def __init__(self) -> None:
        self.on = False
        self.seen = Trace()

    def install(self) -> None:
        threading.setprofile(self._event)
        sys.setprofile(self._event)

    def remove(self) -> None:
        threading.setprofile(None)
        sys.setprofile(None)

    def _event(self, frame: FrameType, event: str, arg: Any) -> None:
        if not self.on or event != "call":
            return
        code = frame.f_code
        if _ours(code.co_filename) and not _of_demo(frame):
            self.seen.files[code.co_filename.removeprefix(OURS)] += 1
            name = (code.co_filename.removeprefix(OURS), code.co_qualname)
            self.seen.functions[name] += 1
        elif not self.seen.frames and any(name in code.co_filename for name in CLIENTS):
            self.seen.frames = _runner(frame)


def _of_demo(frame: FrameType | None) -> bool:
    """The stand-in for EMQX runs in this process too, and uses some of our pure parts."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(DEMO):
            return True
        frame = frame.f_back
    return False


def _runner(frame: FrameType | None) -> list[str]:
    """Our frames above this one, from the request's life on; [] if it is not in one."""
    names: list[str] = []
    while frame is not None:
        if _ours(frame.f_code.co_filename):
            names.append(frame.f_code.co_qualname)
            if frame.f_code.co_qualname == LIFE:
                return names[::-1]
        frame = frame.f_back
    return []


async def trace(database: str) -> Trace:
    """One request of the shipped chat flow, with memory, after two that warmed everything up: of
    three, the one beside which the fewest periodic looks ran."""
    tracer, traces = Tracer(), []
    tracer.install()
    try:
        async with rig(database) as house:
            for number in range(5):
                tracer.seen, tracer.on = Trace(), number >= 2
                body = {"id": f"m{number}", "topic": "chatgpt/request/ada", "payload": "hi"}
                answer = await house.webhook(body | {"flow": "chat", "qos": 1})
                assert answer.status_code == 202
                said = number + 1
                await eventually(lambda said=said: len(house.broker.mqtt.published) >= said)
                await eventually(lambda: not house.service.worker.in_hand.running)
                tracer.on = False
                traces.append(tracer.seen)
    finally:
        tracer.remove()
    return min(traces[2:], key=lambda seen: len(seen.files))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        seen = asyncio.run(trace(f"sqlite:///{Path(folder) / 'path.db'}"))
    for file, calls in sorted(seen.files.items()):
        print(f"{calls:6} {file}")
    print(f"{len(seen.files)} files, {len(seen.functions)} functions, {seen.calls} calls")
    print(f"{len(seen.frames)} frames: {' > '.join(seen.frames)}")


if __name__ == "__main__":
    main()
