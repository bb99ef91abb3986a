"""Model answers that no server should give: bytes for a socket, from a seed."""

from __future__ import annotations

import gzip
import json
import random
from typing import Any

_WORDS = (
    *(
        "",
        "stop",
        "length",
        "\0",
        "\ud83d",
        "\u202e",
        "<think>",
        "</think>",
        "```json\n",
        "{",
        "[[",
    ),
    *("<tool_call>", '{"name": "switch", "arguments": {}}', "data: ", "a" * 3_000, "日本語"),
)
_NUMBERS = (0, -1, 1 << 31, 1 << 63, 1 << 200, 1.5, -0.0, 1e308, True, False, None)
_NAMES = (
    *("choices", "message", "delta", "content", "tool_calls", "function", "name", "arguments"),
    *("usage", "prompt_tokens", "completion_tokens", "total_tokens", "finish_reason", "error"),
    *("code", "type", "text", "reasoning", "reasoning_content", "refusal", "index", "id", "model"),
    *("prompt_tokens_details", "cached_tokens", "cost", "service_tier", "base_resp", "status_code"),
)
# None that speaks of the key or of limits: after those nobody is asked for a while, and rightly.
_STATUSES = (*[200] * 20, 201, 204, 206, 400, 404, 413, 422, 500, 503, 529, 999)


class Answers:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def _value(self, depth: int = 0) -> Any:
        pick = self._random.randrange(6 if depth < 4 else 3)
        if pick < 2:
            return self._random.choice(_WORDS)
        if pick == 2:
            return self._random.choice(_NUMBERS)
        if pick == 3:
            return [self._value(depth + 1) for _ in range(self._random.randrange(3))]
        count = self._random.randrange(1, 5)
        return {self._random.choice(_NAMES): self._value(depth + 1) for _ in range(count)}

    def _document(self) -> Any:
        """Mostly of the right form, with something wrong inside."""
        inner = self._value(2)
        return self._random.choice(
            [
                self._value(),
                {"choices": inner},
                {"choices": [inner]},
                {"choices": [{"message": inner, "finish_reason": self._value(3)}]},
                {"choices": [{"delta": inner, "finish_reason": self._value(3)}]},
                {"choices": [{"message": {"content": inner}}], "usage": self._value(1)},
                {"choices": [{"message": {"tool_calls": inner}}]},
                {"choices": [{"message": {"tool_calls": [{"function": inner}]}}]},
                {"error": inner},
                {"output": inner, "status": self._value(3)},
            ]
        )

    def _json(self) -> bytes:
        raw = json.dumps(self._document()).encode()
        match self._random.randrange(8):
            case 0:
                return raw[: self._random.randrange(len(raw))]
            case 1:
                return raw + raw
            case 2:
                return b"\xef\xbb\xbf" + raw
            case 3:
                return raw.replace(b'"', b'"\xff', 1)
            case 4:
                return b'{"choices":' * self._random.choice((10, 2_000, 20_000))
        return raw

    def _stream(self) -> bytes:
        ends = self._random.choice((b"\n\n", b"\r\n\r\n", b"\r\r", b"\n", b""))
        events = [
            self._random.choice((b"data: ", b"data:", b"event: error\ndata: ", b": ", b""))
            + self._json()
            + ends
            for _ in range(self._random.randrange(5))
        ]
        return b"".join(events) + self._random.choice((b"data: [DONE]" + ends, b""))

    def answer(self) -> bytes:
        """A whole HTTP answer, or a part of one; then the connection is closed."""
        streams = self._random.random() < 0.4
        body = self._stream() if streams else self._json()
        if self._random.random() < 0.1:
            body = self._random.randbytes(200)
        kind = self._random.choice(
            ["text/event-stream" if streams else "application/json"] * 4
            + ["text/html", "", "application/json; charset=latin-1", "text/plain"]
        )
        lines = [f"HTTP/1.1 {self._random.choice(_STATUSES)} Said", f"Content-Type: {kind}"]
        if self._random.random() < 0.1:
            body = gzip.compress(body)[: self._random.choice((5, None))]
            lines.append(f"Content-Encoding: {self._random.choice(('gzip', 'deflate', 'br', 'x'))}")
        if self._random.random() < 0.5:
            length = len(body) + self._random.choice((0, 0, 0, 5, -1))
            lines.append(f"Content-Length: {max(0, length)}")
        if self._random.random() < 0.2:
            lines.append(f"Retry-After: {self._random.choice(('0', '-1', 'x', ''))}")
        if self._random.random() < 0.1:
            lines.append(
                f"x-ratelimit-remaining-requests: {self._random.choice(('x', '', '9' * 40))}"
            )
        lines.append("Connection: close")
        whole = "\r\n".join([*lines, "", ""]).encode() + body
        if self._random.random() < 0.05:
            return self._random.choice((b"", b"\0" * 50, whole[: len(whole) // 2], b"HTTP/9 x\r\n"))
        return whole
