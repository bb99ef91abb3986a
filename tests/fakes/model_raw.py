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


def said(body: Mapping[str, Any], content: Any = None, **more: Any) -> Step:
    """A message, whole or in a stream, as the request wants it."""
    finish = "tool_calls" if "tool_calls" in more else "stop"
    if not body.get("stream"):
        return message(content, finish, **more)
    calls = [{"index": at, **call} for at, call in enumerate(more.pop("tool_calls", ()))]
    deltas = [{"content": content, **more}] if content or more else []
    return chunks(*deltas, *({"tool_calls": [call]} for call in calls), finish=finish)


def responded(body: Mapping[str, Any], *output: Mapping[str, Any], **more: Any) -> Step:
    """An answer of the Responses API with these items, whole or in a stream."""
    usage = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}
    whole = {"object": "response", "status": "completed", "model": "m", "usage": usage}
    whole |= {"output": list(output), **more}
    if not body.get("stream"):
        return raw(body=whole)
    texts = [
        {"type": "response.output_text.delta", "delta": part["text"]}
        for item in output
        for part in item.get("content") or ()
        if part["type"] == "output_text"
    ]
    end = f"response.{whole['status']}"
    events = [{"type": "response.created"}, *texts, {"type": end, "response": whole}]
    lines = [f"event: {one['type']}\ndata: {orjson.dumps(one).decode()}\n\n" for one in events]
    return raw(text="".join(lines), headers={"content-type": "text/event-stream"})


def item(text: str) -> dict[str, Any]:
    """A message among the items of a response."""
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "role": "assistant", "content": [part]}


def chunks(*deltas: Any, finish: str = "stop") -> Step:
    """A stream of these deltas."""
    events = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    lines = "".join(f"data: {orjson.dumps(event).decode()}\n\n" for event in events)
    return raw(text=f"{lines}data: [DONE]\n\n", headers={"content-type": "text/event-stream"})
