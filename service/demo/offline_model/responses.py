"""The Responses API: the request read and checked, the answer whole or as typed events.

Nothing is stored: `previous_response_id` is refused, and in a tool loop each reasoning item has to
come back with its encrypted content, as OpenAI wants it with `store = false`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from service.demo.offline_model import api_rules
from service.demo.offline_model.answer import Answer
from service.demo.offline_model.chat import CREATED, pieces
from service.demo.offline_model.request import Message, Refused, Request, picture, shut_down
from service.demo.offline_model.tool_choice import Tool

_SEALED = "b2ZmbGluZSByZWFzb25pbmc="


def parse(body: Any) -> Request:
    """The request, or Refused with the reason that OpenAI would give."""
    body = api_rules.check(body, api_rules.RESPONSES)
    if gone := shut_down(body["model"]):
        raise gone
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    messages = list(_messages(items))
    if body.get("instructions"):
        messages.insert(0, Message("system", body["instructions"]))
    _check_reasoning(items)
    for at, each in enumerate(body.get("tools") or ()):
        where = f"tools[{at}].parameters"
        # Unlike Chat Completions, functions are strict here unless they say that they are not.
        api_rules.check_tool(
            each["name"], each["parameters"], each.get("strict") is not False, where
        )
    wanted = (body.get("text") or {}).get("format") or {"type": "text"}
    if wanted["type"] == "json_schema":
        wanted = {"strict": True, **wanted}
    api_rules.check_format(wanted, "text.format", messages)
    return Request(
        model=body["model"],
        messages=tuple(messages),
        tools=tuple(
            Tool(each["name"], each.get("description") or "", each["parameters"])
            for each in body.get("tools") or ()
        ),
        tool_choice=body.get("tool_choice", "auto"),
        format=wanted if wanted["type"] != "text" else {},
        stream=body.get("stream") is True,
    )


def _messages(items: Any) -> Iterator[Message]:
    for at, item in enumerate(items):
        where = f"input[{at}]"
        match item:
            case {"type": "reasoning"}:
                pass
            case {"type": "function_call", "call_id": str(id_), "name": str(name),
                  "arguments": str(arguments)}:  # fmt: skip
                yield Message("assistant", "", calls=((id_, name, arguments),))
            case {"type": "function_call_output", "call_id": str(id_), "output": output}:
                calls = {
                    each.get("call_id") for each in items if each.get("type") == "function_call"
                }
                if id_ not in calls:
                    said = f"No tool call found for function call output with call_id {id_}."
                    raise Refused(400, said, param="input")
                yield Message("tool", str(output), call_id=id_)
            case {"role": str(role), "content": content} if (
                item.get("type", "message") == "message"
            ):
                if role not in ("user", "assistant", "system", "developer"):
                    known = "'assistant', 'system', 'developer', and 'user'"
                    said = f"Invalid value: '{role}'. Supported values are: {known}."
                    raise Refused(400, said, "invalid_value", f"{where}.role")
                yield _spoken(role, content, f"{where}.content")
            case _:
                said = f"Invalid value: '{item.get('type')}'."
                raise Refused(400, said, "invalid_value", f"{where}.type")
    answered = {each.get("call_id") for each in items if each.get("type") == "function_call_output"}
    for item in items:
        if item.get("type") == "function_call" and item.get("call_id") not in answered:
            said = f"No tool output found for function call {item.get('call_id')}."
            raise Refused(400, said, param="input")


def _spoken(role: str, content: Any, where: str) -> Message:
    texts, seen = [], []
    kind = "output_text" if role == "assistant" else "input_text"
    parts = [{"type": kind, "text": content}] if isinstance(content, str) else content
    for at, part in enumerate(parts if isinstance(parts, list) else [None]):
        match part:
            case {"type": ("input_text" | "output_text") as said, "text": str(text)} if (
                said == kind
            ):
                texts.append(text)
            case {"type": "input_image", "image_url": str(url)}:
                seen.append(picture(url, f"{where}[{at}]"))
            case _:
                kinds = f"'{kind}'" + (", 'input_image'" if role != "assistant" else ", 'refusal'")
                said = f"Invalid value at '{where}[{at}]'. Supported values are: {kinds}."
                raise Refused(400, said, "invalid_value", f"{where}[{at}]")
    return Message(role, "\n".join(texts), tuple(seen))


def _check_reasoning(items: Any) -> None:
    """Each call of ours comes with the reasoning before it, whole."""
    given = {each.get("id"): each for each in items if each.get("type") == "reasoning"}
    for id_, item in given.items():
        if item.get("encrypted_content") != _SEALED:
            said = (
                f"Item with id '{id_}' not found. Items are not persisted when `store` is set to "
                "false. Try again with `store` set to true, or remove this item from your input."
            )
            raise Refused(404, said, param="input")
    for item in items:
        id_ = str(item.get("id") or "")
        if item.get("type") == "function_call" and id_.startswith("fc_offline_"):
            needed = f"rs_offline_{id_.split('_')[2]}"
            if needed not in given:
                said = (
                    f"Item '{id_}' of type 'function_call' was provided without its required "
                    f"'reasoning' item: '{needed}'."
                )
                raise Refused(400, said, param="input")


class ResponsesReply:
    """One answer in the shapes of the Responses API."""

    def __init__(self, number: int, asked: Request, given: Answer, body: Mapping[str, Any]) -> None:
        self.asked, self.body, self.text = asked, body, given.text or ""
        self.id = f"resp_offline_{number}"
        reasoning: dict[str, Any] = {"id": f"rs_offline_{number}", "type": "reasoning"}
        reasoning["summary"] = []
        if "reasoning.encrypted_content" in (body.get("include") or ()):
            reasoning["encrypted_content"] = _SEALED
        effort = (body.get("reasoning") or {}).get("effort")
        self.output: list[dict[str, Any]] = [] if effort == "none" else [reasoning]
        for at, call in enumerate(given.calls):
            prefix = "fc_offline" if effort != "none" else "fc_plain"
            self.output.append(
                {
                    "id": f"{prefix}_{number}_{at}",
                    "type": "function_call",
                    "status": "completed",
                    "call_id": f"call_offline_{number}_{at}",
                    "name": call.name,
                    "arguments": orjson.dumps(call.arguments).decode(),
                }
            )
        if not given.calls:
            part = {"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}
            self.output.append(
                {
                    "id": f"msg_offline_{number}",
                    "type": "message",
                    "status": "completed",
                    "role": "assistant",
                    "content": [part],
                }
            )

    def _response(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        body = self.body
        said = self.text + "".join(each.get("arguments", "") for each in self.output)
        tokens, written = self.asked.prompt_tokens, -(-len(said) // 4)
        usage = {
            "input_tokens": tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tokens + written,
        }
        return {
            "id": self.id, "object": "response", "created_at": CREATED, "status": status,
            "error": None, "incomplete_details": None, "instructions": body.get("instructions"),
            "max_output_tokens": body.get("max_output_tokens"), "model": self.asked.model,
            "output": output, "parallel_tool_calls": body.get("parallel_tool_calls", True),
            "previous_response_id": None,
            "reasoning": body.get("reasoning") or {"effort": None, "summary": None},
            "store": body.get("store") is not False, "temperature": body.get("temperature", 1.0),
            "text": body.get("text") or {"format": {"type": "text"}},
            "tool_choice": body.get("tool_choice", "auto"), "tools": body.get("tools") or [],
            "top_p": body.get("top_p", 1.0), "truncation": "disabled", "metadata": {},
            "usage": usage if status == "completed" else None,
        }  # fmt: skip

    def whole(self) -> dict[str, Any]:
        """The answer to a plain request."""
        return self._response("completed", self.output)

    def events(self) -> Iterator[dict[str, Any]]:
        """The events of a streamed answer, numbered."""
        for number, event in enumerate(self._events()):
            yield {**event, "sequence_number": number}

    def _events(self) -> Iterator[dict[str, Any]]:
        begun = self._response("in_progress", [])
        yield {"type": "response.created", "response": begun}
        yield {"type": "response.in_progress", "response": begun}
        for at, item in enumerate(self.output):
            place = {"item_id": item["id"], "output_index": at}
            added = {**item, **({"status": "in_progress"} if "status" in item else {})}
            if item["type"] == "message":
                added["content"] = []
            elif item["type"] == "function_call":
                added["arguments"] = ""
            yield {"type": "response.output_item.added", "output_index": at, "item": added}
            if item["type"] == "message":
                yield from self._text(item, {**place, "content_index": 0})
            elif item["type"] == "function_call":
                kind = "response.function_call_arguments"
                for piece in pieces(item["arguments"]):
                    yield {"type": f"{kind}.delta", **place, "delta": piece}
                yield {"type": f"{kind}.done", **place, "arguments": item["arguments"]}
            yield {"type": "response.output_item.done", "output_index": at, "item": item}
        yield {"type": "response.completed", "response": self.whole()}

    def _text(self, item: Mapping[str, Any], place: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        part = item["content"][0]
        yield {"type": "response.content_part.added", **place, "part": {**part, "text": ""}}
        for word in pieces(self.text):
            yield {"type": "response.output_text.delta", **place, "delta": word, "logprobs": []}
        yield {"type": "response.output_text.done", **place, "text": self.text, "logprobs": []}
        yield {"type": "response.content_part.done", **place, "part": part}
