"""Chat Completions: the request read and checked, the answer whole or word by word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from service.demo.offline_model import api_rules
from service.demo.offline_model.answer import Answer
from service.demo.offline_model.request import Message, Refused, Request, picture, shut_down
from service.demo.offline_model.tool_choice import Tool

CREATED = 1767225600  # a constant, as all here: the same request gets the same answer
_WIDE = "\\u3001-\\u9fff\\uff00-\\uffef"  # written without spaces between words


def parse(body: Any, *, unknown: bool = False) -> Request:
    """The request, or Refused with the reason that OpenAI would give. `unknown`: see `check`."""
    body = api_rules.check(body, api_rules.CHAT, unknown=unknown)
    if gone := shut_down(body["model"]):
        raise gone
    messages = tuple(_message(each, f"messages[{at}]") for at, each in enumerate(body["messages"]))
    api_rules.check_tool_traffic(messages)
    functions = [each["function"] for each in body.get("tools") or ()]
    for at, each in enumerate(functions):
        where = f"tools[{at}].function.parameters"
        api_rules.check_tool(each["name"], each.get("parameters"), bool(each.get("strict")), where)
    given = body.get("response_format") or {"type": "text"}
    wanted = {"type": given["type"], **given.get("json_schema", {})}
    api_rules.check_format(wanted, "response_format", messages)
    if given["type"] == "json_schema" and "json_schema" not in given:
        where = "response_format.json_schema"
        raise Refused(
            400, f"Missing required parameter: '{where}'.", "missing_required_parameter", where
        )
    return Request(
        model=body["model"],
        messages=messages,
        tools=tuple(
            Tool(each["name"], each.get("description", ""), each.get("parameters") or {})
            for each in functions
        ),
        tool_choice=body.get("tool_choice", "auto"),
        format=wanted if wanted["type"] != "text" else {},
        stream=body.get("stream") is True,
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
    )


def _message(raw: Mapping[str, Any], where: str) -> Message:
    content, role = raw.get("content"), raw["role"]
    calls = tuple(
        (each["id"], each["function"]["name"], each["function"]["arguments"])
        for each in raw.get("tool_calls") or ()
    )
    if content is None and role != "assistant":
        said = f"Invalid type for '{where}.content': expected a string or an array of objects."
        raise Refused(400, said, "invalid_type", f"{where}.content")
    texts, seen = [], []
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    for at, part in enumerate(parts or ()):
        inside = f"{where}.content[{at}]"
        match part:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": "image_url", "image_url": {"url": str(url)}}:
                seen.append(picture(url, inside))
            case _:
                raise Refused(400, f"Invalid content part at '{inside}'.", "invalid_value", inside)
    return Message(role, "\n".join(texts), tuple(seen), calls, raw.get("tool_call_id", ""))


class ChatReply:
    """One answer in the shapes of Chat Completions."""

    def __init__(self, number: int, asked: Request, given: Answer) -> None:
        self.asked, self.text = asked, given.text
        self.id = f"chatcmpl-offline-{number}"
        self.calls: list[dict[str, Any]] = [
            {
                "id": f"call_offline_{number}_{at}",
                "type": "function",
                "function": {"name": call.name, "arguments": orjson.dumps(call.arguments).decode()},
            }
            for at, call in enumerate(given.calls)
        ]
        self.finish = "tool_calls" if given.calls else "stop"

    def _usage(self) -> dict[str, int]:
        said = (self.text or "") + "".join(str(each["function"]) for each in self.calls)
        prompt, completion = self.asked.prompt_tokens, -(-len(said) // 4)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": CREATED,
            "model": self.asked.model,
            "choices": choices,
        }

    def whole(self) -> dict[str, Any]:
        """The answer to a plain request."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text, "refusal": None}
        if self.calls:
            message["tool_calls"] = self.calls
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish}
        return self._envelope("chat.completion", [choice]) | {"usage": self._usage()}

    def events(self) -> Iterator[dict[str, Any]]:
        """The chunks of a streamed answer."""
        yield self._chunk({"role": "assistant", "content": None if self.calls else ""})
        for delta in self._deltas():
            yield self._chunk(delta)
        yield self._chunk({}, self.finish)
        if self.asked.include_usage:
            yield self._envelope("chat.completion.chunk", []) | {"usage": self._usage()}

    def _deltas(self) -> Iterator[dict[str, Any]]:
        for word in pieces(self.text or ""):
            yield {"content": word}
        for at, call in enumerate(self.calls):
            function = call["function"]
            yield {"tool_calls": [call | {"index": at, "function": function | {"arguments": ""}}]}
            for piece in pieces(function["arguments"]):
                yield {"tool_calls": [{"index": at, "function": {"arguments": piece}}]}

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._envelope("chat.completion.chunk", [choice])


def pieces(text: str) -> list[str]:
    """The text as words with the space after them; Chinese two characters at a time."""
    return re.findall(rf"[{_WIDE}]{{1,2}}|[^\s{_WIDE}]+\s*|\s+", text)
