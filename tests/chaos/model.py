"""A model that fails in seeded ways, never says the same twice, and notes what it was shown.

Its answer ends with the number of the call, so a reply tells which call it is from, and a
later call's history tells which reply was remembered.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import uvicorn

from tests.chaos.control import end_with_parent
from tests.fakes.model import (
    FakeModel,
    Step,
    cut,
    delay,
    garbage,
    last_user_text,
    ok,
    reset,
    status,
    tool_calls,
)
from tests.fakes.model_server import bound, config
from tests.fakes.model_wire import Exchange

GOOD = ("ok", "slow")  # the outcomes that were answered in full


def reply(text: str, number: int) -> str:
    """What the model answers to `text` in its call `number`."""
    return f"re: {text} [{number}]"


class Witness:
    """Draws what a call gets from the seed, its text and how often that was asked before."""

    def __init__(self, seed: str, rate: float, pause: float, slow: float, log: Path) -> None:
        self._seed, self._rate, self._pause, self._slow = seed, rate, pause, slow
        self._asked: Counter[str] = Counter()
        self._faults: dict[str, tuple[float, Step]] = {  # by weight
            # Few, because each of them holds every call for a second or two.
            "429 now": (0.04, status(429, retry_after=0)),
            "429 later": (0.04, status(429, retry_after=1)),
            "500": (1, status(500)),
            "cut": (1, cut()),
            "reset": (1, reset()),
            "garbage": (1, garbage()),
        }
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def step(self, body: dict[str, Any]) -> Step:
        text = last_user_text(body)

        async def play(exchange: Exchange) -> None:
            outcome, step = self._drawn(text, exchange.number)
            if outcome == "ok" and "tools" in body and body["messages"][-1]["role"] == "user":
                outcome, step = "tool", tool_calls([("open", {})])
            self._note(exchange.number, text, outcome, body["messages"])
            await step(exchange)

        return play

    def _drawn(self, text: str, number: int) -> tuple[str, Step]:
        self._asked[text] += 1
        key = f"{self._seed}\0{self._asked[text]}\0{text}".encode()
        drawn = hashlib.blake2b(key, digest_size=24).digest()
        chance, which, pause = (int.from_bytes(drawn[at : at + 8]) / 2**64 for at in (0, 8, 16))
        if chance < self._rate:
            which *= 1 + sum(weight for weight, _ in self._faults.values())
            for name, (weight, step) in self._faults.items():
                which -= weight
                if which < 0:
                    return name, step
            return "slow", delay(self._slow, ok(reply(text, number)))
        return "ok", delay(2 * pause * self._pause, ok(reply(text, number)))

    def _note(self, number: int, text: str, outcome: str, messages: list[dict[str, Any]]) -> None:
        """Before the answer, in one write: a call whose asker dies is counted too."""
        line = {
            "number": number,
            "at": time.time(),
            "text": text,
            "outcome": outcome,
            "history": [message["content"] or "" for message in messages[:-1]],
        }
        os.write(self._log, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))


def main() -> None:
    """Prints its port, then serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--rate", type=float, required=True, help="of the calls fail")
    parser.add_argument("--pause", type=float, required=True, help="mean seconds of an answer")
    parser.add_argument("--slow", type=float, required=True, help="seconds of a slow one")
    parser.add_argument("--log", type=Path, required=True)
    given = parser.parse_args()
    end_with_parent()
    witness = Witness(given.seed, given.rate, given.pause, given.slow, given.log)
    fake = FakeModel(record=False)
    fake.behave(witness.step)
    listener = bound(0)
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(config(fake)).run([listener])


if __name__ == "__main__":
    main()
