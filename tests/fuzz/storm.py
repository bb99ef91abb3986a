"""Webhooks that EMQX would never send, and some that it would: bytes for a socket, from a seed."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

_WORDS = ("undefined", "", "\0", "\ud83d", "\u202e", "a" * 300, "chatgpt/request/u1", "+", "#", "$")
_NUMBERS = (0, -1, 1 << 31, 1 << 63, 1 << 200, 1.5, -0.0, 1e300, True, False, None)
_FIELDS = (
    *("topic", "id", "payload", "payload_base64", "flow", "clientid", "username", "qos", "retain"),
    *("pub_props", "publish_received_at", "timestamp", "correlation_base64", "peerhost"),
)


class Storm:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def value(self, depth: int = 0) -> Any:
        pick = self._random.randrange(6 if depth < 3 else 3)
        if pick < 2:
            return self._random.choice(_WORDS)
        if pick == 2:
            return self._random.choice(_NUMBERS)
        if pick == 3:
            return [self.value(depth + 1) for _ in range(self._random.randrange(4))]
        names = (*_FIELDS, "Response-Topic", "User-Property-Pairs", "key", "value", *_WORDS)
        count = self._random.randrange(4)
        return {self._random.choice(names): self.value(depth + 1) for _ in range(count)}

    def body(self) -> bytes:
        """What stands after the headers."""
        match self._random.randrange(8):
            case 0:
                return self._random.randbytes(self._random.randrange(200))
            case 1:
                opening = self._random.choice(
                    ("[", '{"topic":', '{"id":"1","topic":"a","payload":')
                )
                return opening.encode() * self._random.choice((10, 1_000, 20_000))
            case 2:
                return b"\xef\xbb\xbf{}"
            case 3:
                return json.dumps(self.value()).encode()
        fields = {name: self.value() for name in self._random.sample(_FIELDS, 5)}
        if self._random.random() < 0.7:
            fields |= {"topic": "chatgpt/request/u1", "id": self._random.choice(_WORDS)}
        if self._random.random() < 0.3:
            fields["payload_base64"] = base64.b64encode(self._random.randbytes(20)).decode()
        raw = json.dumps(fields).encode()
        if self._random.random() < 0.2:  # cut, or with a byte that is none of UTF-8
            raw = raw[: self._random.randrange(len(raw))] + b"\xff" * self._random.randrange(2)
        return raw

    def request(self, token: str) -> bytes:
        """A whole request, mostly authorized, on a connection that is kept."""
        if self._random.random() < 0.05:
            token = self._random.choice(("", "wrong", token[:-1], token + " ", "\x80"))
        return post(token, self.body())


def post(token: str, body: bytes) -> bytes:
    """A whole POST /webhook."""
    lines = [
        "POST /webhook HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
