"""Seeded faults for the fake model as a process, and a log of its calls.

What a call gets depends on the seed, its text and how often that text was asked before, not
on the order in which parallel calls arrive: the same run has the same faults.
"""

import hashlib
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any, Self

import orjson

from tests.fakes.model_faults import cut, garbage, reset, status
from tests.fakes.model_steps import delay, echo
from tests.fakes.model_wire import Step, last_user_text


class Chaos:
    """Steps for each call, at a given rate faults; `log` gets a JSON line per call.

    The line is written before the answer, so that a call whose asker dies is counted too:
    {"time", "text", "messages", "outcome"}.
    """

    def __init__(
        self, seed: str, rate: float, pause: float = 0, slow: float = 0.5, log: Path | None = None
    ) -> None:
        self.seed, self.rate = seed, rate
        self._asked: Counter[str] = Counter()
        self._echo = delay(pause) if pause else echo()
        self._faults: tuple[tuple[str, Step], ...] = (
            ("429 now", status(429, retry_after=0)),
            ("429 later", status(429, retry_after=1)),
            ("500", status(500)),
            ("cut", cut()),
            ("reset", reset()),
            ("garbage", garbage()),
            ("slow", delay(pause + slow)),
        )
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._log = os.open(log, flags, 0o644) if log else None

    def step(self, body: dict[str, Any]) -> Step:
        """What this call gets."""
        text = last_user_text(body)
        outcome, step = self._drawn(text) if self.rate else ("echo", self._echo)
        if self._log is not None:
            line = {
                "time": time.time(),
                "text": text,
                "messages": len(body.get("messages") or ()),
                "outcome": outcome,
            }
            # One write each: lines stay whole, and stay when the process is killed.
            os.write(self._log, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        return step

    def _drawn(self, text: str) -> tuple[str, Step]:
        self._asked[text] += 1
        key = f"{self.seed}\0{self._asked[text]}\0{text}"
        drawn = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if int.from_bytes(drawn[:8]) >= self.rate * 2**64:
            return "echo", self._echo
        return self._faults[int.from_bytes(drawn[8:]) % len(self._faults)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._log is not None:
            os.close(self._log)
            self._log = None
