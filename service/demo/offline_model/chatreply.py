"""The offline model's answer in OpenAI's shapes: whole, or word by word."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson

from service.demo.offline_model.chatrequest import ChatRequest
from service.demo.offline_model.wits import Answer

_WIDE = "\\u3001-\\u9fff\\uff00-\\uffef"  # written without spaces between words


class Reply:
    """One answer in OpenAI's shapes."""

    def __init__(self, number: int, asked: ChatRequest, given: Answer) -> None:
        self.asked, self.text = asked, given.text
        self.id = f"chatcmpl-offline-{number}"
        self.created = int(time.time())
        self.calls = [
            {
                "id": f"call_offline_{number}_{at}",
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": json.dumps(call.arguments, ensure_ascii=False),
                },
            }
            for at, call in enumerate(given.calls)
        ]
        self.finish = "tool_calls" if given.calls else "stop"

    def _usage(self) -> dict[str, int]:
        texts = [message.text for message in self.asked.messages]
        pictures = sum(len(each.pictures) + len(each.links) for each in self.asked.messages)
        prompt = sum(math.ceil(len(text) / 4) for text in texts) + 85 * pictures
        said = (self.text or "") + "".join(str(each["function"]) for each in self.calls)
        completion = math.ceil(len(said) / 4)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.asked.model,
            "system_fingerprint": "offline",
            "choices": choices,
        }

    def whole(self) -> dict[str, Any]:
        """The answer to a plain request."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text, "refusal": None}
        if self.calls:
            message["tool_calls"] = self.calls
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish}
        return self._envelope("chat.completion", [choice]) | {"usage": self._usage()}

    async def events(self, delay: float, hurry: asyncio.Event) -> AsyncIterator[bytes]:
        """The answer to a streamed request, word by word."""
        yield self._chunk({"role": "assistant", "content": None if self.calls else ""})
        for delta in self._deltas():
            if delay and not hurry.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await hurry.wait()
            yield self._chunk(delta)
        yield self._chunk({}, self.finish)
        if self.asked.include_usage:
            last = self._envelope("chat.completion.chunk", []) | {"usage": self._usage()}
            yield b"data: " + orjson.dumps(last) + b"\n\n"
        yield b"data: [DONE]\n\n"

    def _deltas(self) -> Iterator[dict[str, Any]]:
        for word in _pieces(self.text or ""):
            yield {"content": word}
        for at, call in enumerate(self.calls):
            function = call["function"]
            assert isinstance(function, dict)
            head = call | {"index": at, "function": function | {"arguments": ""}}
            yield {"tool_calls": [head]}
            for piece in _pieces(function["arguments"]):
                yield {"tool_calls": [{"index": at, "function": {"arguments": piece}}]}

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = self._envelope("chat.completion.chunk", [choice])
        if self.asked.include_usage:
            chunk["usage"] = None
        return b"data: " + orjson.dumps(chunk) + b"\n\n"


def _pieces(text: str) -> list[str]:
    """The text as words with the space after them; Chinese two characters at a time."""
    return re.findall(rf"[{_WIDE}]{{1,2}}|[^\s{_WIDE}]+\s*|\s+", text)
