"""The two ends as processes of their own: `python -m tests.bench.ends model|emqx`.

The model's behaviour stands in its URL: `/delay/2/v1` answers after 2 s, `/first/0.3/v1`
streams with the first token after 0.3 s, `/paused/v1` asks everyone to wait. A reply repeats
the question, so that both ends know which request they saw. Times are of the monotonic clock,
which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import orjson
import uvloop

from tests.bench.lean import Connection, response, serve
from tests.fakes.payload import payload_of

_PIECES = 8  # of a streamed reply
_BETWEEN = 0.05  # seconds between them
_PAUSED = response(
    b'{"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}}',
    429,
    b"retry-after: 300\r\n",
)
_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def _completion(text: str) -> bytes:
    return orjson.dumps(
        {
            "id": "chatcmpl-bench",
            "object": "chat.completion",
            "created": 1795000000,
            "model": "gpt-5.4-mini",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 24, "completion_tokens": 12, "total_tokens": 36},
        }
    )


def _chunk(text: str | None, reason: str | None = None) -> bytes:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    fields = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1795000000,
        "model": "gpt-5.4-mini",
        "choices": [choice],
    }
    return _chunked(b"data: " + orjson.dumps(fields) + b"\n\n")


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Model:
    """An OpenAI-compatible server that says each question back."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._in_flight = 0
        self._peak = 0
        self._notes: dict[str, tuple[float, float]] = {}  # question: came, answered

    def __call__(self, method: str, path: str, body: bytes, to: Connection) -> None:
        if method == "GET":
            to.json({"notes": self._notes, "peak": self._peak})
            self._notes, self._peak = {}, self._in_flight
            return
        came = time.monotonic()
        _, kind, seconds, *_ = path.split("/")
        if kind == "paused":
            to.send(_PAUSED)
            return
        question = orjson.loads(body)["messages"][-1]["content"]
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)
        delay = float(seconds)
        if kind == "first":
            self._loop.call_later(delay, self._piece, question, came, to, 0)
        elif delay:
            self._loop.call_later(delay, self._answer, question, came, to)
        else:
            self._answer(question, came, to)

    def _answer(self, question: str, came: float, to: Connection) -> None:
        self._in_flight -= 1
        to.answer(_completion(question))
        self._notes[question] = (came, time.monotonic())

    def _piece(self, question: str, came: float, to: Connection, number: int) -> None:
        if number == 0:
            self._notes[question] = (came, time.monotonic())
            to.send(_STREAM)
        if number < _PIECES:
            to.send(_chunk(f"{question} " if number == 0 else f"word{number} "))
            self._loop.call_later(_BETWEEN, self._piece, question, came, to, number + 1)
            return
        self._in_flight -= 1
        to.send(_chunk(None, "stop") + _chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")


class Emqx:
    """EMQX's publish API: notes when each payload came first."""

    def __init__(self) -> None:
        self._notes: dict[str, float] = {}
        self._calls = {"publish": 0, "bulk": 0}
        self._waiting: tuple[int, Connection] | None = None

    def __call__(self, method: str, path: str, body: bytes, to: Connection) -> None:
        now = time.monotonic()
        if method == "GET":
            self._look(path, to)
        elif path.endswith("/bulk"):
            self._calls["bulk"] += 1
            messages = orjson.loads(body)
            to.json([{"id": "0006"} for _ in messages])
            for message in messages:
                self._notes.setdefault(payload_of(message), now)
        else:
            self._calls["publish"] += 1
            to.answer(b'{"id":"0006"}')
            self._notes.setdefault(payload_of(orjson.loads(body)), now)
        if self._waiting is not None and len(self._notes) >= self._waiting[0]:
            self._waiting[1].json(len(self._notes))
            self._waiting = None

    def _look(self, path: str, to: Connection) -> None:
        """/wait/N answers once N replies are here; /notes tells all and forgets."""
        _, word, *rest = path.split("/")
        if word == "api":  # the service looks at counters and rules
            to.json({})
            return
        if word == "wait":
            self._waiting = (int(rest[0]), to)
            return
        if word == "count":
            to.json(len(self._notes))
            return
        to.json({"notes": self._notes, "calls": self._calls})
        self._notes, self._calls, self._waiting = {}, {"publish": 0, "bulk": 0}, None


async def _main(name: str) -> None:
    handler: Any = {"model": Model, "emqx": Emqx}[name]()
    await serve(handler)


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1]))
