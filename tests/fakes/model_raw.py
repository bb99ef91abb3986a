"""Answers of the fake model byte for byte, as they were seen on real servers."""

from collections.abc import Mapping
from typing import Any

import orjson

from tests.fakes.model_steps import named
from tests.fakes.model_wire import Exchange, Step


def raw(
    status: int = 200,
    body: Any = None,
    *,
    text: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Step:
    """`body` as JSON, or `text` as it is."""
    content = orjson.dumps(body) if text is None else text.encode()
    sent = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]

    async def play(exchange: Exchange) -> None:
        await exchange.answer(status, content, sent)

    return named(f"raw {status}", play)


def message(content: Any = None, finish: str = "stop", **more: Any) -> Step:
    """A completion with this message."""
    said = {"role": "assistant", "content": content, **more}
    choice = {"index": 0, "message": said, "finish_reason": finish}
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    return raw(body={"id": "c1", "model": "m", "choices": [choice], "usage": usage})


def chunks(*deltas: Any, finish: str = "stop") -> Step:
    """A stream of these deltas."""
    events = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    lines = "".join(f"data: {orjson.dumps(event).decode()}\n\n" for event in events)
    return raw(text=f"{lines}data: [DONE]\n\n", headers={"content-type": "text/event-stream"})
